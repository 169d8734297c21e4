"""Whose engines are executed: those that this user built on this machine, and those that the user vouches for (docs/adr/0015)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.artifact import Artifact, Manifest, manifest_path, read_json
from dtvit_deploy.cache import Cache
from dtvit_deploy.trt.library import LIBRARIES
from dtvit_deploy.trt.passport import FORMATS, passport_of


def with_trust(artifact: Artifact, cache: Cache, *, trust: bool) -> Artifact:
    """An artefact that came from outside, trusted if the user says so or the user's own cache holds it.

    What is in the cache, this user's exports put there, and nobody else can write it. The passport must be the cached one too: it says
    which code of the engine may run, and anyone can write another beside the same bytes.

    Raises:
        InputError: others can write the cache.
    """
    stages = {FORMATS[flavour]: str(flavour) for flavour in LIBRARIES}
    stage = stages.get(artifact.manifest.format)
    if stage is None:  # nothing native in it
        return artifact
    return msgspec.structs.replace(artifact, trusted=trust or _is_cached(artifact, stage, cache))


def _is_cached(artifact: Artifact, stage: str, cache: Cache) -> bool:
    mine = artifact.manifest

    def holds(folder: Path) -> bool:
        beside = manifest_path(folder / f"model.{mine.format}")
        if not beside.is_file():
            return False
        cached: Manifest = read_json(beside, Manifest)
        return cached.sha256 == mine.sha256 and passport_of(cached) == passport_of(mine)

    return cache.find(stage, holds) is not None

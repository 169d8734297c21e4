"""Whose artefacts are taken at their word: those that this user built on this machine, and those that the user vouches for.

Engines are native code, and others are emulated (docs/adr/0015). A graph that is not trusted is
loaded and run by a process of its own first.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Manifest, manifest_path, read_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.formats.engine.library import LIBRARIES
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import FORMATS, LINK, PASSPORT
from dtvit_deploy.remote.built import built_on

STAGES = {FORMATS[flavour]: (str(flavour),) for flavour in LIBRARIES} | {
    FORMATS[Flavour.ON_DEVICE]: ("job",),
    "onnx": ("simplified", "float16", "portable", "int8", "int8-float16"),
    "openvino": ("openvino", "nncf"),
    "mlpackage": ("coreml", "coreml-layout", "coreml-int8", "coreml-weights"),
}
"""The stages of the cache that artefacts of a format come from."""
BUILT_THERE = "built-there"
"""The stage of what devices have built: its engines may be executed on the device that did, and nowhere else."""
ENGINE_THERE = f"model.{FORMATS[Flavour.TENSORRT]}"
"""Of such an entry, the engine's folder."""


def with_trust(artifact: Artifact, cache: Cache, *, trust: bool) -> Artifact:
    """An artefact that came from outside, trusted if the user says so or the user's own cache holds it.

    What is in the cache, this user's exports put there, and nobody else can write it. Of an engine, the passport must be the cached one
    too: it says which code of the engine may run, and anyone can write another beside the same bytes.

    Raises:
        InputError: others can write the cache.
    """
    mine = artifact.manifest
    held = any(_holds(stage, mine, cache) for stage in STAGES.get(mine.format, ()))
    return msgspec.structs.replace(artifact, trusted=trust or held)


def runs_there(artifact: Artifact, name: str, address: str, cache: Cache) -> bool:
    """Whether an artefact's machine code may be executed on a device: the user vouches for it, or the device built it for this user.

    Args:
        name, address: of the device.

    Raises:
        InputError: others can write the cache.
    """
    mine = artifact.manifest

    def holds(folder: Path) -> bool:
        beside = manifest_path(folder / ENGINE_THERE)
        if not beside.is_file():
            return False
        kept: Manifest = read_json(beside, Manifest)
        built = built_on(kept)
        by_it = built is not None and (built.on, built.address) == (name, address)
        return by_it and kept.sha256 == mine.sha256 and _passport(kept) == _passport(mine)

    native = mine.format in map(FORMATS.get, LIBRARIES)
    return native and (artifact.trusted or (cache.root.is_dir() and cache.find(BUILT_THERE, holds) is not None))


def _holds(stage: str, mine: Manifest, cache: Cache) -> bool:
    def holds(folder: Path) -> bool:
        beside = manifest_path(folder / f"model.{mine.format}")
        if not beside.is_file():
            return False
        cached: Manifest = read_json(beside, Manifest)
        return cached.sha256 == mine.sha256 and _passport(cached) == _passport(mine)

    return cache.find(stage, holds) is not None


def _passport(manifest: Manifest) -> object:
    link = manifest.parent(LINK)
    return link.options.get(PASSPORT) if link is not None else None

"""What stages made is put where the user wants it."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path, read_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.ranges import RANGES
from dtvit_deploy.plan.execute import NotDoneError, Results
from dtvit_deploy.plan.graph import Plan
from dtvit_deploy.plan.work import artifacts_in
from dtvit_deploy.recipe.tables import Recipe


def place(results: Results, builds: Collection[str], ranges: str, recipe: Recipe, folder: Path) -> list[Artifact]:
    """Copy the artefacts of builds with their manifests, and the range table where one was made; the copies, in order.

    Args:
        results: of a plan.
        builds: names of its stages that build; one that failed has nothing.
        ranges: name of the stage that makes the table.
        recipe: the request, which may have brought a table along.
        folder: where to.
    """
    copies = []
    for build in builds:
        for path in artifacts_in(results.folders[build]) if build in results.folders else ():
            copy(path, folder / path.name)
            copy(manifest_path(path), manifest_path(folder / path.name))
            copies.append(load_artifact(folder / path.name))
    if ranges in results.folders and recipe.int8.ranges is None:
        copy(results.folders[ranges] / RANGES, folder / RANGES)
    return copies


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, as a file of the user's own: what is in the cache has other rights."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(source, target)


def takes_the_place(artifact: Artifact, out: Path) -> str:
    """What is to be said where an artefact is about to replace another of its name; empty where it is the same, or there is none."""
    beside = manifest_path(out / artifact.name)
    try:
        earlier: Manifest | None = read_json(beside, Manifest) if beside.is_file() else None
    except InputError:
        earlier = None
    if earlier is None or earlier.sha256 == artifact.manifest.sha256:
        return ""
    pairs_of = zip(earlier.lineage, artifact.manifest.lineage, strict=False)
    step = next((new.kind for old, new in pairs_of if old.sha256 != new.sha256), artifact.manifest.lineage[-1].kind)
    return f"{artifact.name} takes the place of another of that name in {out}: they differ from the step {step!r} on"


def raise_first(graph: Plan, results: Results, names: Collection[str]) -> None:
    """Raise the first failure of those stages that is none of what another's brought about."""
    failed = [results.failed[stage.name] for stage in graph if stage.name in names and stage.name in results.failed]
    for error in sorted(failed, key=lambda one: isinstance(one, NotDoneError)):
        raise error

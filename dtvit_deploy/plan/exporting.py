"""An export: the part of a plan that builds, whose artefacts go into a folder together, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.pipeline.built_there import builders, require_builders, with_jobs
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.pipeline.program import read_program_entry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.reachable import require_reachable
from dtvit_deploy.plan.execute import Results, execute
from dtvit_deploy.plan.files import Known
from dtvit_deploy.plan.keys import key_of, known
from dtvit_deploy.plan.placing import place, takes_the_place
from dtvit_deploy.plan.pool import here, processors
from dtvit_deploy.plan.stages import plan
from dtvit_deploy.recipe.tables import Recipe


class Exported(NamedTuple):
    """What an export made.

    Attributes:
        program: manifest of the reference.
        artifacts: in the folder that was asked for.
        compared: whether a run has compared these very artefacts with torch, on the request's own data.
    """

    program: Manifest
    artifacts: tuple[Artifact, ...]
    compared: bool


def export(recipe: Recipe, out: Path, cache: Cache, progress: Progress, workers: int | None = None, *, wait: bool = True) -> Exported:
    """Build every artefact, then move all of them into ``out`` together, with the range table where one was made.

    The request's devices build the engines of TensorRT's jobs, each its own; whether they can, they are asked first.

    Args:
        recipe: what to build.
        out: the folder; it is made where it is not there.
        cache: holds what was built before.
        progress: told what is going on.
        workers: processes that build side by side; where None as many as there are cores and builds that take longer than to start one.
        wait: for a device that somebody else has.

    Raises:
        InputError: the model, the data or ``out`` cannot be used; nothing is left in ``out`` then.
        MissingError: a target needs a package that is not installed, or a device lacks what it takes to build.
        LostError: a device cannot be reached any more; what was begun there goes on.
    """
    recipe, devices, files = with_jobs(recipe), builders(recipe), Known()
    graph = plan([("", recipe)], measured=False, there=True, wait=wait, known=files)
    builds = [stage.name for stage in graph if stage.does == "build"]
    made_there = [stage.name for stage in graph if stage.does == "built_there"]
    size = min(workers, len(builds)) if workers else min(processors(), sum(not graph.stages[name].cost.brief for name in builds))
    size = max(size, min(2, len(devices)))  # side by side, as they wait for nothing of this machine
    class_map_of(recipe)
    require_reachable(recipe)
    require_builders(devices, progress)
    with staged(out) as folder:  # as early, so that an unusable output too is refused before a minute's work
        with here(progress, size) as pool:
            results = execute(graph, [recipe], cache, pool, progress, needed=graph.taken_by([*builds, *made_there]))
        made = place(results, [*builds, *made_there], "ranges", recipe, folder)
        for told in filter(None, (takes_the_place(artifact, out) for artifact in made)):
            progress.step(told)
    program = read_program_entry(results.folders["trace"]).artifact.manifest
    artifacts = tuple(load_artifact(out / artifact.name) for artifact in made)
    return Exported(program, artifacts, not made_there and _compared(recipe, files, results, cache))


def _compared(recipe: Recipe, files: Known, results: Results, cache: Cache) -> bool:
    """Whether the cache has what a run of the same request, on this machine, found of these artefacts."""
    alone = msgspec.structs.replace(recipe, device=())
    for layers in (True, False):
        parity = plan([("", alone)], layers=layers, known=files).stages["parity"]
        if known(cache, parity, key_of(parity, results.folders, {})) is not None:
            return True
    return False

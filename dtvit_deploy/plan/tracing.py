"""Stages that come before any build: the exported program, what can be checked with it, and the ranges of INT8."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.artifacts.artifact import manifest_path, write_json
from dtvit_deploy.artifacts.contents import share
from dtvit_deploy.harness.class_scores import require_rows
from dtvit_deploy.pipeline.compared import require_outputs
from dtvit_deploy.pipeline.material import class_map_of, with_preprocessing
from dtvit_deploy.pipeline.program import PROGRAM, program_stage
from dtvit_deploy.pipeline.ranges import RANGES, ranges_stage, require_sound_calibration
from dtvit_deploy.plan.work import Task


def trace(task: Task, folder: Path) -> None:
    """The exported program, its nodes and its ONNX graph."""
    traced = program_stage(task.recipe.model, task.cache)
    changed = with_preprocessing(traced, task.recipe.preprocessing)
    write_json(manifest_path(folder / PROGRAM), changed.artifact.manifest)
    for path in traced.artifact.path.parent.iterdir():
        if not path.name.startswith(".") and path != manifest_path(traced.artifact.path):
            share(path, folder / path.name)


def checked(task: Task, folder: Path) -> None:
    """Nothing; it refuses what no build could be right for, before there is one."""
    require_outputs(task.program.artifact.manifest.signature, task.recipe.parity.tolerance)
    require_rows(task.program.artifact.manifest.signature.outputs, task.recipe.parity.class_scores)
    require_sound_calibration(task.recipe, class_map_of(task.recipe), task.program)
    (folder / "checked").touch()


def ranges(task: Task, folder: Path) -> None:
    """The range table of the calibration's images, or the one that was given."""
    table = ranges_stage(task.recipe, class_map_of(task.recipe), task.program, task.cache, task.progress)
    assert table is not None
    write_json(folder / RANGES, table)

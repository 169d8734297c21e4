"""Stages that build: graphs that several targets are made from, and each target's artefacts."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.artifacts.contents import share
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.calibration.ranges import load_ranges
from dtvit_deploy.pipeline.build import Build
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.ranges import RANGES
from dtvit_deploy.pipeline.stages import copy_artifact
from dtvit_deploy.plan.work import Task


def simplified(task: Task, folder: Path) -> None:
    """The simplified graph, in the cache, from which several targets are made."""
    made = onnx_stage(task.program, _build(task).guard, task.cache)
    (folder / "made.txt").write_text(made.manifest.sha256)


def float16(task: Task, folder: Path) -> None:
    """The graph typed as FP16, in the cache."""
    guard, keep = _build(task).guard, task.recipe.export.keep_fp32
    made = float16_stage(onnx_stage(task.program, guard, task.cache), guard, keep, task.cache)
    (folder / "made.txt").write_text(made.manifest.sha256)


def build(task: Task, folder: Path) -> None:
    """Artefacts of one target in one precision."""
    target, precision = Target(task.asked["target"]), Precision(task.asked["precision"])
    for made in _build(task).artifacts(target, precision):
        copy_artifact(made, folder, made.manifest.file_name, share)


def _build(task: Task) -> Build:
    table = load_ranges(task.needs["ranges"] / RANGES) if "ranges" in task.needs else None
    return Build(task.recipe, task.program, table, class_map_of(task.recipe), task.cache, task.progress)

"""Stages that observe a calibration in stretches, and put together what was counted."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import write_json
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.pipeline.observation import CalibrationShard, observe
from dtvit_deploy.pipeline.ranges import RANGES, chosen_for, ranges_stage
from dtvit_deploy.pipeline.shards import cut
from dtvit_deploy.plan.work import Task, parts_of

COUNTS = "counts.pickle"
"""It comes out of this user's cache, or from a worker that this user has chosen, as exported programs do."""


def observed(task: Task, folder: Path) -> None:
    """What is counted of every tensor on a stretch of the calibration's samples."""
    number, many = task.asked["part"]
    # The evaluation's images were looked through before for those of the calibration; that is not done for each stretch again.
    alone = msgspec.structs.replace(task.recipe, data=msgspec.structs.replace(task.recipe.data, evaluation=None))
    chosen = chosen_for(alone, task.program, class_map_of(task.recipe))
    stretch = cut(0, len(chosen.samples), many)[number]
    found = observe(CalibrationShard(task.program, chosen, task.recipe.run.threads, *stretch))
    (folder / COUNTS).write_bytes(pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL))


def gathered(task: Task, folder: Path) -> None:
    """The range table of all stretches, which is that of one pass to the last byte."""
    counted = (pickle.loads((part / COUNTS).read_bytes()) for part in parts_of(task, "ranges"))
    table = ranges_stage(task.recipe, class_map_of(task.recipe), task.program, task.cache, task.progress, counted)
    assert table is not None
    write_json(folder / RANGES, table)

"""Stages that observe a calibration in stretches, and put together what was counted."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import write_json
from dtvit_deploy.calibration.counts import Counts
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.pipeline.observation import CalibrationShard, observe
from dtvit_deploy.pipeline.ranges import RANGES, chosen_for, ranges_stage
from dtvit_deploy.pipeline.shards import Sharding
from dtvit_deploy.plan.work import Task, parts_of

COUNTS = "counts.pickle"
"""It comes out of this user's cache, or from a worker that this user has chosen, as exported programs do."""


def observed(task: Task, folder: Path) -> None:
    """What is counted of every tensor on a stretch of the calibration's samples."""
    number, many = task.asked["part"]
    task.progress.step(f"observing stretch {number + 1} of {many}")
    # The evaluation's images were looked through before for those of the calibration; that is not done for each stretch again.
    alone = msgspec.structs.replace(task.recipe, data=msgspec.structs.replace(task.recipe.data, evaluation=None))
    chosen = chosen_for(alone, task.program, class_map_of(task.recipe))
    stretch = Sharding(many).cut(0, len(chosen.samples))[number]
    found = observe(CalibrationShard(task.program, chosen, task.recipe.run.threads, *stretch))
    (folder / COUNTS).write_bytes(pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL))


def gathered(task: Task, folder: Path) -> None:
    """The range table of all stretches, which is that of one pass to the last byte."""
    parts = parts_of(task, "ranges")

    def compute(function: object, shards: object) -> Iterator[list[Counts]]:
        return (pickle.loads((part / COUNTS).read_bytes()) for part in parts)

    sharding = Sharding(len(parts), compute)  # type: ignore[arg-type]
    table = ranges_stage(task.recipe, class_map_of(task.recipe), task.program, task.cache, task.progress, sharding)
    assert table is not None
    write_json(folder / RANGES, table)

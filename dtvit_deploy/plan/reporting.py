"""The stage that holds figures to gates, and reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtvit_deploy.calibration.ranges import load_ranges
from dtvit_deploy.pipeline.calibrated import facts
from dtvit_deploy.pipeline.check import judged
from dtvit_deploy.pipeline.figures import Measured
from dtvit_deploy.pipeline.measured_there import Group, Kept, remembered
from dtvit_deploy.pipeline.ranges import RANGES
from dtvit_deploy.plan.measuring import FIGURES, bench_for, figures_of
from dtvit_deploy.plan.on_device import KEPT
from dtvit_deploy.plan.work import Task
from dtvit_deploy.report import add_report


class _There(NamedTuple):
    """What is to be reported of one device.

    Attributes:
        stages: those that measure there, by the last part of their names.
        group: what they measured; None where they did not.
    """

    name: str
    stages: tuple[str, ...]
    group: Group | None


def report(task: Task, folder: Path) -> None:
    """Figures held to the gates, those of this machine before those of each device, and the report of it."""
    measured = Measured()
    for name in ("accuracy", "parity", "latency"):
        if name in task.needs:
            measured = measured.with_(msgspec.msgpack.decode((task.needs[name] / FIGURES).read_bytes(), type=Measured))
    there = [_there(task, name, tuple(stages)) for name, stages in task.asked["devices"].items()]
    figures = figures_of(task, accuracy=bool(measured.scored))
    groups = [one.group for one in there if one.group is not None]
    notes = [note for one in there for note in _left_out(task, one)]
    missing = list(_missing(task, there))
    found = judged("run", bench_for(task), task.artifacts, task.recipe, figures, measured, missing, groups, notes)
    if "ranges" in task.wants:
        found = msgspec.structs.replace(found, calibration=facts(load_ranges(task.wants["ranges"] / RANGES)))
    add_report(found, folder)


def _there(task: Task, name: str, stages: tuple[str, ...]) -> _There:
    done = [task.wants[stage] / KEPT for stage in stages if stage in task.wants]
    kept = [msgspec.msgpack.decode(file.read_bytes(), type=Kept) for file in done]
    return _There(name, stages, remembered(kept, task.artifacts) if kept else None)


def _missing(task: Task, there: list[_There]) -> Iterator[tuple[str, str]]:
    """A gate that fails for each build that is missing, and for each device of which figures are, with all reasons."""
    of_devices = {stage for one in there for stage in one.stages}
    yield from ((f"{name}: built", why) for name, why in task.missing if name not in of_devices)
    for one in there:
        # Where a device could not be asked, neither of its stages was begun, each for that reason.
        reasons = dict.fromkeys(why.partition(": asked is missing: ")[2] or why for name, why in task.missing if name in one.stages)
        if reasons:
            yield f"{one.name}: measured", "; ".join(reasons)


def _left_out(task: Task, there: _There) -> Iterator[str]:
    """What was built and cannot be run on a device."""
    if there.group is None:
        return
    run = {pairing.artifact.path for pairing in there.group.pairings}
    for artifact in task.artifacts:
        if artifact.path not in run:
            yield f"{artifact.name}: not measured on {there.name}, which has no runtime for artefacts of its kind"

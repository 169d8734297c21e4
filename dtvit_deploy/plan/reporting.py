"""The stage that holds figures to gates, and reports."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.calibration.ranges import load_ranges
from dtvit_deploy.pipeline.calibrated import facts
from dtvit_deploy.pipeline.check import judged
from dtvit_deploy.pipeline.figures import Measured
from dtvit_deploy.pipeline.ranges import RANGES
from dtvit_deploy.plan.measuring import FIGURES, bench_for, figures_of
from dtvit_deploy.plan.work import Task
from dtvit_deploy.report import add_report


def report(task: Task, folder: Path) -> None:
    """Figures held to the gates, and the report of it."""
    measured = Measured()
    for name in ("accuracy", "parity", "latency"):
        if name in task.needs:
            measured = measured.with_(msgspec.msgpack.decode((task.needs[name] / FIGURES).read_bytes(), type=Measured))
    bench = bench_for(task)
    found = judged("run", bench, task.artifacts, task.recipe, figures_of(task, accuracy=bool(measured.scored)), measured, task.missing)
    if "ranges" in task.wants:
        found = msgspec.structs.replace(found, calibration=facts(load_ranges(task.wants["ranges"] / RANGES)))
    add_report(found, folder)

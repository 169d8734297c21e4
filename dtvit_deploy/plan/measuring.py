"""Stages that take figures of what was built."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from dtvit_deploy.devices.local import state
from dtvit_deploy.pipeline import scoring
from dtvit_deploy.pipeline.figures import Figures, Measured
from dtvit_deploy.pipeline.latencies import latency_of
from dtvit_deploy.pipeline.material import class_map_of, open_material
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.taking import bench_of, conditions_of, parity_of
from dtvit_deploy.plan.work import PASSING, Task

FIGURES = "figures.msgpack"


def figures_of(task: Task, *, accuracy: bool) -> Figures:
    """What a whole run takes."""
    return Figures(parity=True, layers=bool(task.asked.get("layers", True)), accuracy=accuracy, latency=True)


def bench_for(task: Task) -> Bench:
    """The artefacts beside their reference, on the evaluation's samples; the reference alone where nothing is measured here."""
    material = open_material(task.recipe.data.evaluation, task.program.artifact.manifest, class_map_of(task.recipe))
    figures, here = figures_of(task, accuracy=False), bool(task.asked.get("here", True))
    return bench_of(task.program, task.artifacts, material, task.recipe, figures, task.progress, here=here)


def accuracy(task: Task, folder: Path) -> None:
    """How often the reference and the artefacts are right, over all images; nothing where no output is class scores."""
    bench = bench_for(task)
    if not bench.class_scores:
        write(Measured(), task, "accuracy", folder)
        return
    scored = tuple(scoring.accuracy(bench))
    write(Measured(scored=scored, conditions=conditions_of(bench)), task, "accuracy", folder)


def parity(task: Task, folder: Path) -> None:
    """Outputs and inner tensors of the artefacts beside the reference's."""
    bench = bench_for(task)
    found = parity_of(bench, task.recipe, figures_of(task, accuracy=False))
    write(found.with_(Measured(conditions=conditions_of(bench))), task, "parity", folder)


def latency(task: Task, folder: Path) -> None:
    """How long they take, interleaved in one run."""
    found = latency_of(bench_for(task), task.recipe)
    write(found, task, "latency", folder)
    let_pass(found, folder)


def let_pass(measured: Measured, folder: Path) -> None:
    """Have a result that holds an INVALID latency, or a failure, taken again by the next run: what failed once may not the next time."""
    if any(one.failure is not None or (one.latency is not None and one.latency.status != "VALID") for one in measured.timed):
        (folder / PASSING).touch()


def dated(measured: Measured, task: Task, what: str = "") -> Measured:
    """Figures with the state of the machine that they were taken in: a report that is made of them later must not say another."""
    taken = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    workers = {what: task.worker} if task.worker else {}
    return msgspec.structs.replace(measured, device=state() | {"measured": taken}, workers=measured.workers or workers)


def write(measured: Measured, task: Task, what: str, folder: Path) -> None:
    """Keep figures of this machine."""
    (folder / FIGURES).write_bytes(msgspec.msgpack.encode(dated(measured, task, what)))

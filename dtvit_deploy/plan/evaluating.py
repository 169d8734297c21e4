"""Stages that score a stretch of the evaluation's images, and put together what was counted."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.devices.local import state
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline import scoring
from dtvit_deploy.pipeline.figures import Measured
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.scoring import Scored, ScoringShard
from dtvit_deploy.pipeline.shards import cut
from dtvit_deploy.pipeline.taking import conditions_of
from dtvit_deploy.plan.measuring import bench_for, write
from dtvit_deploy.plan.work import Task, parts_of

SCORES = "scores.msgpack"


class Part(msgspec.Struct, frozen=True):
    """What came of a stretch.

    Attributes:
        scored: None where no output is class scores.
        names: of the reference and of the artefacts, in their runtimes.
        worker: who scored it, on a farm.
        processor: the kind on which it was scored.
    """

    scored: Scored | None
    names: tuple[str, ...]
    worker: str
    processor: str


def scores(task: Task, folder: Path) -> None:
    """How the reference and the artefacts answer a stretch of the images, counted."""
    number, many = task.asked["part"]
    bench, found = bench_for(task), None
    if bench.class_scores:
        found = scoring.score(ScoringShard.of(bench, *cut(0, len(bench.material), many)[number]))
    (folder / SCORES).write_bytes(msgspec.msgpack.encode(Part(found, _names(bench), task.worker, state()["processor"])))


def scored(task: Task, folder: Path) -> None:
    """The figures of all stretches, which are those of one pass."""
    parts = [msgspec.msgpack.decode((folder / SCORES).read_bytes(), type=Part) for folder in parts_of(task, "accuracy")]
    bench = bench_for(task)
    processors = sorted({part.processor for part in parts})
    if len(processors) > 1:
        raise InputError(
            f"some of the images were answered on {processors[0]}, others on {' and '.join(processors[1:])}, whose last bits are others",
            remedy="score them all on one kind: --from 'accuracy *'",
        )
    if any(part.names != _names(bench) for part in parts):
        raise InputError(
            f"some of the images were answered in other runtimes than {', '.join(_names(bench))}, which are those here",
            remedy="name the runtimes: `runtimes` of a recipe's [run]",
        )
    found = [part.scored for part in parts if part.scored is not None]
    if not found:
        write(Measured(), task, "accuracy", folder)
        return
    accuracy = tuple(scoring.accuracy(bench, found))
    if accuracy[0].samples != len(bench.material):
        raise InputError(
            f"{accuracy[0].samples} images were scored, and there are {len(bench.material)}: they have changed meanwhile",
            remedy="run it again",
        )
    workers = ", ".join(dict.fromkeys(part.worker for part in parts if part.worker))
    measured = Measured(scored=accuracy, conditions=conditions_of(bench), workers={"accuracy": workers} if workers else {})
    write(measured, task, "accuracy", folder)


def _names(bench: Bench) -> tuple[str, ...]:
    return tuple(f"{one.artifact.name} in {one.runtime.name}" for one in bench.everything)

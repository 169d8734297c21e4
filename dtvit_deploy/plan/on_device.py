"""Stages that measure on a device, one for its answers and one for its times, each for what the device was when it was asked.

Whoever asked for the run does them, on a farm too: what opens the way to a device, the user's ssh client and keys, is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dtvit_deploy.agent.sessions import OPENERS
from dtvit_deploy.devices.address import Address
from dtvit_deploy.devices.examine import python_of, reached
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.probe import Facts, probe
from dtvit_deploy.devices.transport import LostError
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline import scoring
from dtvit_deploy.pipeline.elsewhere import runs_on
from dtvit_deploy.pipeline.figures import Figures, Measured
from dtvit_deploy.pipeline.latencies import latency_of
from dtvit_deploy.pipeline.material import Material, class_map_of, open_material
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.measured_there import Kept
from dtvit_deploy.pipeline.taking import bench_of, compared_of, conditions_of
from dtvit_deploy.plan.measuring import dated, figures_of, let_pass
from dtvit_deploy.plan.work import Task
from dtvit_deploy.remote.place import Place

FACTS = "facts.json"
KEPT = "kept.msgpack"


def asked(task: Task, folder: Path) -> None:
    """What a device is and has, as far as figures depend on it: where that has changed, they are taken anew."""
    device = device_of(task)
    with lost_is_missing(), reached(device) as transport:
        (folder / FACTS).write_bytes(_told(probe(transport, python_of(device))))


def answers(task: Task, folder: Path) -> None:
    """Outputs and inner tensors there beside the reference's, and, of images and class scores, how often they are right."""
    recipe, material = task.recipe, _material(task)
    scores = material.class_scores(task.program.artifact.manifest, recipe.parity.class_scores)
    figures = dataclasses.replace(figures_of(task, accuracy=bool(scores and task.asked["accuracy"])), latency=False)
    with _reached(task) as place:
        bench = _bench(task, place, material, figures)
        found = compared_of(bench, recipe, figures).with_(Measured(conditions=conditions_of(bench)))
        if figures.accuracy:
            found = found.with_(Measured(scored=tuple(scoring.accuracy(bench))))
    _keep(task, bench, found, folder)


def latency(task: Task, folder: Path) -> None:
    """How long they take there, interleaved in one run; nothing of an emulated processor."""
    with _reached(task) as place:
        bench = _bench(task, place, _material(task), Figures(latency=True))
        found = latency_of(bench, task.recipe).with_(Measured(conditions=conditions_of(bench)))
    _keep(task, bench, found, folder)
    let_pass(found, folder)


def device_of(task: Task) -> Device:
    """The device that a stage is about."""
    told = task.asked["device"]
    return Device(name=told["name"], address=Address(*told["address"]), python=told["python"])


@contextmanager
def _reached(task: Task) -> Iterator[Place]:
    """The device, which is what it was when it was asked.

    Raises:
        InputError: it has changed since: the figures would be kept under what it was.
        MissingError: it cannot be reached, or not any more.
    """
    (before,) = (folder for name, folder in task.needs.items() if name != "trace")
    with lost_is_missing(), Place(device_of(task), task.progress.step, wait=task.wait) as place:
        if _told(place.facts) != (before / FACTS).read_bytes():
            raise InputError(f"{place.name} has changed since the run began", remedy="run it again, and leave the device alone meanwhile")
        yield place


@contextmanager
def lost_is_missing() -> Iterator[None]:
    """A device that is lost fails its own stage, as one that was never reached does, and ends nobody else's."""
    try:
        yield
    except LostError as error:
        raise MissingError(str(error), remedy=error.remedy or "run it again: what was begun there goes on") from error


def _told(facts: Facts) -> bytes:
    return msgspec.json.encode(facts.lasting, order="sorted")


def _material(task: Task) -> Material:
    return open_material(task.recipe.data.evaluation, task.program.artifact.manifest, class_map_of(task.recipe))


def _bench(task: Task, place: Place, material: Material, figures: Figures) -> Bench:
    """The artefacts that agents load, in the device's runtimes, which have answered.

    Raises:
        InputError: agents load none of them.
    """
    artifacts = [artifact for artifact in task.artifacts if runs_on(artifact, place)]
    if not artifacts:
        raise InputError(
            f"nothing that was built can be run on {place.name}: the agent there loads artefacts in {' and '.join(OPENERS)}",
            remedy="build ONNX or OpenVINO artefacts too, or leave the device out",
        )
    return bench_of(task.program, artifacts, material, task.recipe, figures, task.progress, (place,), here=False)


def _keep(task: Task, bench: Bench, found: Measured, folder: Path) -> None:
    kept = Kept.of(device_of(task).name, bench.pairings, dated(found, task))
    (folder / KEPT).write_bytes(msgspec.msgpack.encode(kept))

"""What a device has measured is reported without it: of the very artefacts, with one gate for all that is missing there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.figures import Measured
from dtvit_deploy.pipeline.measured_there import Kept, remembered
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.timing import Timed
from dtvit_deploy.plan.reporting import _left_out, _missing, _There
from dtvit_deploy.plan.work import Task
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.pairing import Pairing


def artifact(name: str, kind: str = "onnx", sha256: str = "0" * 64) -> Artifact:
    tensor = TensorSpec("x", (1, 2))
    manifest = Manifest(
        model="any", format=kind, precision=Precision.FP32, sha256=sha256,
        signature=Signature((tensor,), (tensor,)), lineage=(Link(kind="fake", sha256=sha256),),
    )  # fmt: skip
    return Artifact(Path(name), manifest)


NET, SAME, APPLE = artifact("net.onnx"), artifact("same.onnx"), artifact("net.mlpackage", "mlpackage")


def kept(measured: Measured, *artifacts: Artifact, asked: bool = False) -> Kept:
    runtime = FakeRuntime(name="onnxruntime on pi", rung=Rung.ON_DEVICE)
    found = Kept.of("pi", [Pairing(one, runtime, asked=asked, device="pi") for one in artifacts], measured)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Kept)


def task(*missing: tuple[str, str]) -> Task:
    return Task(Recipe(), {}, {}, {}, missing, Cache(Path("nowhere")), Silent())


ANSWERED = Measured(conditions=({"runtime": "onnxruntime 1"}, {}))
TIMED = Measured(timed=(Timed(), Timed(notes=("a",)), Timed()), conditions=({"runtime": "another"}, {}))


def test_pairings_are_those_that_were_measured_and_load_nothing() -> None:
    group = remembered([kept(ANSWERED, NET, SAME, asked=True), kept(TIMED, NET, SAME, asked=True)], [SAME, NET])
    assert [one.name for one in group.pairings] == ["net.onnx in onnxruntime on pi", "same.onnx in onnxruntime on pi"]
    assert [one.artifact for one in group.pairings] == [NET, SAME]  # though their bytes are equal
    assert not any(one.emulated for one in group.pairings)
    assert group.pairings[0].runtime.available().version is None
    with pytest.raises(RuntimeError):
        group.pairings[0].open(SessionOptions())


def test_of_two_stages_each_has_its_figures_and_the_first_its_conditions() -> None:
    measured = remembered([kept(ANSWERED, NET, SAME), kept(TIMED, NET, SAME)], [NET, SAME]).measured
    assert measured.timed == TIMED.timed
    assert measured.conditions == ANSWERED.conditions
    assert remembered([kept(TIMED, NET, SAME)], [NET, SAME]).measured.conditions == TIMED.conditions


def test_figures_of_other_artefacts_are_refused() -> None:
    for found, artifacts in (
        ([kept(ANSWERED, NET, SAME)], [NET]),
        ([kept(ANSWERED, NET, SAME)], [artifact("net.onnx", sha256="1" * 64), SAME]),
        ([kept(ANSWERED, NET, SAME), kept(TIMED, SAME, NET)], [NET, SAME]),
    ):
        with pytest.raises(InputError, match="what was measured on pi is of other artefacts"):
            remembered(found, artifacts)


def test_a_device_that_could_not_be_asked_is_one_gate_with_one_reason() -> None:
    there = [_There("pi", ("pi: answers", "pi: latency"), None), _There("orin", ("orin: answers", "orin: latency"), None)]
    why = "ssh://pi cannot be reached: no route"
    found = dict(
        _missing(
            task(
                ("onnx int8", "too small"),
                ("pi: answers", f"net/pi: asked is missing: {why}"),
                ("pi: latency", f"net/pi: asked is missing: {why}"),
                ("orin: latency", "orin lacks what this needs: openvino"),
            ),
            there,
        )
    )
    assert found == {"onnx int8: built": "too small", "pi: measured": why, "orin: measured": "orin lacks what this needs: openvino"}
    assert dict(_missing(task(), there)) == {}


def test_what_no_agent_loads_is_noted_where_the_device_was_measured_on() -> None:
    group = remembered([kept(ANSWERED, NET, SAME)], [NET, SAME])
    (told,) = _left_out(_With((NET, SAME, APPLE)), _There("pi", (), group))
    assert told.startswith("net.mlpackage: not measured on pi, which has no runtime")
    assert list(_left_out(_With((APPLE,)), _There("pi", (), None))) == []


class _With(Task):
    """A task whose artefacts are these, which no folder holds."""

    def __init__(self, artifacts: tuple[Artifact, ...]) -> None:
        super().__init__(Recipe(), {}, {}, {}, (), Cache(Path("nowhere")), Silent())
        self.__dict__["artifacts"] = artifacts

"""What came by a file goes into the report that is there: beside all that others measured, and in the place of what it measured before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.verdict import Gate, holds, verdict
from dtvit_deploy.report.merging import merged
from dtvit_deploy.report.schema import Report, Subject

DATA = {"source": "the images in a", "samples": "9", "digest": "d" * 64, "parity": "9 samples"}


def subject(name: str, *, passed: bool = True, **more: Any) -> Subject:
    held = None if name.startswith("torch") else verdict([holds(f"{name}: parity", passed, "said")])
    values: dict[str, Any] = {
        "name": name, "file": "" if held is None else "net.onnx", "sha256": "b" * 64, "precision": "fp32", "rung": Rung.EXECUTED,
        "conditions": {}, "verdict": held,
    }  # fmt: skip
    return Subject(**{**values, **more})


def report(*subjects: Subject, of_all: tuple[Gate, ...] = (), **more: Any) -> Report:
    gates = [gate for one in subjects if one.verdict for gate in one.verdict.gates] + list(of_all)
    values: dict[str, Any] = {
        "command": "verify", "model": "net", "created": "then", "lineage": ("program " + "c" * 64,), "data": DATA,
        "device": {"processor": "A"}, "versions": {"torch": "1"}, "subjects": subjects, "verdict": verdict(gates),
    }  # fmt: skip
    return Report(**{**values, **more})


HERE = report(subject("torch FP32"), subject("ONNX FP32"), notes=("of all",))


def brought(passed: bool = True, **more: Any) -> Report:
    values: dict[str, Any] = {
        "created": "now",
        "device": {"processor": "B", "on bench": "its processor"},
        "notes": ("of all", "on bench: by a file"),
        "of_all": (holds("on bench: answers of net.openvino", False, "it is not there"),),
    }
    return report(subject("torch FP32", accuracy=Accuracy(samples=9)), subject("ONNX FP32 on bench", passed=passed), **{**values, **more})


def test_others_stay_and_the_verdict_is_over_all() -> None:
    both = merged(HERE, brought(), "bench")
    assert [one.name for one in both.subjects] == ["torch FP32", "ONNX FP32", "ONNX FP32 on bench"]
    assert both.verdict is not None
    assert [gate.name for gate in both.verdict.gates] == [
        "ONNX FP32: parity", "ONNX FP32 on bench: parity", "on bench: answers of net.openvino"
    ]  # fmt: skip
    assert not both.verdict.passed
    assert both.subjects[0].accuracy == Accuracy(samples=9)
    assert both.notes == ("of all", "on bench: by a file")
    assert both.device == {"processor": "A", "on bench": "its processor"}
    assert (both.command, both.created) == ("verify", "now")


def test_what_the_device_said_before_goes_whatever_it_was() -> None:
    before = merged(HERE, brought(passed=False), "bench")
    again = brought(of_all=(), notes=("on bench: by another file",), device={"on bench": "later"})
    after = merged(before, again, "bench")
    assert after.verdict is not None
    assert after.verdict.passed
    assert [one.name for one in after.subjects] == ["torch FP32", "ONNX FP32", "ONNX FP32 on bench"]
    assert after.notes == ("of all", "on bench: by another file")
    assert after.device["on bench"] == "later"
    assert merged(after, again, "bench") == after


@pytest.mark.parametrize("other", ["bench2", "work-bench", "benc"])
def test_a_device_with_a_name_like_it_is_another(other: str) -> None:
    theirs = report(
        subject("torch FP32"),
        subject(f"ONNX FP32 on {other}"),
        of_all=(holds(f"on {other}: a latency", False, "none"),),
        device={f"on {other}": "theirs"},
        notes=(f"on {other}: theirs",),
        recommendations=(Recommendation(runtime=f"onnx on {other}", file="net.onnx", reason="theirs"),),
    )
    both = merged(theirs, brought(recommendations=(Recommendation(runtime="onnx on bench", file="", reason="mine"),)), "bench")
    assert len(both.subjects) == 3
    assert both.device == {f"on {other}": "theirs", "on bench": "its processor"}
    assert f"on {other}: theirs" in both.notes
    assert [one.reason for one in both.recommendations] == ["theirs", "mine"]
    assert both.verdict is not None
    assert f"on {other}: a latency" in [gate.name for gate in both.verdict.gates]


def test_what_both_forecast_of_a_processor_is_there_once() -> None:
    forecast = subject("ONNX FP16 in onnxruntime-arm64")
    before = msgspec.structs.replace(HERE, subjects=(*HERE.subjects, forecast))
    after = msgspec.structs.replace(brought(), subjects=(*brought().subjects, forecast))
    assert [one.name for one in merged(before, after, "bench").subjects].count(forecast.name) == 1


def test_what_it_was_fed_more_or_less_of_is_told_beside() -> None:
    some = brought(data=DATA | {"parity": "2 samples", "accuracy": "9 samples"}, versions={"torch": "2"})
    both = merged(HERE, some, "bench")
    assert both.data == DATA | {"parity on bench": "2 samples", "accuracy": "9 samples"}
    assert both.versions == {"torch": "1", "torch on bench": "2"}


def test_a_folder_of_samples_that_was_moved_is_the_same() -> None:
    moved = brought(data=DATA | {"source": "the images in b"})
    assert merged(HERE, moved, "bench").data == DATA


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"lineage": ("program " + "e" * 64,)},
        {"data": DATA | {"digest": "e" * 64}},
        {"data": DATA | {"samples": "8"}},
        {"data": {"source": "seeded noise", "samples": "9"}},
    ],
)
def test_what_does_not_belong_side_by_side_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the report that is there"):
        merged(HERE, msgspec.structs.replace(brought(), **change), "bench")

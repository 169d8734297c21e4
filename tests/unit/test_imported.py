"""What a report says of figures that came by a file: whose they are, when they were taken, and what was not answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.formats.job.job import Answers, Blob, Job, Subject
from dtvit_deploy.harness.verdict import holds, verdict
from dtvit_deploy.pipeline.bundle_request import Request, Wanted
from dtvit_deploy.pipeline.imported import _command, _figures, _of_device
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Report
from dtvit_deploy.report.schema import Subject as Row

DIGEST, OTHER = "a" * 64, "b" * 64
FACTS = {"host": "bench", "processor": "Cortex", "time": "2026-01-02T00:00:00+00:00"}


def asked(agent: str | None = None, **wanted: Any) -> Request:
    signature = Signature((TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),))
    manifest = Manifest(
        model="m", format="onnx", precision=Precision.FP32, sha256=DIGEST, signature=signature, lineage=(Link(kind="onnx", sha256=DIGEST),)
    )
    job = Job(
        agent=agent or agent_archive().sha256,
        blobs=(Blob(sha256=DIGEST, bytes=1), Blob(sha256=OTHER, bytes=2)),
        subjects=(Subject(name="m.onnx", runtime="onnxruntime", manifest=manifest, files={"": DIGEST}),),
        tasks=(Answers(name="answers", subject=0, threads=1, feeds=(OTHER,), samples=3),),
    )
    figures = {"parity": True, "layers": None, "accuracy": False, "latency": False} | wanted
    return Request(created="2026-01-01T00:00:00+00:00", job=job, artefacts=(Path("m.onnx"),), figures=Wanted(**figures), recipe=Recipe())


def told(facts: dict[str, str] = FACTS, request: Request | None = None, unanswered: tuple[tuple[str, DeployError], ...] = ()) -> Report:
    mine, all_of_them = holds("m.onnx on bench: parity", True, "said"), holds("a latency to believe", False, "none")
    row = Row(
        name="ONNX FP32 on bench",
        file="m.onnx",
        sha256=DIGEST,
        precision="fp32",
        rung=Rung.ON_DEVICE,
        conditions={},
        verdict=verdict([mine]),
    )
    report = Report(
        command="verify", model="m", created="now", lineage=(), data={}, device={"processor": "here", "on bench": "Cortex"}, versions={},
        subjects=(row,), notes=("of all",), verdict=verdict([mine, all_of_them]),
    )  # fmt: skip
    return _of_device(report, "bench", request or asked(), facts, list(unanswered))


def gates(report: Report) -> dict[str, str]:
    assert report.verdict is not None
    return {gate.name: gate.reason for gate in report.verdict.gates}


def test_gates_of_the_device_alone_are_called_so_and_its_subjects_keep_theirs() -> None:
    assert gates(told()) == {"m.onnx on bench: parity": "said", "on bench: a latency to believe": "none"}


def test_it_says_of_which_bundle_and_when_by_whose_clock() -> None:
    report = told()
    (note,) = (note for note in report.notes if note != "of all")
    assert note.startswith(f"on bench: these figures came by a file, of dtvit-deploy-{asked().identity[:12]} of 2026-01-01T00:00:00+00:00")
    assert note.endswith("run at 2026-01-02T00:00:00+00:00 by the clock of bench, Cortex")
    assert report.device == {"processor": "here", "on bench": "Cortex; by a file, run at 2026-01-02T00:00:00+00:00"}


@pytest.mark.parametrize("time", ["1970-01-01T00:00:12+00:00", "2025-12-31T23:59:59+00:00"])
def test_a_clock_that_was_wrong_is_told(time: str) -> None:
    assert "that clock is wrong" in told(FACTS | {"time": time}).notes[-1]


@pytest.mark.parametrize("facts", [{}, {"time": "<script>alert(1)</script> \x1b[2J"}, {"host": "[a](javascript:x) `b` <img src=x>"}])
def test_words_of_a_device_are_words(facts: dict[str, str]) -> None:
    report = told(facts)
    assert "\x1b" not in (text := render_markdown(report))
    assert "<script" not in text
    assert "<img" not in text


def test_what_was_not_answered_fails_with_its_remedy() -> None:
    report = told(unanswered=(("answers of x", MissingError("no openvino", remedy="install it")), ("latency of x", InputError("it hangs"))))
    assert gates(report)["on bench: answers of x"] == "no openvino (try: install it)"
    assert gates(report)["on bench: latency of x"] == "it hangs"
    assert report.verdict is not None
    assert not report.verdict.passed


def test_an_agent_of_another_version_is_told() -> None:
    assert "another version" in told(request=asked(agent=OTHER)).notes[-1]
    assert not any("another version" in note for note in told().notes)


@pytest.mark.parametrize(
    ("wanted", "command"),
    [
        ({}, "verify"),
        ({"parity": False, "accuracy": True}, "evaluate"),
        ({"parity": False, "latency": True}, "profile"),
        ({"latency": True}, "bundle"),
        ({"parity": False, "layers": True, "latency": True}, "bundle"),
    ],
)
def test_a_report_of_one_kind_is_that_command_s(wanted: dict[str, Any], command: str) -> None:
    assert _command(asked(**wanted).wanted) == command


def test_layers_that_were_not_bundled_cannot_be_had_and_those_that_were_can_be_left_out() -> None:
    with pytest.raises(InputError, match="no inner tensors were bundled"):
        _figures(asked(), True)
    assert _figures(asked(), False).layers is False
    assert _figures(asked(layers=True), None).layers is True
    assert msgspec.structs.asdict(asked().figures)["layers"] is _figures(asked(), None).layers

"""A report from elsewhere is refused by the field that is wrong, or shown and compared: no number in it ends in a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtvit_deploy.artifacts.artifact import read_json, write_json
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.ranges import Convergence, Settling
from dtvit_deploy.cli import show
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy, Flip
from dtvit_deploy.harness.latency import MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.layers import LayerDifference, LayerReport, ModuleDifference
from dtvit_deploy.harness.parity import Difference, difference
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.search import ModuleFigures, Search, Trial
from dtvit_deploy.harness.verdict import at_least, verdict
from dtvit_deploy.report import as_data
from dtvit_deploy.report.compare import compare_reports
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Calibration, Report, Subject
from dtvit_deploy.runtimes.compute_plan import ComputePlan, PlannedOperation

LATENCY = summarise(
    [1.0, 1.1] * 32, [0.1 * i for i in range(64)], MeasureOptions(), warmup=Warmup(runs=9, seconds=0.5, change=0.0, first_ms=9.0)
)
DIFFERENCE = Difference(
    output="logits", feeds="images", samples=64, max_abs=1e-6, mean_abs=1e-7, max_rel=1e-7, cosine=1.0, sqnr=120.0, floor=1e-6,
    tolerance=8e-6, at=(0, 3), agreement=1.0, near_ties=0, passed=True,
)  # fmt: skip
ACCURACY = Accuracy(
    samples=8, top1=0.5, top5=1.0, agreement=0.875, interval=(0.2, 0.8), agreement_interval=(0.5, 1.0),
    flips=(Flip(image="3.png", label=3, reference=3, artifact=8, margin=0.02),),
)  # fmt: skip
LAYERS = LayerReport(
    samples=2, program_tensors=9, first=None, verdict="all is well",
    layers=(LayerDifference(name="add", module="head", op="aten.add", error=1e-6, floor=1e-6, inherited=0.0, suspect=False),),
    modules=(ModuleDifference(module="head", tensors=2, error=1e-6, floor=1e-6, inherited=0.0, suspect=False),),
)  # fmt: skip
PLAN = ComputePlan.of(
    "CPU and Neural Engine",
    [PlannedOperation(name=unit, operator="ios17.conv", preferred=unit, cost=0.5) for unit in ("CPU", "Neural Engine")],
)
SETTLING = Settling(median=0.01, p95=0.04)
CALIBRATION = Calibration(
    ranges="c" * 64, source="images", samples=300, synthetic=False, conclusion="300 images are enough.",
    convergence=(Convergence(images=150, minmax=SETTLING, percentile=SETTLING, entropy=SETTLING, mse=SETTLING),) * 2,
)  # fmt: skip
SEARCH = Search(
    in_float=("head",), reached=True, goal=0.99, samples=64, modules=(ModuleFigures(module="head", sqnr=40.0, gain_ms=-0.1),),
    trials=(Trial(in_float=("head",), agreement=1.0, sqnr=40.0),), reason="INT8 gains no time there",
)  # fmt: skip


def subject(file: str, accuracy: Accuracy | None = ACCURACY) -> Subject:
    gates = verdict([at_least("agreement", 0.875, 0.5)])
    return Subject(
        name=f"ONNX FP32 {file}", file=file, sha256="b" * 64, precision="fp32", rung=Rung.EXECUTED, conditions={"threads": "1"}, bytes=1000,
        parity=(DIFFERENCE,), accuracy=accuracy, latency=LATENCY, layers=LAYERS, plan=PLAN, search=SEARCH, verdict=gates,
    )  # fmt: skip


SUBJECTS = (subject(""), subject("net.onnx"), subject("unlabelled.onnx", accuracy=None))
REPORT = Report(
    command="run", model="net", created="now", lineage=(), data={}, device={}, versions={}, subjects=SUBJECTS, calibration=CALIBRATION,
    recommendations=(Recommendation(runtime="onnxruntime", file="net.onnx", reason="it is faster"),),
)  # fmt: skip


def numbers(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the numbers are; of a list, in its first three items."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            yield from numbers(inner, (*place, index))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place


PLACES = list(numbers(as_data(REPORT)))
HOSTILE = (
    "0",
    "-1",
    "-0.0",
    "0.5",
    "1e-320",
    "1e12",
    "1e308",
    "-1e308",
    "1e999",
    "9" * 30,
    "1" + "0" * 400,
    "NaN",
    "Infinity",
    "null",
    '"1"',
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # the file is written anew
@given(changes=st.dictionaries(st.sampled_from(PLACES), st.sampled_from(HOSTILE), min_size=1, max_size=3))
def test_any_numbers_are_refused_or_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[Any, str]) -> None:
    data: Any = as_data(REPORT)
    for number, place in enumerate(changes):
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = f"@{number}"
    text = json.dumps(data)
    for number, written in enumerate(changes.values()):
        text = text.replace(f'"@{number}"', written)
    path = tmp_path / "report.json"
    path.write_text(text)
    try:
        found = read_json(path, Report)
    except InputError as error:
        assert str(error).startswith(f"{path} is not a report: ")  # noqa: PT017 - that it may be raised is the test
        return
    assert "nan" not in render_markdown(found)
    show.report(found)
    for before, after in ((REPORT, found), (found, REPORT)):
        assert all(row.cells() for row in compare_reports(before, after).rows)
    capsys.readouterr()


@pytest.mark.parametrize(
    "picture", ['"><script>alert(1)</script>', "data:image/svg+xml,<svg/>", "https://evil.example/x.png", "A" * (64 << 10) + "A"]
)
def test_a_picture_that_is_no_small_base64_is_refused(tmp_path: Path, picture: str) -> None:
    flip = msgspec.structs.replace(ACCURACY.flips[0], picture=picture)
    scored = subject("net.onnx", msgspec.structs.replace(ACCURACY, flips=(flip,)))
    write_json(tmp_path / "report.json", as_data(msgspec.structs.replace(REPORT, subjects=(scored,))))
    with pytest.raises(InputError, match="picture"):
        read_json(tmp_path / "report.json", Report)


@pytest.mark.parametrize("answer", [-1.0, 0.0, 1.0, np.nan, np.inf, -np.inf])
def test_whatever_an_artefact_answers_its_report_can_be_read_again(tmp_path: Path, answer: float) -> None:
    reference = np.random.RandomState(0).standard_normal((200, 1, 7)).astype(np.float32)  # many: a cosine may round to less than -1
    with np.errstate(invalid="ignore"):
        found = difference("logits", "images", reference, reference * answer, 1e-6, Precision.FP32)
    report = msgspec.structs.replace(REPORT, subjects=(msgspec.structs.replace(SUBJECTS[0], parity=(found,)),))
    write_json(tmp_path / "report.json", as_data(report))
    assert as_data(read_json(tmp_path / "report.json", Report)) == as_data(report)

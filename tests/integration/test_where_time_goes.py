"""`profile --layer-times --roofline`: nearly all of the time has a torch module, and none takes less than the machine's peaks allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commandline import deploy

pytestmark = pytest.mark.slow


QUIET = "from dtvit_deploy.harness import roofline; roofline.STEADY = 0"
"""A machine counts as quiet, whatever else it does."""


@pytest.fixture(scope="module", params=["fp16", pytest.param("int8", marks=pytest.mark.thorough)])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """ONNX and OpenVINO of the digits, and a report on them."""
    out = tmp_path_factory.mktemp("made")
    quantised = ("--ranges", request.getfixturevalue("ranges"), "--no-search") if request.param == "int8" else ()
    deploy("export", "-c", checkpoint, "-t", "onnx", "-t", "openvino", "-p", request.param, *quantised, "-o", out / "made")
    deploy("profile", out / "made", "--layer-times", "--roofline", "--seconds", "0.1", "-o", out / "report", code=None, before=QUIET)
    return out


def subjects(made: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((made / "report" / "report.json").read_text())["subjects"]
    return found


def test_the_time_of_each_artefact_is_that_of_its_torch_modules(made: Path) -> None:
    reference, *artefacts = subjects(made)
    assert reference["layer_times"] is None
    assert len(artefacts) == 2
    for one in artefacts:
        layers = one["layer_times"]["layers"]
        whole = sum(each["ms"] for each in layers)
        nobodys = [each["name"] for each in layers if not each["node"]]
        assert sum(each["ms"] for each in layers if each["node"]) / whole >= 0.9, (one["name"], nobodys)
        assert all(each["type"] and each["unit"] == "CPU" for each in layers)
        assert whole <= one["layer_times"]["whole_ms"] * 1.5
        assert {each["module"].partition(".")[0] for each in layers} >= {"stem", "stages", "head"}
    assert "Where the time goes" in (made / "report" / "report.md").read_text()
    assert (made / "report" / "report.html").read_text().count("Where the time goes: torch modules") == 1


def test_each_artefact_has_a_roof_of_its_own_work(made: Path) -> None:
    reference, *artefacts = subjects(made)
    assert reference["roof"] is None
    first, second = (one["roof"] for one in artefacts)
    assert {"fp32", "int8"} <= {one["precision"] for one in first["peaks"]["products"]}
    assert first["peaks"] == second["peaks"]
    assert sum(first["work"]["macs"].values()) == sum(second["work"]["macs"].values())  # the same network
    for one in artefacts:
        macs = one["roof"]["work"]["macs"]
        assert max(macs, key=lambda precision: macs[precision]) == one["precision"]
        assert one["roof"]["arithmetic_ms"] > 0  # whether p50 is more depends on what else the machine did when either was measured


@pytest.mark.thorough
def test_peaks_are_measured_once(made: Path) -> None:
    artefact = next((made / "made").glob("*.onnx"))
    told = deploy("profile", artefact, "--roofline", "--seconds", "0.1", code=None)
    assert "% of machine" in told.stdout
    assert "measuring what this machine can do" not in told.stderr

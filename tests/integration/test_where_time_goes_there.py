"""`profile --layer-times --roofline --device`: a device's layers by torch module, and its own peaks, measured there once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commandline import Done, deploy
from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.errors import InputError
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.profiled import layers_told, peaks_told
from dtvit_deploy.runtimes.layer_times import RUNS
from jobs import perform, small_feeds
from project import RECIPE, inventory, make_project
from sshd import Sshd, sshd

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
MEASURING = "measuring what it can do"
TIMED = ("--seconds", "0.1", "--latency-samples", "16")


@pytest.fixture(scope="module", params=["small", pytest.param("digits", marks=pytest.mark.thorough)])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Where a network was exported as ONNX and OpenVINO."""
    out = tmp_path_factory.mktemp("work")
    if request.param == "small":
        make_project(out, recipe="", side=64, width=16)
        deploy("export", "-t", "onnx", "-t", "openvino", "-o", "made", cwd=out)
    else:
        deploy("export", "-c", checkpoint, "-t", "onnx", "-t", "openvino", "-p", "fp16", "-o", out / "made")
    return out


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[tuple[Sshd, Board]]:
    """The device, which the inventory calls bench."""
    board = Board(tmp_path_factory.mktemp("board"))
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        inventory(work, bench=f'address = "{server.address}"\npython = "{board.python}"')
        yield server, board


@pytest.fixture
def device(server: tuple[Sshd, Board], monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server[0].config))
    return server[1]


QUIET = "from dtvit_deploy.harness import roofline; roofline.STEADY = 0"
"""A machine counts as quiet, whatever else it does."""


def profiled(work: Path, *words: object, code: int | None = None) -> tuple[list[dict[str, Any]], Done]:
    """The artefacts of a report of `profile` on the device."""
    done = deploy("profile", "made", "--device", "bench", "--seconds", "0.1", *words, "--json", cwd=work, code=code, before=QUIET)
    return [one for one in json.loads(done.stdout)["subjects"] if one["file"]], done


def asking_for(folder: Path, artifact: Artifact, runtime: str) -> Asked:
    folder.mkdir()
    asking = Asking(folder)
    asking.profile_layers(asking.subject(artifact, runtime), asking.feeds(small_feeds(1)))
    return asking.asked


def unnumbered(*names: str) -> list[str]:
    """Names without what runtimes count in each process, as in "ReorderOutput_token_17" and "Multiply_4444"."""
    return [re.sub(r"(_token)?_?[0-9]+", "", name) for name in names]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_device_tells_the_layers_that_this_machine_would(tmp_path: Path, board: Board, exported: list[Artifact], runtime: str) -> None:
    from dtvit_deploy.runtimes.registry import RUNTIMES

    kind = {"onnxruntime": "onnx"}.get(runtime, runtime)
    for number, artifact in enumerate(one for one in exported if one.manifest.format == kind):
        asked = asking_for(tmp_path / str(number), artifact, runtime)
        there = layers_told(asked, perform(board.device(), asked), 0)
        here = RUNTIMES[runtime]().layer_times(artifact, small_feeds(1)[0], 1)  # type: ignore[attr-defined]
        # OpenVINO leaves out what took less than its clock tells, which is not the same in two runs.
        ours, theirs = (
            Counter((one.type, one.kernel, *unnumbered(one.name, *one.made_of, *one.leads_to)) for one in told.layers)
            for told in (here, there)
        )
        assert sum((ours & theirs).values()) >= 0.8 * max(sum(ours.values()), sum(theirs.values()))
        for its in there.layers:
            assert 0 < len(its.times_ms) <= RUNS  # OpenVINO leaves out what took less than its clock tells
        assert len(there.whole_ms) == RUNS


def test_a_runtime_that_does_not_tell_says_so(tmp_path: Path, board: Board, exported: list[Artifact]) -> None:
    asked = asking_for(tmp_path / "blobs", exported[0], "coreml")
    with pytest.raises(InputError, match="coreml does not tell how long a layer takes"):
        layers_told(asked, perform(board.device(), asked), 0)


def test_nothing_is_timed_on_an_emulated_processor(tmp_path: Path, exported: list[Artifact]) -> None:
    board = Board(tmp_path / "board", DTVIT_DEPLOY_EMULATED="by a test")
    asking = Asking(tmp_path)
    asking.profile_layers(asking.subject(exported[0], "onnxruntime"), asking.feeds(small_feeds(1)))
    asking.measure_peaks()
    asked = asking.asked
    results = perform(board.device(), asked)
    for read, task in ((layers_told, 0), (peaks_told, 1)):
        with pytest.raises(InputError, match="emulated processor"):
            read(asked, results, task)  # type: ignore[operator]


def test_the_time_on_a_device_is_that_of_torch_modules(work: Path, device: Board) -> None:
    artefacts, _ = profiled(work, "--layer-times")
    assert len(artefacts) == 2
    for one in artefacts:
        assert one["rung"] == "on device"
        layers = one["layer_times"]["layers"]
        nobodys = [each["name"] for each in layers if not each["node"]]
        assert sum(each["ms"] for each in layers if each["node"]) / sum(each["ms"] for each in layers) >= 0.9, (one["name"], nobodys)
        assert {each["module"].partition(".")[0] for each in layers} >= {"stem", "head"}
        assert one["roof"] is None  # which nobody asked for
    assert device.processes() == []


@pytest.mark.thorough
def test_what_a_device_can_do_is_measured_once(work: Path, device: Board) -> None:
    first, said = profiled(work, "--roofline")
    assert said.stderr.count(MEASURING) == 1
    again, said = profiled(work, "--roofline")
    assert MEASURING not in said.stderr
    for one, other in zip(first, again, strict=True):
        assert one["roof"] == other["roof"]
        assert {"fp32", "fp16", "int8"} <= {each["precision"] for each in one["roof"]["peaks"]["products"]}
        assert one["roof"]["arithmetic_ms"] > 0
    _, said = profiled(work, "--roofline", "--threads", "2")
    assert said.stderr.count(MEASURING) == 1  # for so many threads it was not known


@pytest.mark.thorough
def test_this_machine_and_a_device_have_roofs_of_their_own(work: Path, device: Board) -> None:
    artefacts, _ = profiled(work, "--roofline", "--device", "local", "-o", "report")
    names, peaks = [one["name"] for one in artefacts], [one["roof"]["peaks"] for one in artefacts]
    assert [" on bench" in name for name in names] == [False, False, True, True]
    assert peaks[0] == peaks[1] != peaks[2] == peaks[3]
    told = (work / "report" / "report.md").read_text()
    assert f"{names[0]}, {names[1]}: measured" in told
    assert f"{names[2]}, {names[3]}: measured" in told


def test_a_device_that_cannot_be_measured_has_its_latency_and_says_why(work: Path, device: Board) -> None:
    told = device.python.read_text()
    refuses = """case "$*" in *" begin "*) cat >"$0.job"
grep -q '"peaks"' "$0.job" && { echo '{"error": "it is too hot for that", "remedy": null, "exit_code": 3}' >&2; exit 3; }
exec <"$0.job";; esac
"""
    device.python.write_text(told.replace("exec ", f"{refuses}exec ", 1))
    try:
        artefacts, _ = profiled(work, "--roofline", "--layer-times", "--threads", "3")  # for which nothing is known yet
    finally:
        device.python.write_text(told)
    assert [one["roof"] for one in artefacts] == [None, None]
    for one in artefacts:
        assert one["latency"]["p50"] > 0
        assert one["layer_times"] is not None
        assert any(note.startswith("what bench can do was not measured: ") and "too hot" in note for note in one["notes"]), one["notes"]


@pytest.mark.thorough
def test_a_run_has_them_of_its_devices(tmp_path: Path, server: tuple[Sshd, Board], device: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    make_project(tmp_path / "work", recipe="")
    address, python = server[0].address, server[1].python
    asked = "[profile]\nseconds = 0.1\nlayer_times = true\nroofline = true\n"
    asked += f'[[device]]\nname = "b"\naddress = "{address}"\npython = "{python}"\n'
    (tmp_path / "work" / "dtvit-deploy.toml").write_text(RECIPE + asked)
    done = deploy("run", "-o", "out", "--json", "--workers", "1", cwd=tmp_path / "work", code=None)
    (one,) = (each for each in json.loads(done.stdout)["subjects"] if each["name"] == "ONNX FP32 on b")
    assert one["layer_times"]["layers"]
    assert one["roof"]["arithmetic_ms"] > 0


@pytest.mark.thorough
def test_a_bundle_brings_them_back(tmp_path: Path, work: Path) -> None:
    board = Board(tmp_path / "board")
    words = ("--no-verify", "--layer-times", "--roofline", *TIMED)
    made = json.loads(deploy("bundle", "made", "-o", tmp_path / "b.tar", *words, "--json", cwd=work).stdout)
    assert made["told"].endswith("latency, layer times, what the device can do")
    shutil.copy(tmp_path / "b.tar", board.folder)
    environment = {**os.environ, "PYTHON": str(board.python)}
    subprocess.run(["sh", "-c", made["there"]], env=environment, cwd=board.folder, capture_output=True, check=True, timeout=300)
    done = deploy("report", "--import", board.folder / made["back"], tmp_path, "--device-name", "far", "--json", cwd=work, code=None)
    artefacts = [one for one in json.loads(done.stdout)["subjects"] if one["file"]]
    assert len(artefacts) == 2
    for one in artefacts:
        assert one["layer_times"]["layers"]
        assert one["roof"]["arithmetic_ms"] > 0
    assert MEASURING not in done.stderr

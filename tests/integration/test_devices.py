"""The commands on a device behind a real ssh server, whose Python has numpy and the runtimes alone: what this machine finds, it finds."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from commandline import DEPLOY, Done, answering, deploy
from devices import Board
from project import RECIPE, inventory, make_project
from sshd import Sshd, sshd

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
ARTEFACTS = """
[export]
targets = ["onnx", "openvino"]
precisions = ["fp32", "fp16"]
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder: a network, labelled images, and what was exported of them."""
    folder = tmp_path_factory.mktemp("work")
    make_project(folder, recipe=ARTEFACTS)
    deploy("export", "-o", "out", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[tuple[Sshd, Board]]:
    """The device, which the inventory calls bench."""
    board = Board(tmp_path_factory.mktemp("board"))
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        inventory(work, bench=f'tags = ["boards"]\naddress = "{server.address}"\npython = "{board.python}"')
        yield server, board


@pytest.fixture
def device(server: tuple[Sshd, Board], monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server[0].config))
    return server[1]


def told(work: Path, command: str, *words: str, code: int | None = 0) -> tuple[dict[str, Any], Done]:
    """A command's report."""
    done = deploy(command, "out", "--data", "images", *words, "--json", cwd=work, code=code)
    return json.loads(done.stdout), done


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([DEPLOY, *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=answering)


def by_name(report: dict[str, Any], figure: str) -> dict[str, Any]:
    return {subject["name"]: subject[figure] for subject in report["subjects"]}


def test_outputs_there_are_those_here_to_the_last_bit(work: Path, device: Board) -> None:
    report, _ = told(work, "verify", "--device", "local", "--device", "bench", "--layers")
    parity, layers, rungs = by_name(report, "parity"), by_name(report, "layers"), by_name(report, "rung")
    assert {f"{name} on bench" for name in parity if " on " not in name} - {"torch FP32 on bench"} == {
        name for name in parity if " on " in name
    }
    for name in ("ONNX FP32", "ONNX FP16", "OpenVINO FP32", "OpenVINO FP16"):
        assert parity[name] == parity[f"{name} on bench"]
        assert rungs[f"{name} on bench"] == "on device"
        here, there = layers[name], layers[f"{name} on bench"]
        assert [one | {"error": 0} for one in here["layers"]] == [one | {"error": 0} for one in there["layers"]]
        assert [one["error"] for one in here["layers"]] == pytest.approx([one["error"] for one in there["layers"]], rel=1e-6)
    assert "x86_64" in report["device"]["on bench"] or "aarch64" in report["device"]["on bench"]
    assert device.processes() == []


def test_a_second_call_sends_nothing(work: Path, device: Board) -> None:
    told(work, "evaluate", "--device", "bench")
    kept = {path: path.stat().st_mtime_ns for path in device.root.rglob("*.zip")} | {
        path: path.stat().st_ino for path in (device.root / "blobs").iterdir()
    }
    assert kept
    _, done = told(work, "evaluate", "--device", "bench")
    assert "sending" not in done.stderr
    assert kept == {path: path.stat().st_mtime_ns for path in device.root.rglob("*.zip")} | {
        path: path.stat().st_ino for path in (device.root / "blobs").iterdir()
    }


def test_top_1_there_is_that_here(work: Path, device: Board) -> None:
    report, _ = told(work, "evaluate", "--device", "boards", "--device", "local")
    found = by_name(report, "accuracy")
    for name in ("ONNX FP32", "OpenVINO FP16"):
        assert found[name] == found[f"{name} on bench"]
        assert found[name]["samples"] == 12


def test_times_are_those_of_the_device_and_taken_anew_each_time(work: Path, device: Board) -> None:
    taken = []
    for _ in range(2):
        report, _ = told(work, "profile", "--device", "bench", "--seconds", "0.1", "--samples", "16", code=None)
        subjects = by_name(report, "latency")
        assert subjects["torch FP32"] is None  # it is not there, and its time here would say nothing
        assert subjects["ONNX FP32 on bench"]["conditions"]["architecture"] == os.uname().machine
        assert len(subjects["ONNX FP32 on bench"]["samples_ms"]) >= 16
        taken.append(subjects["ONNX FP32 on bench"]["samples_ms"])
    assert taken[0] != taken[1]


def test_a_connection_that_breaks_in_the_middle_costs_nothing(work: Path, server: tuple[Sshd, Board], device: Board) -> None:
    process = started("profile", "out", "--data", "images", "--device", "bench", "--seconds", "3", "--json", cwd=work)
    assert process.stderr is not None
    said = ""
    while "bench: latency of" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    for session in server[0].sessions():
        os.kill(session, signal.SIGKILL)
    out, rest = process.communicate(timeout=300)
    assert "connection is lost" in rest
    assert process.returncode in (0, 1), said + rest
    assert all(one["latency"] for one in json.loads(out)["subjects"] if one["file"])


def test_what_is_kept_there_is_not_taken_for_what_another_runtime_would_answer(work: Path, device: Board) -> None:
    told(work, "verify", "--device", "bench", "--samples", "2")
    (device.folder / "packages" / "onnxruntime").unlink()
    (device.folder / "packages" / "onnxruntime.py").write_text('__version__ = "0.1"\n')
    done = deploy("verify", "out", "--data", "images", "--device", "bench", "--samples", "2", cwd=work, code=None)
    (device.folder / "packages" / "onnxruntime.py").unlink()
    (device.folder / "packages" / "onnxruntime").symlink_to(Path(onnxruntime.__file__).parent)
    assert done.returncode != 0
    assert "PASS" not in done.stdout


def test_a_recipe_names_devices_too(work: Path, device: Board, tmp_path: Path) -> None:
    (work / "there.toml").write_text(RECIPE + ARTEFACTS + '[[device]]\nname = "bench"\n')
    report, _ = told(work, "verify", "-r", "there.toml", "--samples", "2")
    assert [name for name in by_name(report, "rung") if "on bench" not in name] == ["torch FP32"]


def test_what_a_device_cannot_load_is_told_before_anything_is_sent(work: Path, device: Board) -> None:
    deploy("export", "-m", "watched:make", "-t", "coreml", "-t", "trt", "--flavour", "on-device", "-o", "others", cwd=work)
    packages, jobs = list((work / "others").glob("*.mlpackage")), list((work / "others").glob("*.trtjob"))
    done = deploy("verify", *packages, "--device", "bench", cwd=work, code=3)
    assert "Core ML: its system is Linux" in done.stderr
    assert "use a Mac" in done.stderr
    done = deploy("verify", *packages, "--device", "bench", "--runtime", "mil", cwd=work, code=2)
    assert "cannot be run in mil on bench" in done.stderr
    done = deploy("verify", *jobs, "--device", "bench", cwd=work, code=2)
    assert "cannot be run on bench" in done.stderr
    assert "export -t trt --device bench" in done.stderr
    assert "sending" not in done.stderr


def test_what_the_device_lacks_is_told_before_any_work(work: Path, device: Board) -> None:
    (device.folder / "packages" / "openvino").rename(device.folder / "away")
    done = deploy("verify", "out", "--data", "images", "--device", "bench", cwd=work, code=3)
    (device.folder / "away").rename(device.folder / "packages" / "openvino")
    assert "bench lacks what this needs: openvino" in done.stderr
    assert done.stderr.count("·") == 2  # the recipe, and the question what the device is


def test_who_has_the_device_is_told_before_any_work_to_who_does_not_wait(work: Path, device: Board) -> None:
    with (device.folder / "lease").open("w") as held:
        held.write("you@there\nsince noon\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        done = deploy("verify", "out", "--data", "images", "--device", "bench", "--no-wait", cwd=work, code=3)
    assert "bench: somebody has the device, who says to be you@there since noon" in done.stderr
    assert done.stderr.count("·") == 2


@pytest.mark.parametrize("runtime", ["coreml", "tensorrt-rtx"])
def test_a_runtime_that_no_agent_has_is_not_silently_another(work: Path, device: Board, runtime: str) -> None:
    done = deploy("verify", "out", "--data", "images", "--device", "bench", "--runtime", runtime, cwd=work, code=2)
    assert f"the runtime {runtime} loads none of " in done.stderr
    assert "onnxruntime, openvino" in done.stderr


def test_a_recipe_from_elsewhere_finds_the_devices_beside_it(work: Path, device: Board, tmp_path: Path) -> None:
    (work / "there.toml").write_text(RECIPE + '[[device]]\nname = "bench"\n')
    done = deploy("verify", work / "out", "-r", work / "there.toml", "--samples", "2", "--json", cwd=tmp_path)
    assert any("on bench" in one["name"] for one in json.loads(done.stdout)["subjects"])


def test_the_state_of_the_device_is_in_the_conditions_of_its_times_and_in_the_report(work: Path, device: Board) -> None:
    words = ("--device", "bench", "--seconds", "0.1", "--samples", "16", "-o", "timed")
    done = deploy("profile", "out", "--data", "images", *words, "--json", cwd=work, code=None)
    for one in json.loads(done.stdout)["subjects"][1:]:
        assert "over one minute" in one["latency"]["conditions"]["load"]
        assert one["latency"]["conditions"]["cores"].isdecimal()
        assert one["latency"]["state"]["times_s"]
    text = (work / "timed" / "report.md").read_text()
    assert "## Devices" in text
    assert "## Device state" in text
    assert "on bench: " in text


def test_without_a_connection_ctrl_c_says_that_the_job_goes_on_and_stop_ends_it(
    work: Path, server: tuple[Sshd, Board], device: Board
) -> None:
    process = started("profile", "out", "--data", "images", "--device", "bench", "--seconds", "60", cwd=work)
    assert process.stderr is not None
    said = ""
    for awaited in ("bench: latency of", "connection is lost"):
        while awaited not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        server[0].stop()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    server[0].start()
    assert process.returncode == 130
    assert "the job goes on there; `dtvit-deploy device stop bench` ends it" in rest
    assert device.workers()
    done = deploy("device", "stop", "boards", cwd=work)
    assert "bench: ended the job " in done.stdout
    assert "latency of" in done.stdout
    assert device.workers() == []
    assert "bench: no job of yours goes on there" in deploy("device", "stop", "bench", cwd=work).stdout


def test_what_cannot_be_reached_is_one_message(work: Path, device: Board) -> None:
    done = deploy("verify", "out", "--device", "benhc", cwd=work, code=2)
    assert "there is no device 'benhc'" in done.stderr
    assert "bench, boards" in done.stderr
    done = deploy("verify", "out", "--device", "ssh://nowhere.invalid", cwd=work, code=3)
    assert "nowhere.invalid" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_left_when_it_was_cleaned(work: Path, device: Board) -> None:
    told(work, "verify", "--device", "bench", "--samples", "2")
    assert list((device.root / "blobs").iterdir())
    done = deploy("device", "clean", "bench", cwd=work)
    assert "MB freed" in done.stdout
    assert not device.root.exists()
    assert "bench: 0.00 MB freed" in deploy("device", "clean", "bench", cwd=work).stdout
    assert not device.root.exists()  # no agent is brought there to find nothing
    told(work, "verify", "--device", "bench", "--samples", "2")

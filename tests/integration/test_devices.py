"""The commands on a device behind a real ssh server, whose Python has numpy and the runtimes alone: what this machine finds, it finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from commandline import DEPLOY, Done, answering, deploy
from devices import Board
from sshd import Sshd, sshd

pytest.importorskip("openvino")
pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 96, 3), nn.Linear(96, 3)

    def forward(self, image):
        return self.head(self.body(nn.functional.gelu(self.stem(image))).relu().mean((2, 3)))

def make():
    return Net().eval(), {"image": torch.zeros(1, 3, 32, 32)}
"""
RECIPE = """
[model]
name = "watched:make"
[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[data]
evaluation = "images"
[export]
targets = ["onnx", "openvino"]
precisions = ["fp32", "fp16"]
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder: a network, labelled images, and what was exported of them."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "watched.py").write_text(NETWORK)
    (folder / "dtvit-deploy.toml").write_text(RECIPE)
    random = np.random.RandomState(0)
    for index in range(12):
        place = folder / "images" / "abc"[index % 3] / f"{index:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (32, 32, 3), np.uint8)).save(place)
    deploy("export", "-o", "out", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[tuple[Sshd, Board]]:
    """The device, which the inventory calls bench."""
    board = Board(tmp_path_factory.mktemp("board"))
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        (work / "devices.toml").write_text(
            f'[[device]]\nname = "bench"\ntags = ["boards"]\naddress = "{server.address}"\npython = "{board.python}"\n'
        )
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
    (work / "there.toml").write_text(RECIPE + '[[device]]\nname = "bench"\n')
    report, _ = told(work, "verify", "-r", "there.toml", "--samples", "2")
    assert [name for name in by_name(report, "rung") if "on bench" not in name] == ["torch FP32"]


def test_an_artefact_that_no_agent_loads_is_told_before_anything_is_sent(work: Path, device: Board) -> None:
    deploy("export", "-m", "watched:make", "-t", "coreml", "-o", "apple", cwd=work)
    done = deploy("verify", "apple", "--device", "bench", cwd=work, code=2)
    assert "cannot be run on bench" in done.stderr
    assert "onnxruntime and openvino" in done.stderr
    assert "sending" not in done.stderr


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
    assert not device.root.exists() or not list(device.root.rglob("*.zip"))
    told(work, "verify", "--device", "bench", "--samples", "2")

"""`run` with devices: built here, measured here and on a device behind a real ssh server, one report; what is known there stays known."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commandline import DEPLOY, answering, begun, deploy
from devices import Board, killed_later
from sshd import Sshd, sshd

pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 3)).eval(), (torch.zeros(1, 3, 16, 16),)
"""
RECIPE = """
[model]
name = "near:make"
[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[data]
evaluation = "images"
samples = 2
[profile]
seconds = 0.1
samples = 64
"""
LOCAL = '[[device]]\nname = "local"\n'
THERE = ["bench: answers", "bench: latency"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Board]]:
    board = Board(tmp_path_factory.mktemp("board"))
    with sshd(tmp_path_factory.mktemp("sshd")) as server, killed_later(board):
        yield server, board


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, server: tuple[Sshd, Board]) -> Path:
    """A project's folder; its cache is its own, so that nothing is known at first."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "near.py").write_text(NETWORK)
    random = np.random.RandomState(0)
    for index in range(6):
        place = folder / "images" / "abc"[index % 3] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (16, 16, 3), np.uint8)).save(place)
    return folder


@pytest.fixture
def bench(work: Path, server: tuple[Sshd, Board], monkeypatch: pytest.MonkeyPatch) -> str:
    """The table that defines the device."""
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server[0].config))
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(work / "cache"))
    return f'[[device]]\nname = "bench"\naddress = "{server[0].address}"\npython = "{server[1].python}"\n'


def run(work: Path, devices: str, *words: str, code: int | None = None, more: str = "") -> tuple[dict[str, Any], list[str], str]:
    """The report, the stages that were begun beside the tracing, and what was said; in one process, unless ``words`` want more."""
    (work / "recipe.toml").write_text(RECIPE + devices + more)
    workers = () if "--workers" in words else ("--workers", "1")
    done = deploy("run", "recipe.toml", "--json", *workers, *words, cwd=work, code=code)
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout or "{}"), [name for name in begun(done.stderr) if name != "trace"], done.stderr


def subjects(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report["subjects"]}


def failed(report: dict[str, Any]) -> dict[str, str]:
    """Gates that failed, but for those of latencies, which a busy machine makes INVALID."""
    return {gate["name"]: gate["reason"] for gate in report["verdict"]["gates"] if not gate["passed"]}


def test_one_report_has_this_machine_and_each_device_and_says_which_was_not_there(work: Path, bench: str) -> None:
    gone = '[[device]]\nname = "ssh://gone.invalid"\n'
    report, stages, said = run(work, LOCAL + bench + gone, "--workers", "2", code=1)
    assert {"parity", "latency", "bench: asked", *THERE, "ssh:gone.invalid: asked", "report"} <= set(stages)
    found = subjects(report)
    assert list(found) == ["torch FP32", "ONNX FP32", "ONNX FP32 on bench"]
    here, there = found["ONNX FP32"], found["ONNX FP32 on bench"]
    assert (here["rung"], there["rung"]) == ("executed", "on device")
    assert here["parity"] == there["parity"]
    assert here["accuracy"] == there["accuracy"]
    assert here["accuracy"]["samples"] == 6
    assert there["layers"]["layers"]
    assert len(there["latency"]["samples_ms"]) >= 64
    assert there["latency"]["samples_ms"] != here["latency"]["samples_ms"]
    assert "measured" in report["device"]["on bench"]
    (name,) = failed(report)
    assert name == "ssh://gone.invalid: measured"
    assert re.search(r"cannot be reached", failed(report)[name])
    assert (work / "out" / "report.html").exists()
    assert (work / "out" / "near.make.fp32.onnx").exists()
    # A gate that changed is held to what is known: nobody measures again, but for a latency that was INVALID.
    report, stages, said = run(work, LOCAL + bench, "-o", "again", more="[gates.fp32]\nmax_abs = 100.0\n", code=0)
    assert set(stages) - {"latency", "bench: latency"} == {"bench: asked", "report"}
    again = "bench: latency: taken again, since the one that is kept is INVALID" in said
    assert ("bench: latency" in stages) == again
    assert list(subjects(report)) == ["torch FP32", "ONNX FP32", "ONNX FP32 on bench"]


def test_without_this_machine_the_reference_alone_is_here_and_a_changed_runtime_there_is_measured_anew(
    work: Path, server: tuple[Sshd, Board], bench: str
) -> None:
    told = server[1].folder / "packages" / "onnxruntime-0.9.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 0.9\n")
    try:
        report, stages, _ = run(work, bench, "-o", "there", code=0)
    finally:
        (told / "METADATA").unlink()
        told.rmdir()
    assert {"bench: asked", *THERE, "report"} <= set(stages)
    assert {"parity", "latency", "accuracy"}.isdisjoint(stages)
    assert list(subjects(report)) == ["torch FP32", "ONNX FP32 on bench"]
    assert subjects(report)["torch FP32"]["accuracy"]["samples"] == 6
    assert subjects(report)["torch FP32"]["latency"] is None


def test_a_dry_run_names_the_stages_and_reaches_nobody(work: Path, server: tuple[Sshd, Board], bench: str) -> None:
    (work / "dry.toml").write_text(RECIPE + bench)
    before = server[0].log
    said = deploy("run", "dry.toml", "--dry-run", cwd=work).stdout
    assert "bench: asked · anew" in said
    assert all(name in said for name in THERE)
    assert "anew: a network's own code or a device may have changed unseen" in said
    assert server[0].log == before
    (work / "dry.toml").write_text(RECIPE + '[[device]]\nname = "benhc"\n')
    assert "there is no device 'benhc'" in deploy("run", "dry.toml", "--dry-run", cwd=work, code=2).stderr


@pytest.mark.thorough
def test_a_part_of_it_is_a_device_alone_and_one_that_is_missing_or_taken_ends_that(
    work: Path, server: tuple[Sshd, Board], bench: str
) -> None:
    _, stages, _ = run(work, bench, "--only", "bench: asked", code=0)
    assert stages == ["bench: asked"]
    _, _, said = run(work, '[[device]]\nname = "ssh://gone.invalid"\n', "--only", "ssh:gone.invalid: asked", code=3)
    assert "ssh://gone.invalid cannot be reached" in said
    with (server[1].folder / "lease").open("a") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        words = ("--only", "bench: latency", "--from", "bench: latency", "--no-wait")
        _, stages, said = run(work, bench, *words, code=3)
    assert "bench: latency" in stages
    assert "has the device" in said


def test_verify_reaches_no_device_of_a_file_that_merely_lies_there(work: Path, server: tuple[Sshd, Board], bench: str) -> None:
    (work / "dtvit-deploy.toml").write_text(RECIPE + bench)
    before = server[0].log
    done = deploy("verify", "out/near.make.fp32.onnx", "--json", cwd=work)
    (work / "dtvit-deploy.toml").unlink()
    assert list(subjects(json.loads(done.stdout))) == ["torch FP32", "ONNX FP32"]
    assert "on its devices by --device NAME" in done.stderr
    assert server[0].log == before


@pytest.mark.thorough
def test_a_run_that_is_interrupted_ends_what_it_has_begun_there(work: Path, server: tuple[Sshd, Board], bench: str) -> None:
    board = server[1]
    (work / "long.toml").write_text(RECIPE.replace("seconds = 0.1", "seconds = 60") + bench)
    process = subprocess.Popen(
        [DEPLOY, "run", "long.toml", "-o", "never"], cwd=work, stderr=subprocess.PIPE, text=True, preexec_fn=answering
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "bench: latency: bench: latency of" in line:
            break
    assert board.workers()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    until = time.monotonic() + 20
    while board.workers() and time.monotonic() < until:
        time.sleep(0.1)
    assert board.workers() == []
    assert not (work / "never" / "report.json").exists()
    assert "MB freed" in deploy("device", "clean", "bench", "-r", "long.toml", cwd=work).stdout  # by the Python that the recipe names
    assert "there is no device 'bench'" in deploy("device", "clean", "bench", cwd=work, code=2).stderr

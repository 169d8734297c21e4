"""Engines that a device builds: from one command here, over a real ssh server, to the engine beside its job; and back there, to be run.

The device is this machine with a Python that has stand-ins of TensorRT, of the CUDA driver and of NVIDIA's bindings. No Jetson was asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from commandline import DEPLOY, Done, answering, deploy, tree
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact, sha256_of
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.formats.engine.passport import ENGINE, GRAPH, passport_of
from dtvit_deploy.remote.built import built_on
from jetson import Jetson
from jetson_device import KERNEL_MS
from sshd import Sshd, sshd

pytest.importorskip("onnxsim")
pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(*body).eval(), (torch.zeros(1, 3, 16, 16),)
"""
ASKED = ("export", "-m", "mine:make", "-t", "trt")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "mine.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[tuple[Sshd, Jetson]]:
    board = Jetson(tmp_path_factory.mktemp("board"))
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        told = f'name = "orin-1"\ntags = ["orin"]\naddress = "{server.address}"\npython = "{board.python}"\n'
        (work / "devices.toml").write_text(f"[[device]]\n{told}")
        yield server, board


@pytest.fixture
def device(server: tuple[Sshd, Jetson], monkeypatch: pytest.MonkeyPatch) -> Iterator[Jetson]:
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server[0].config))
    yield server[1]
    server[1].behaves()
    server[1].has("tensorrt", "10.3.0")


@pytest.fixture(scope="module")
def exported(server: tuple[Sshd, Jetson], work: Path) -> tuple[Artifact, Artifact, Done]:
    """A job and the engine that the device built of it, and what was said."""
    done = deploy(*ASKED, "-p", "fp16", "--device", "orin", "-o", "out", cwd=work, DTVIT_DEPLOY_SSH_CONFIG=str(server[0].config))
    return load_artifact(work / "out" / "mine.make.fp16.trtjob"), load_artifact(work / "out" / "mine.make.fp16.orin-1.trt"), done


def told(work: Path, command: str, *words: str, code: int | None = 0) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(deploy(command, *words, "--json", cwd=work, code=code).stdout)
    return report


def test_the_engine_that_comes_back_is_of_the_job_and_names_the_device(
    exported: tuple[Artifact, Artifact, Done], device: Jetson, work: Path
) -> None:
    job, engine, done = exported
    passport, built = passport_of(engine.manifest), built_on(engine.manifest)
    assert engine.manifest.rung is Rung.ON_DEVICE  # it answered the golden samples there
    assert engine.manifest.lineage[:-1] == job.manifest.lineage[:-1]
    assert engine.manifest.lineage[-1].options["job"] == sha256_of(job.path / "job.json")
    assert (passport.version, passport.device, passport.capabilities, passport.cuda) == ("10.3.0", "Orin", ("8.7",), "12.6")
    assert passport.engine == sha256_of(engine.path / ENGINE)
    assert sha256_of(engine.path / GRAPH) == sha256_of(job.path / GRAPH) == passport.graph
    assert built is not None
    assert (built.on, built.address.partition(":")[0]) == ("orin-1", "ssh")
    assert built.ended.startswith("20")
    assert any("golden" in note for note in engine.manifest.lineage[-1].notes)
    assert "built from" in done.stderr  # what the script says there is heard here
    assert "on device" in done.stdout
    assert device.processes() == []


@pytest.mark.thorough
def test_the_same_job_is_not_built_twice_there_and_no_engine_moves_twice(
    exported: tuple[Artifact, Artifact, Done], device: Jetson, work: Path, cache_folder: Path
) -> None:
    before = device.builds
    done = deploy(*ASKED, "-p", "fp16", "--device", "orin-1", "-o", "again", cwd=work)
    assert "sending" not in done.stderr
    assert tree(work / "again") == tree(work / "out")
    for kept in cache_folder.glob("built-there-*"):  # what is no more kept here is still kept there
        shutil.rmtree(kept)
    deploy(*ASKED, "-p", "fp16", "--device", "orin-1", "-o", "anew", cwd=work)
    assert tree(work / "anew") == tree(work / "out")
    assert device.builds == before
    device.has("tensorrt", "10.4.0")  # as an update of JetPack brings: another engine
    deploy(*ASKED, "-p", "fp16", "--device", "orin-1", "-o", "later", cwd=work)
    assert device.builds == before + 1


def test_it_is_executed_there_and_not_here(exported: tuple[Artifact, Artifact, Done], device: Jetson, work: Path) -> None:
    path = str(exported[1].path)
    report = told(work, "verify", path, "--device", "orin")
    (found,) = report["subjects"][1:]
    assert found["rung"] == "on device"
    assert found["conditions"]["runtime"] == "tensorrt 10.3.0"
    assert found["verdict"]["passed"]
    (found,) = told(work, "verify", path)["subjects"][1:]
    assert found["rung"] == "emulated"


@pytest.mark.thorough
def test_an_engine_of_nobody_knows_whom_is_executed_there_only_on_the_users_word(
    exported: tuple[Artifact, Artifact, Done], device: Jetson, work: Path, tmp_path: Path
) -> None:
    asked = ("verify", exported[1].path, "-m", "mine:make", "--device", "orin")
    done = deploy(*asked, cwd=work, code=2, DTVIT_DEPLOY_CACHE=str(tmp_path / "cache"))
    assert "this engine was not built by you here; --trust executes it" in done.stderr
    deploy(*asked, "--trust", cwd=work, DTVIT_DEPLOY_CACHE=str(tmp_path / "cache"))


@pytest.mark.thorough
def test_a_profile_tells_the_gpus_own_time_too(exported: tuple[Artifact, Artifact, Done], device: Jetson, work: Path) -> None:
    report = told(work, "profile", str(exported[1].path), "--device", "orin", "--seconds", "0.1", "--samples", "16", code=None)
    latency = report["subjects"][1]["latency"]
    assert latency["device"]["samples_ms"] == [KERNEL_MS] * len(latency["samples_ms"])
    assert latency["conditions"]["device latency"].startswith("of the engine alone")


def test_wrong_answers_and_a_refused_graph_are_one_message_and_leave_nothing(
    device: Jetson, work: Path, exported: tuple[Artifact, Artifact, Done]
) -> None:
    for behaviour, words in (({"spoils": True}, "does not answer as it should"), ({"refuses": ["Conv"]}, "no importer for Conv")):
        device.behaves(**behaviour)
        done = deploy(*ASKED, "-p", "fp32", "--device", "orin", "-o", "wrong", cwd=work, code=2)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (work / "wrong").exists()
        assert device.processes() == []


@pytest.mark.thorough
def test_an_engine_that_contradicts_its_passport_is_refused_and_built_anew_for_whoever_asks_again(
    device: Jetson, work: Path, exported: tuple[Artifact, Artifact, Done]
) -> None:
    device.has("tensorrt", "10.9.0")  # what it has built before is another's
    device.behaves(lies=True)
    done = deploy(*ASKED, "-p", "fp16", "--device", "orin", "-o", "lied", cwd=work, code=2)
    assert "is not its engine: the manifest is of an engine by version 10.3.0; this one was built by 10.4.0" in done.stderr
    assert not (work / "lied").exists()
    device.behaves()
    before = device.builds
    deploy(*ASKED, "-p", "fp16", "--device", "orin", "-o", "lied", cwd=work)
    assert device.builds == before + 1


@pytest.mark.parametrize(
    ("release", "words"), [("8.5.2", "tensorrt 10 or 11: it has 8.5.2"), ("12.0.0", "tensorrt 10 or 11: it has 12.0.0")]
)
def test_a_release_that_no_graph_was_held_to_is_told_before_anything_is_made(
    device: Jetson, work: Path, exported: tuple[Artifact, Artifact, Done], release: str, words: str
) -> None:
    device.has("tensorrt", release)
    done = deploy(*ASKED, "-p", "fp32", "--device", "orin", "-o", "none", cwd=work, code=3)
    assert words in done.stderr
    assert "trace" not in done.stderr
    assert "sending" not in done.stderr
    assert not (work / "none").exists()


def test_what_no_device_builds_leaves_devices_aside(device: Jetson, work: Path) -> None:
    if util.find_spec("tensorrt_rtx") is not None:
        done = deploy(*ASKED, "--flavour", "rtx", "--device", "orin", "-o", "here", cwd=work)
        assert "orin-1 left aside" in done.stderr
    done = deploy(*ASKED, "--device", "nowhere", "-o", "none", cwd=work, code=2)
    assert "there is no device 'nowhere'" in done.stderr
    done = deploy("export", "-m", "mine:make", "-t", "onnx", "--device", "orin", "-o", "plain", cwd=work)
    assert "orin-1 left aside" in done.stderr
    assert list((work / "plain").glob("*.onnx"))


def test_ctrl_c_ends_the_build_there(device: Jetson, work: Path, exported: tuple[Artifact, Artifact, Done]) -> None:
    device.behaves(seconds=120)
    before = device.builds
    process = subprocess.Popen(
        [DEPLOY, *ASKED, "-p", "fp32", "--device", "orin", "-o", "ended"], cwd=work, stderr=subprocess.PIPE, text=True, preexec_fn=answering
    )
    until = time.monotonic() + 300
    while device.builds == before:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    until = time.monotonic() + 30
    while device.processes():
        assert time.monotonic() < until, device.processes()
        time.sleep(0.1)
    assert not (work / "ended").exists()


@pytest.mark.thorough
def test_a_connection_that_breaks_while_it_builds_costs_nothing(
    server: tuple[Sshd, Jetson], device: Jetson, work: Path, exported: tuple[Artifact, Artifact, Done]
) -> None:
    device.behaves(seconds=6, pads=40 << 20)  # several parts
    before = device.builds
    process = subprocess.Popen(
        [DEPLOY, *ASKED, "-p", "fp32", "--device", "orin", "-o", "whole"], cwd=work, stderr=subprocess.PIPE, text=True, preexec_fn=answering
    )
    until = time.monotonic() + 300
    while device.builds == before:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < until
        time.sleep(0.05)
    for session in server[0].sessions():
        os.kill(session, signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "the connection is lost" in said
    assert device.builds == before + 1
    assert load_artifact(work / "whole" / "mine.make.fp32.orin-1.trt").bytes > 40 << 20

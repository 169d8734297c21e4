"""An ARM64 device answers to the commands: FP32, FP16 and INT8 artefacts on ARM's own kernels, behind ssh, judged on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arm64.device import CORE, Device
from arm64.environment import Environment
from commandline import deploy
from project import inventory, make_project
from sshd import sshd

pytestmark = [pytest.mark.arm64, pytest.mark.slow]
MORE = """
samples = 4
[export]
precisions = ["fp32", "fp16", "int8"]
cpu = "arm64"
[int8]
random_data = true
samples = 8
search = false
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    make_project(folder, recipe=MORE, side=64, width=32, pictures=6)
    deploy("export", "-o", "out", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def arm(environment: Environment, tmp_path_factory: pytest.TempPathFactory, work: Path) -> Iterator[dict[str, str]]:
    """Variables by which the device is reached, which the inventory calls arm."""
    device = Device(environment.folder)
    if device.missing:
        pytest.skip(device.missing)
    folder = tmp_path_factory.mktemp("device")
    with sshd(folder, inside=device.inside(folder), variables={"QEMU_CPU": CORE}) as server:
        inventory(work, arm=f'address = "{server.address}"')
        yield {"DTVIT_DEPLOY_SSH_CONFIG": str(folder / "client")}


def told(work: Path, arm: dict[str, str], command: str, *words: str, code: int | None = 0) -> dict[str, Any]:
    done = deploy(command, "out", "-r", "dtvit-deploy.toml", "--device", "arm", *words, "--json", cwd=work, code=code, **arm)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_outputs_and_layers_pass_and_their_rung_is_an_emulated_processor(work: Path, arm: dict[str, str]) -> None:
    report = told(work, arm, "verify", "--layers")
    there = {one["name"]: one for one in report["subjects"] if " on arm" in one["name"]}
    assert {name.split()[1] for name in there} == {"FP32", "FP16", "INT8"}
    for one in there.values():
        assert one["rung"] == one["layers"]["rung"] == "emulated processor"
        assert one["conditions"]["architecture"] == "aarch64"
        assert one["conditions"]["FP16 arithmetic"] == "yes"  # a Cortex-A76
        assert len(one["layers"]["layers"]) > 3
    assert any("emulated processor" in note for note in report["notes"])


def test_accuracy_counts(work: Path, arm: dict[str, str]) -> None:
    report = told(work, arm, "evaluate", code=None)
    found = {one["name"]: one["accuracy"] for one in report["subjects"]}
    assert found["ONNX FP32 on arm"]["agreement"] == 1
    assert found["ONNX FP32 on arm"]["samples"] == 6


def test_no_time_is_taken(work: Path, arm: dict[str, str]) -> None:
    done = deploy("profile", "out", "--data", "images", "--device", "arm", cwd=work, code=3, **arm)
    assert "cannot be measured here" in done.stderr
    assert "the processor of arm" in done.stderr

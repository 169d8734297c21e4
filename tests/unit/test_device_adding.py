"""FP16 is judged by an ideal that adds as the device does: by its runtime and what its cores have, not by its architecture's name."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.devices.probe import Facts, read_facts
from dtvit_deploy.remote.place import Place

HALF, SINGLE = {"INFERENCE_PRECISION_HINT": "f16"}, {"INFERENCE_PRECISION_HINT": "f32"}
ANSWER = b"system Linux\nrelease 6.1\narchitecture aarch64\ncache /c\ncache_writable yes\npython_version 3.12.1\n"


def place(**facts: object) -> Place:
    found = Place(Device(name="box", address=None), lambda text: None)
    known = Facts(system="Linux", release="6.1", architecture="aarch64", cache="/c", writable=True, clock=0.0)
    found.facts = msgspec.structs.replace(known, **facts)
    return found


@pytest.mark.parametrize(
    ("architecture", "half", "runtime", "conditions", "adds"),
    [
        ("aarch64", True, "onnxruntime", {}, True),  # Cortex-A76, Neoverse N1
        ("aarch64", False, "onnxruntime", {}, False),  # Cortex-A57, A72: a Jetson Nano, a Raspberry Pi 4
        ("aarch64", None, "onnxruntime", {}, True),  # nothing tells: what allows more
        ("arm64", True, "onnxruntime", {}, True),  # a Mac
        ("x86_64", None, "onnxruntime", {}, False),
        ("x86_64", None, "openvino", HALF, False),
        ("aarch64", True, "openvino", HALF, True),
        ("aarch64", True, "openvino", SINGLE, False),
        ("aarch64", None, "openvino", {}, False),
        ("aarch64", True, "tensorrt", {}, False),  # judged as on this machine
    ],
)
def test_by_the_cores_and_the_runtime(architecture: str, half: bool | None, runtime: str, conditions: dict[str, str], adds: bool) -> None:
    assert place(architecture=architecture, half=half).adds_in_half(runtime, conditions) is adds


@pytest.mark.parametrize(("line", "half"), [(b"", None), (b"half yes\n", True), (b"half no\n", False)])
def test_the_device_tells_it_or_does_not(line: bytes, half: bool | None) -> None:
    assert read_facts("box", ANSWER + line + b"clock 1\nend\n", now=1).half is half


@pytest.mark.skipif(platform.machine() == "aarch64", reason="an ARM64 core tells it, whatever it has")
def test_another_processor_says_nothing_of_it(tmp_path: Path) -> None:
    import sys

    from dtvit_deploy.devices.probe import probe
    from dtvit_deploy.devices.transport import Shell

    assert probe(Shell(tmp_path), sys.executable).half is None

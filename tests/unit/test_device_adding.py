"""FP16 is judged by an ideal that adds as the device does: by its runtime and what its cores have, not by its architecture's name."""

from __future__ import annotations

import ctypes
import io
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtvit_deploy.devices import half as asked
from dtvit_deploy.devices.half import half_arithmetic
from dtvit_deploy.devices.probe import probe, read_facts
from dtvit_deploy.devices.state.everything import facts
from dtvit_deploy.devices.transport import Shell
from dtvit_deploy.formats.job.job import Job, State
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.adding import adds_in_half, half_of
from dtvit_deploy.remote.told import device_conditions

HALF, SINGLE = {"INFERENCE_PRECISION_HINT": "f16"}, {"INFERENCE_PRECISION_HINT": "f32"}
ANSWER = b"system Linux\nrelease 6.1\narchitecture aarch64\ncache /c\ncache_writable yes\npython_version 3.12.1\n"


def results(architecture: str, half: str) -> Results:
    found = Results(Job(agent="a" * 64, blobs=(), tasks=(State(),)), "b" * 64, io.BytesIO())
    found.device = {"architecture": architecture} | ({"FP16 arithmetic": half} if half else {})
    return found


@pytest.mark.parametrize(
    ("architecture", "half", "runtime", "conditions", "adds"),
    [
        ("aarch64", "yes", "onnxruntime", {}, True),  # Cortex-A76, Neoverse N1
        ("aarch64", "no", "onnxruntime", {}, False),  # Cortex-A57, A72: a Jetson Nano, a Raspberry Pi 4
        ("aarch64", "", "onnxruntime", {}, True),  # nothing tells: what allows more
        ("aarch64", "perhaps", "onnxruntime", {}, True),
        ("arm64", "yes", "onnxruntime", {}, True),  # a Mac
        ("x86_64", "", "onnxruntime", {}, False),
        ("x86_64", "", "openvino", HALF, False),
        ("armv7l", "", "onnxruntime", {}, False),
        ("aarch64", "yes", "openvino", HALF, True),
        ("aarch64", "yes", "openvino", SINGLE, False),
        ("aarch64", "", "openvino", {}, False),
        ("aarch64", "yes", "tensorrt", {}, False),  # judged as on this machine
    ],
)
def test_by_the_cores_and_the_runtime(architecture: str, half: str, runtime: str, conditions: dict[str, str], adds: bool) -> None:
    assert adds_in_half(results(architecture, half), runtime, conditions) is adds


def test_a_figure_says_what_the_cores_have() -> None:
    assert device_conditions(results("aarch64", "no"))["FP16 arithmetic"] == "no"
    assert half_of(results("aarch64", "no")) is False
    assert half_of(results("aarch64", "")) is None


@pytest.mark.parametrize(("line", "half"), [(b"", None), (b"half yes\n", True), (b"half no\n", False)])
def test_the_probe_reads_it_or_nothing(line: bytes, half: bool | None) -> None:
    assert read_facts("box", ANSWER + line + b"clock 1\nend\n", now=1).half is half


@pytest.mark.parametrize(
    ("bits", "half"),
    [(0b11 << 9, True), (0b01 << 9, False), (0b10 << 9, False), (0, False), (~0 & (2**64 - 1), True)],
)
def test_a_core_has_it_where_scalars_and_vectors_have(monkeypatch: pytest.MonkeyPatch, bits: int, half: bool) -> None:
    """By the C library's word, in whose place a stand-in speaks: there is no ARM core here."""

    class Library(SimpleNamespace):
        @staticmethod
        def getauxval(kind: int) -> int:
            assert kind == 16
            return bits

    Library.getauxval.restype = None  # type: ignore[attr-defined]
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert half_arithmetic() is half
    assert facts(Path("/nowhere"))["FP16 arithmetic"] == ("yes" if half else "no")


def test_a_c_library_that_cannot_be_asked_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert half_arithmetic() is None


@pytest.mark.parametrize(("said", "half"), [("1", True), ("0", False), ("unknown oid", None), ("", None)])
def test_a_mac_is_asked_by_sysctl(monkeypatch: pytest.MonkeyPatch, said: str, half: bool | None) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(asked.subprocess, "run", lambda words, **how: SimpleNamespace(stdout=f"{said}\n".encode()))
    assert half_arithmetic() is half


@pytest.mark.skipif(platform.machine() in ("aarch64", "arm64"), reason="an ARM64 core tells it, whatever it has")
def test_another_processor_says_nothing_of_it(tmp_path: Path) -> None:
    assert half_arithmetic() is None
    assert "FP16 arithmetic" not in facts(tmp_path)
    assert probe(Shell(tmp_path), sys.executable).half is None

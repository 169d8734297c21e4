"""An emulated processor is told by what its emulator cannot hide."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from dtvit_deploy.devices.emulation import EMULATED, emulated

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATED, raising=False)
    monkeypatch.delenv("QEMU_CPU", raising=False)


def machine(root: Path, cpuinfo: str, told: str = "/usr/bin/python3.11", kernels: str = "/usr/bin/python3.11") -> Path:
    """A system whose process is told that it is one program, and is another by the kernel's word."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/thread-self").mkdir()
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/self/exe").symlink_to(told)
    (root / "proc/thread-self/exe").symlink_to(kernels)
    return root


def test_this_machine_is_not() -> None:
    assert emulated() == ""


@pytest.mark.parametrize(("architecture", "cpuinfo"), [("x86_64", X86), ("aarch64", ARM), ("riscv64", X86), ("x86_64", "")])
def test_a_real_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, cpuinfo: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    assert emulated(machine(tmp_path, cpuinfo)) == ""


def test_a_machine_without_proc_is_not_taken_for_one(tmp_path: Path) -> None:
    assert emulated(tmp_path) == ""


@pytest.mark.parametrize(
    ("architecture", "cpuinfo", "kernels", "told"),
    [
        ("aarch64", ARM, "/usr/bin/qemu-aarch64-static", "qemu-aarch64-static, which runs"),
        ("aarch64", "", "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "aarch64-binfmt-P, which runs"),
        ("aarch64", X86, "/usr/bin/python3.11", "/proc/cpuinfo is of the family x86"),
        ("x86_64", ARM, "/usr/bin/python3.11", "/proc/cpuinfo is of the family arm"),
        ("x86_64", "model name\t: QEMU TCG CPU version 2.5+\n", "/usr/bin/python3.11", "QEMU TCG CPU"),
        ("x86_64", "model name\t: VirtualApple @ 2.50GHz\n", "/usr/bin/python3.11", "VirtualApple"),
    ],
)
def test_one_is_seen_from_every_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, cpuinfo: str, kernels: str, told: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    assert told in emulated(machine(tmp_path, cpuinfo, kernels=kernels))


@pytest.mark.parametrize(("variable", "value", "told"), [(EMULATED, "gem5", "gem5"), ("QEMU_CPU", "max", "qemu-user")])
def test_whoever_knows_says_so(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str) -> None:
    monkeypatch.setenv(variable, value)
    assert told in emulated()

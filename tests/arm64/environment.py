"""An ARM64 core without an ARM64 machine: Debian's user-space emulator, its arm64 Python, and the aarch64 wheels of ONNX Runtime.

    python tests/arm64/environment.py build/arm64

downloads and unpacks what is not there yet. It needs a Debian with apt-get and dpkg, no root, and installs nothing. Where that cannot be
had, the reason is written beside it, and the tests skip with it.

The emulator shows a program the files of the folder that it is given in place of the machine's own. ONNX Runtime asks them which core it
runs on, so that each core has a folder with its own `/proc/cpuinfo`: with the machine's, kernels would be taken that the emulated core
lacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ONNX_RUNTIMES = ("1.23.2", "1.32.0")
"""The last for Python 3.10, which JetPack 6 has, and the newest that was tried."""
NUMPY = "2.2.6"
PYTHONS = ("3.11", "3.13")
"""Of Debian 12 and 13: the first that apt offers is taken."""
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
CORES = {
    "cortex-a57": ("0xd07", FEATURES),
    "cortex-a76": ("0xd0b", f"{FEATURES} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"),
}
"""Part number and features that Linux shows: the first has no FP16 arithmetic, the second has."""
COMPLETE, MISSING = "complete", "missing.txt"
EMULATOR = "qemu-aarch64-static"


class UnavailableError(Exception):
    """Why the environment cannot be had on this machine."""


@dataclass(frozen=True)
class Environment:
    """What `set_up` left in a folder."""

    folder: Path

    @property
    def missing(self) -> str:
        """Why it cannot be used; empty where it can."""
        if (self.folder / COMPLETE).is_file():
            return ""
        note = self.folder / MISSING
        return note.read_text().strip() if note.is_file() else f"{self.folder} holds no emulated ARM64 core: `make test-arm64` sets it up"

    def command(self, core: str, onnx_runtime: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """What to execute, and in which environment, for Python on that core with that ONNX Runtime."""
        python, emulator = (self.folder / COMPLETE).read_text().split("\n")[:2]
        root = self.folder / core
        settings = {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "QEMU_CPU": core,
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": str(self.folder / f"onnxruntime-{onnx_runtime}"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        started = [emulator, "-L", str(root), "-E", "LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu", str(root / f"usr/bin/python{python}")]
        return [*started, *arguments], settings


def set_up(folder: Path) -> Environment:
    """Make whatever is not there yet; the file that says it is complete comes last.

    Raises:
        UnavailableError: a tool or a package cannot be had here.
    """
    environment = Environment(folder.resolve())
    folder = environment.folder
    if environment.missing:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MISSING).unlink(missing_ok=True)
        tools = [tool for tool in ("apt-get", "apt-cache", "dpkg") if shutil.which(tool) is None]
        if tools:
            raise UnavailableError(f"an emulated ARM64 core is made of Debian's packages, and {', '.join(tools)} is not on this machine")
        emulator = shutil.which(EMULATOR) or _emulator(folder)
        python = _system(folder)
        for core, (part, features) in CORES.items():
            _core(folder / "system", folder / core, part, features)
        for version in ONNX_RUNTIMES:
            _wheels(folder, python, version)
        shutil.rmtree(folder / "system")
        (folder / COMPLETE).write_text(f"{python}\n{emulator}\n")
    return environment


def _emulator(folder: Path) -> str:
    own = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    _unpacked(folder, own, ["qemu-user-static"], folder / "emulator")
    return str(folder / "emulator/usr/bin" / EMULATOR)


def _system(folder: Path) -> str:
    """The arm64 libraries and Python in `system`; gives Python's version."""
    for python in PYTHONS:
        names = [f"python{python}-minimal", f"libpython{python}-minimal", f"libpython{python}-stdlib"]
        if apt(folder, "arm64", "apt-cache", "show", *names).returncode == 0:
            _unpacked(folder, "arm64", [*LIBRARIES, *names], folder / "system")
            return python
    raise UnavailableError(f"apt offers no arm64 package of Python {' or '.join(PYTHONS)} here")


def apt(folder: Path, architecture: str, *command: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    """apt with lists of its own, which are fetched first: the machine's know nothing of arm64, and stay as they are."""
    state = folder / "apt" / architecture
    options = [f"APT::Architecture={architecture}", f"APT::Architectures={architecture}", "Dir::State::Status=/dev/null"]
    options += [f"Dir::State::Lists={state / 'lists'}", f"Dir::Cache={state / 'cache'}", "APT::Sandbox::User=root"]
    flags = [part for option in options for part in ("-o", option)]
    if not state.is_dir():
        for name in ("lists/partial", "cache/archives/partial"):
            (state / name).mkdir(parents=True)
        run(["apt-get", *flags, "-qq", "update"], None)
    return run([command[0], *flags, "-qq", *command[1:]], where)


def _unpacked(folder: Path, architecture: str, packages: Sequence[str], into: Path) -> None:
    downloads = folder / "downloads" / architecture
    downloads.mkdir(parents=True, exist_ok=True)
    found = apt(folder, architecture, "apt-get", "download", *packages, where=downloads)
    if found.returncode:
        raise UnavailableError(f"apt-get cannot download {', '.join(packages)} ({architecture}): {last(found)}")
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(into)], check=True)
    shutil.rmtree(downloads)


def _core(system: Path, root: Path, part: str, features: str) -> None:
    """The system as that core sees it; files are links to the same bytes, since only what describes the core differs."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(system, root, symlinks=True, copy_function=os.link)
    told = {"processor": "0", "BogoMIPS": "100.00", "Features": features, "CPU implementer": "0x41", "CPU architecture": "8"}
    told |= {"CPU variant": "0x1", "CPU part": part, "CPU revision": "0"}
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("".join(f"{key}\t: {value}\n" for key, value in told.items()) + "\n")
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present", "kernel_max"):
        (cpus / name).write_text("0\n")


def _wheels(folder: Path, python: str, version: str) -> None:
    downloads, packages = folder / "downloads" / "wheels", folder / f"onnxruntime-{version}"
    shutil.rmtree(packages, ignore_errors=True)
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    wanted = [f"onnxruntime=={version}", f"numpy=={NUMPY}"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", *platforms, "--python-version", python, "--no-deps"]
    found = run([*pip, "-d", str(downloads), *wanted], None)
    if found.returncode:
        raise UnavailableError(f"pip cannot download the aarch64 wheels of {' and '.join(wanted)}: {last(found)}")
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    shutil.rmtree(downloads)


def run(command: Sequence[str], where: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)


def last(found: subprocess.CompletedProcess[str]) -> str:
    return next(iter((found.stderr or found.stdout).strip().splitlines()[-1:]), "no message")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        set_up(place)
        print(f"emulated ARM64 cores in {place}: {', '.join(CORES)}, with ONNX Runtime {' and '.join(ONNX_RUNTIMES)}")
    except UnavailableError as error:
        (place / MISSING).write_text(f"{error}\n")
        print(f"no emulated ARM64 core here: {error}", file=sys.stderr)

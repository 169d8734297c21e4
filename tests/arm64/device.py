"""A whole ARM64 device without one: Debian's arm64 ssh server, shell and Python in a folder, run by the emulator.

    python tests/arm64/device.py build/arm64

adds it to the emulated cores of `arm64.environment`, without root. To run it takes root, and a Linux (6.7 or later) in which a user
namespace has binary formats of its own: the emulator is known to the device's processes alone, its mounts are seen by them alone, and both
are gone with the last of them. Nothing of the machine is changed.

The device's `/proc/cpuinfo` and `/sys` are those of the emulated core: with the machine's, runtimes would take kernels that it lacks.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this is a script, too

from arm64.environment import COMPLETE, CORES, EMULATOR, NUMPY, ONNX_RUNTIMES, UnavailableError, apt, last, run, set_up

CORE = "cortex-a76"
OPENVINO = "2026.4.1"
SYSTEM = ("openssh-server", "python3", "dash", "bash", "coreutils", "sed", "grep", "findutils", "libc-bin", "libstdc++6")
_PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_31_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64")
_USERS = "root:x:0:0:root:/root:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_FORMAT = (
    rb":dtvit-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/mnt/%s:F"
)
"""What an ARM64 program begins with, its mask, and who runs it; F opens that now, since it is not in the device's folder."""


@dataclass(frozen=True)
class Device:
    """The folder of a device, in that of the emulated cores."""

    environment: Path

    @property
    def root(self) -> Path:
        return self.environment / "device"

    @property
    def missing(self) -> str:
        """Why it cannot be run; empty where it can."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "needs root on Linux, to give the emulated device a root of its own"
        if not (self.root / COMPLETE).is_file():
            return f"{self.environment} holds no emulated ARM64 device: `make test-arm64` sets it up"
        tried = run([*self.inside(self.root), "/bin/true"], None)
        return "" if tried.returncode == 0 else f"no emulated ARM64 device can be run here: {last(tried)}"

    def inside(self, shown: Path) -> tuple[str, ...]:
        """Words before a program of the device's own, which run it there.

        Args:
            shown: a folder of this machine that it sees too, under the same name.
        """
        return (sys.executable, __file__, str(self.environment), str(shown))


def made(folder: Path) -> Device:
    """Make what is not there yet; the file that says it is complete comes last.

    Raises:
        UnavailableError: a tool or a package cannot be had here.
    """
    environment = set_up(folder).folder
    device = Device(environment)
    if (device.root / COMPLETE).is_file():
        return device
    shutil.rmtree(device.root, ignore_errors=True)
    python = (environment / COMPLETE).read_text().split("\n")[0]
    fetched = apt(environment, "arm64", "apt-get", "install", "--download-only", "--yes", "--no-install-recommends", *SYSTEM)
    if fetched.returncode:
        raise UnavailableError(f"apt-get cannot download {', '.join(SYSTEM)} (arm64): {last(fetched)}")
    for package in sorted((environment / "apt/arm64/cache").glob("**/*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(device.root)], check=True)
    _packages(environment, python, device.root / f"usr/local/lib/python{python}/dist-packages")
    (device.root / "etc/passwd").write_text(_USERS)
    (device.root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (device.root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")  # none lets nobody in by a password, and by a key whoever has it
    _core(device.root / "sys/devices/system/cpu")
    for name in ("proc", "dev", "tmp", "run", "root"):
        (device.root / name).mkdir(exist_ok=True)
    (device.root / COMPLETE).touch()
    return device


def _core(cpus: Path) -> None:
    """One core, as far as runtimes ask the kernel about it. Without the topology OpenVINO 2026.4 ends by SIGSEGV as it compiles."""
    alone = ("core_id", "physical_package_id", "thread_siblings_list", "core_siblings_list", "core_cpus_list", "package_cpus_list")
    told = dict.fromkeys(("possible", "present", "online", "kernel_max", *(f"cpu0/topology/{each}" for each in alone)), "0")
    told |= {f"cpu0/topology/{name}": "1" for name in ("thread_siblings", "core_siblings", "core_cpus", "package_cpus")}
    told["cpu0/regs/identification/midr_el1"] = f"0x00000000410f{CORES[CORE][0][2:]}1"
    for name, text in told.items():
        (cpus / name).parent.mkdir(parents=True, exist_ok=True)
        (cpus / name).write_text(f"{text}\n")


def _packages(environment: Path, python: str, into: Path) -> None:
    downloads = environment / "downloads" / "device"
    wanted = [f"onnxruntime=={ONNX_RUNTIMES[-1]}", f"numpy=={NUMPY}", f"openvino=={OPENVINO}"]
    platforms = [part for platform in _PLATFORMS for part in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", *platforms, "--python-version", python, "--no-deps"]
    found = run([*pip, "-d", str(downloads), *wanted], None)
    if found.returncode:
        raise UnavailableError(f"pip cannot download the aarch64 wheels of {' and '.join(wanted)}: {last(found)}")
    for wheel in downloads.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
    shutil.rmtree(downloads)


def enter(environment: Path, shown: Path, command: Sequence[str]) -> None:
    """Become a program of the device; does not return.

    Raises:
        OSError: the kernel, or who runs it, does not allow it.
    """
    device = Device(environment)
    _own_namespaces()
    root, emulator = device.root, Path((environment / COMPLETE).read_text().split("\n")[1])
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "tmpfs", "/mnt")  # the name of the emulator must be a short one
    shutil.copy(emulator, f"/mnt/{EMULATOR}")
    Path("/mnt/formats").mkdir()
    _mount("-t", "binfmt_misc", "binfmt_misc", "/mnt/formats")
    Path("/mnt/formats/register").write_bytes(_FORMAT % EMULATOR.encode())
    for name in ("tmp", "run"):
        _mount("-t", "tmpfs", "tmpfs", str(root / name))
    for name in ("proc", "dev"):
        _mount("--rbind", f"/{name}", str(root / name))
    _mount("--bind", str(environment / CORE / "proc/cpuinfo"), str(root / "proc/cpuinfo"))
    if shown != root:
        inner = root / shown.relative_to("/")
        inner.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(shown), str(inner))
    (root / "run/sshd").mkdir()
    os.chroot(root)
    os.chdir("/")
    os.execve(command[0], list(command), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def _own_namespaces() -> None:
    """Users and mounts of this process's own, in which root is root and everybody else is who they are."""
    ready, told = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:  # who may say which users there are is outside
        os.read(ready, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{parent}/{name}").write_text("0 0 65536\n")
        os._exit(0)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.unshare(_NEWUSER | _NEWNS)
    code = ctypes.get_errno()
    os.write(told, b"x")
    _, status = os.waitpid(child, 0)
    if failed or status:
        raise OSError(code, f"no user namespace: {os.strerror(code)}")


def _mount(*words: str) -> None:
    done = run(["mount", *words], None)
    if done.returncode:
        raise OSError(f"mount {' '.join(words)}: {last(done)}")


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        try:
            enter(place, Path(sys.argv[2]), sys.argv[3:])
        except OSError as error:
            sys.exit(str(error))
    try:
        made(place)
        print(f"an emulated ARM64 device in {Device(place).root}")
    except UnavailableError as error:
        print(f"no emulated ARM64 device here: {error}", file=sys.stderr)

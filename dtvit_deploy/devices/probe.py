"""What a device is and has, asked before anything is copied to it, by a shell script that changes nothing there (``probe.sh``).

The answer comes from elsewhere: it is read strictly and within bounds, and its words are shown, never obeyed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.devices.transport import Transport
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.words import shown

LEASES = ("/run/lock/dtvit-deploy-device.lock", "/tmp/dtvit-deploy-device.lock")
"""Files that who works on a device may hold locked (``DTVIT_DEPLOY_LEASE`` there names another); they hold the holder's own word."""
_SCRIPT = Path(__file__).with_name("probe.sh")
_PATIENCE = 150.0
"""Seconds: an emulated processor that shares its core with others took forty for all of it. The script ends a Python that hangs before."""
_LARGEST = 64 << 10
"""Bytes of an answer, which is about one kilobyte."""
_MOST = 64
"""Lines of it."""
_VERSION = re.compile(r"[\w.+!/-]{1,64}", re.ASCII)
"""OpenVINO's own has the name of its branch in it, with a slash."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself. Text is empty, and a number None, where it does not say.

    Attributes:
        system: the kernel's name, ``Linux`` or ``Darwin``; ``release`` is its own.
        architecture: as the kernel names it: ``aarch64``, ``x86_64``, ``arm64``.
        model: of the board or the machine, by its firmware.
        emulator: what runs the instructions where no processor of that architecture does.
        l4t, jetpack: a Jetson's release, and the version of its JetPack.
        power_mode: the mode that ``nvpmodel`` tells, or else that of ACPI.
        governor: of the clock of its first core.
        half: whether its ARM cores have arithmetic in FP16; None where nothing says so, and for other processors.
        gpu, capability, cuda: the first of NVIDIA's GPUs that a program there can use, and the newest CUDA that its driver knows;
            ``driver`` is its release, where the kernel tells it; ``no_gpu`` why there is none.
        memory: bytes that programs could have now.
        cache: the folder in which ours would be made; ``writable`` where it can.
        disk: bytes that are free there.
        kept: bytes that are in ours already; None where nothing counts them.
        python: the path of the program that was asked for; empty where there is none.
        python_version: as three numbers; None where it does not run.
        packages: versions of those that are installed there, by module; of all but NumPy no import was tried.
        broken: those that do not import, with the reason.
        clock: seconds by which its clock is ahead of this machine's.
        holder: who says to hold its lease at this moment.
    """

    system: str
    release: str
    architecture: str
    distribution: str = ""
    user: str = ""
    model: str = ""
    processor: str = ""
    emulator: str = ""
    l4t: str = ""
    jetpack: str = ""
    power_mode: str = ""
    governor: str = ""
    half: bool | None = None
    gpu: str = ""
    capability: str = ""
    cuda: str = ""
    driver: str = ""
    no_gpu: str = ""
    memory: int | None = None
    cache: str
    writable: bool
    disk: int | None = None
    kept: int | None = None
    python: str = ""
    python_version: tuple[int, int, int] | None = None
    packages: dict[str, str] = {}
    broken: dict[str, str] = {}
    clock: float
    holder: str = ""

    @property
    def lasting(self) -> dict[str, Any]:
        """What figures depend on of it: with any of this another, answers and times may be others; what changes by itself is left out."""
        return {name: getattr(self, name) for name in _LASTING}


_LASTING = (
    *("system", "release", "architecture", "model", "processor", "emulator", "l4t", "jetpack", "power_mode", "governor"),
    *("python", "python_version", "packages", "half", "gpu", "capability", "driver"),
)


def probe(device: Transport, python: str = "python3", leases: Sequence[str] = LEASES) -> Facts:
    """Ask a device what it is.

    Args:
        python: the program there, as an inventory gives it.
        leases: files whose lock is asked for.

    Raises:
        InputError: the answer is not what the script would say.
        LostError: the connection went away.
        MissingError: the device runs no commands.
    """
    began = time.time()
    done = device.run(["/bin/sh", "-s", "--", python, *leases], stdin=_SCRIPT.read_bytes(), timeout=_PATIENCE)
    return read_facts(device.name, done.stdout, words=done.stderr, now=(began + time.time()) / 2)


def read_facts(name: str, answer: bytes, *, now: float, words: bytes = b"") -> Facts:
    """The facts in an answer of the script.

    Args:
        name: the device's, for messages.
        now: what this machine's clock said when it was asked, in seconds since 1970.
        words: what was said on standard error beside it.

    Raises:
        InputError: it is no whole answer of the script, or a value is none that it would give.
    """
    try:
        return msgspec.convert(_told(answer, now), Facts)
    except (ValueError, msgspec.ValidationError) as error:
        said = shown(words)
        raise InputError(
            f"{name} does not say what it is as it should: {shown(str(error))}{f' ({said})' if said else ''}",
            remedy="see by `ssh` whether /bin/sh, uname and sed work there",
        ) from error


def _told(answer: bytes, now: float) -> dict[str, Any]:
    lines = answer[: _LARGEST + 1].decode(errors="replace").split("\n")
    if len(answer) > _LARGEST or len(lines) > _MOST or lines[-2:] != ["end", ""]:
        raise ValueError(f"its answer of {len(answer)} bytes has no end, or is too long")
    found: dict[str, Any] = {"packages": {}, "broken": {}}
    failed = ""
    for line in lines[:-2]:
        key, _, value = line.partition(" ")
        if key in _PAIRS:
            module, _, about = value.partition(" ")
            _put(found[_PAIRS[key]], shown(module), _version(about) if key == "package" else shown(about))
        elif key in _READ:
            name, read = _READ[key]
            _put(found, name, read(value))
        elif key == "python_failed":
            failed = shown(value)
        else:
            raise ValueError(f"it says {line!r:.80}")
    if failed and "python_version" in found:  # it ran, and native code of others ended it: NumPy's, or the driver's
        if "numpy" in found["packages"]:
            found.setdefault("no_gpu", f"the NVIDIA driver ended Python with {failed}")
        else:
            found["broken"].setdefault("numpy", f"Python ended with {failed}")
    found["clock"] = found.get("clock", now) - now
    return found


def _put(found: dict[str, Any], key: str, value: Any) -> None:
    if key in found:
        raise ValueError(f"it tells its {key} twice")
    found[key] = value


def _kib(text: str) -> int:
    return _number(text) << 10


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f"{text!r:.80} is no number")
    return int(text)


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no version")
    return text


def _release(text: str) -> tuple[int, ...]:
    return tuple(map(_number, text.split(".")))


_PAIRS = {"package": "packages", "broken": "broken"}
_TEXTS = (
    *("system", "release", "architecture", "distribution", "user", "model", "processor", "emulator"),
    *("l4t", "jetpack", "power_mode", "governor", "gpu", "capability", "cuda", "driver", "no_gpu", "cache", "python", "holder"),
)
_READ: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    **{key: (key, shown) for key in _TEXTS},
    "memory_kib": ("memory", _kib),
    "disk_kib": ("disk", _kib),
    "kept_kib": ("kept", _kib),
    "half": ("half", lambda text: text == "yes"),
    "cache_writable": ("writable", lambda text: text == "yes"),
    "python_version": ("python_version", _release),
    "clock": ("clock", _number),
}
"""By the script's keys: the field, and how its value is read."""

"""What is a Jetson's own: power mode, locked clocks, the GPU's clock.

NVIDIA Jetson Linux Developer Guide, *Power Management* (``nvpmodel -q``, ``jetson_clocks --show``), and the kernel's devfreq.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.devices.files import between, folders, number, scaled, text
from dtvit_deploy.devices.state.source import Source, single
from dtvit_deploy.devices.state.tools import ended, said
from dtvit_deploy.formats.engine.gpu import jetpack

_GPU = re.compile(r"(?i)gpu|gv11b|ga10b|gp10b|gm20b")
_RANGE = re.compile(
    r"(?:(?P<cpu>cpu\d{1,3}): (?:\w{1,20}=\S{1,30} ){0,4}|(?P<unit>GPU\w{0,30}|EMC):? )"
    r"MinFreq=(?P<low>\d{1,12}) +MaxFreq=(?P<high>\d{1,12})(?P<rest>(?: .*)?)",
    re.ASCII,
)
_OFFLINE = re.compile(r"cpu\d{1,3}: Online=0\b.*", re.ASCII)
_ONLINE = re.compile(r"^Online CPUs: (\d{1,3}(?:-\d{1,3})?(?:,\d{1,3}(?:-\d{1,3})?)*)$", re.MULTILINE | re.ASCII)


def is_one(root: Path) -> bool:
    """Whether this machine is a Jetson."""
    return (root / "etc/nv_tegra_release").exists() or "tegra" in (text(root / "proc/device-tree/compatible") or "")


def sources(root: Path) -> list[Source]:
    """Clocks of GPUs, by devfreq."""
    found = []
    for folder in folders(root, "sys/class/devfreq/*"):
        file = folder / "cur_freq"
        if _GPU.search(folder.name) and number(file) is not None:
            found.append(single(f"GPU clock ({folder.name})", "clock", (root, file), _hertz(file)))
    return found


def facts(root: Path) -> dict[str, str]:
    """Release, JetPack, power mode, and whether clocks are locked, as far as it may be asked."""
    if not is_one(root):
        return {}
    found = {"release": jetpack(root)}
    if root != Path("/"):  # a tree that only stands for a machine has no programs
        return found
    return found | {
        "JetPack": _jetpack(),
        "power mode": power_mode(said("nvpmodel", "-q")),
        "jetson_clocks": locked(said("jetson_clocks", "--show")),
    }


@functools.cache
def _jetpack() -> str:
    return (said("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack") or "").strip()


def power_mode(told: str | None) -> str:
    """``MAXN (0)`` of what ``nvpmodel -q`` says."""
    match = re.search(r"^NV Power Mode: ?(\w[\w.+ -]{0,60}?)\s*\n(\d{1,3})\s*$", ended(told), re.MULTILINE | re.ASCII)
    return f"{match[1]} ({match[2]})" if match else ""


class Clock(NamedTuple):
    """What ``jetson_clocks --show`` tells of one clock.

    Attributes:
        name: ``cpu0``, ``GPU``, ``EMC``.
        highest: that it may have, in MHz.
        is_fixed: whether it can not move.
        set: what was set of it, and does not move by itself: its lowest, whether it is held, and the states that idle cores may go into.
    """

    name: str
    highest: int
    is_fixed: bool
    set: str


def clocks(told: str | None) -> list[Clock]:
    """Each clock of what ``jetson_clocks --show`` tells root; a processor's in kHz there, others in Hz.

    None unless it tells of every processor that is online, of a GPU and of the memory, and each of those lines is as it should be: of one
    that is not, nobody knows whether its clock can move.
    """
    lines = [line for line in ended(told).splitlines() if line.startswith(("cpu", "GPU", "EMC")) and not _OFFLINE.fullmatch(line)]
    matches = [match for line in lines if (match := _RANGE.fullmatch(line.rstrip()))]
    names = [match["cpu"] or match["unit"] for match in matches]
    online, units = _numbered(_ONLINE.findall(ended(told))), {name[:3] for name in names if not name.startswith("cpu")}
    whole = len(matches) == len(lines) and len(set(names)) == len(names)
    if not whole or not online or {name for name in names if name.startswith("cpu")} != online or units != {"GPU", "EMC"}:
        return []
    return [_clock(name, match["low"], match["high"], match["rest"]) for name, match in zip(names, matches, strict=True)]


def _clock(name: str, low: str, high: str, rest: str) -> Clock:
    held, idle = re.search(r"\bFreqOverride=\d", rest), re.search(r"\bIdleStates:.*", rest)
    kept = (f"MinFreq={low}", *(match[0].strip() for match in (held, idle) if match))
    fixed = int(low) == int(high) or (name == "EMC" and re.search(r" FreqOverride=1(?: |$)", rest) is not None)
    return Clock(name, int(high) // (1_000 if name.startswith("cpu") else 1_000_000), fixed, " ".join(kept))


def locked(told: str | None) -> str:
    """Which clocks can move, of what ``jetson_clocks --show`` tells root: ``locked``, or those that are not; empty where it tells none."""
    found = clocks(told)
    if not found:
        return ""
    free = [one.name for one in found if not one.is_fixed]
    return f"not locked: {', '.join(free)}" if free else "locked"


def _numbered(lists: list[str]) -> set[str]:
    """Processors of ``0-3,6``, by name; none where not exactly one list was told."""
    if len(lists) != 1:
        return set()
    bounds = [part.partition("-") for part in lists[0].split(",")]
    return {f"cpu{number}" for low, _, high in bounds for number in range(int(low), int(high or low) + 1)}


def _hertz(file: Path) -> Callable[[], float | None]:
    return lambda: between(scaled(number(file), 1e-6), 1, 20_000)

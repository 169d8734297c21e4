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
_RANGE = re.compile(r"^(cpu\d+|GPU\w*|EMC):?\s.*?\bMinFreq=(\d{1,12})\s+MaxFreq=(\d{1,12})\b(.*)$", re.MULTILINE | re.ASCII)


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
    """Each clock of what ``jetson_clocks --show`` tells root; a processor's in kHz there, others in Hz."""
    found = []
    for name, low, high, rest in _RANGE.findall(ended(told)):
        held = re.search(r"\bFreqOverride=\d", rest)
        idle = re.search(r"\bIdleStates:.*", rest)
        kept = (f"MinFreq={low}", *(match[0].strip() for match in (held, idle) if match))
        fixed = int(low) == int(high) or (name == "EMC" and "FreqOverride=1" in rest)
        found.append(Clock(name, int(high) // (1_000 if name.startswith("cpu") else 1_000_000), fixed, " ".join(kept)))
    return found


def locked(told: str | None) -> str:
    """Which clocks can move, of what ``jetson_clocks --show`` tells root: ``locked``, or those that are not."""
    found = clocks(told)
    if not any(one.name.startswith("cpu") for one in found) or not any(one.name.startswith("GPU") for one in found):
        return ""
    free = [one.name for one in found if not one.is_fixed]
    return f"not locked: {', '.join(free)}" if free else "locked"


def _hertz(file: Path) -> Callable[[], float | None]:
    return lambda: between(scaled(number(file), 1e-6), 1, 20_000)

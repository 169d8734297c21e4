"""Times at which the kernel saw the device hold itself back.

Kernel: Documentation/ABI/testing/sysfs-devices-system-cpu (``thermal_throttle``) and sysfs-class-thermal (``cooling_device``); NVIDIA
Jetson Linux Developer Guide, *Over-Current Throttling* (``oc*_event_cnt``) and *Thermal Management*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dtvit_deploy.devices.files import folders, number, text
from dtvit_deploy.devices.state.source import Source, single
from dtvit_deploy.harness.state.record import Kind

_SLOWING = re.compile(r"(?i)processor|powerclamp|(cpu|gpu|dev)-?freq|throttle-alert|hot-surface")
"""Cooling devices that cool by doing less; fans are others."""
_FEW = 4
_TOO_MUCH = re.compile(r"curr[0-9]+_((max|crit)_)?alarm", re.ASCII)
"""Alarms of too much current; of too little there are others."""


def sources(root: Path) -> list[Source]:
    """Counters and flags of throttling."""
    return [*_x86(root), *_over_current(root), *_cooling(root)]


def facts(root: Path, more: Sequence[Source] = ()) -> dict[str, str]:
    """What holds the device back now, by the kernel or by ``more``, and how often anything was counted since it started; nothing where
    nothing tells.
    """
    counted = sources(root)
    flags, events = _harms([*counted, *more], "flag"), _harms(counted, "events")
    told = {"throttled": "; ".join(name for name, value in flags if value) or "no"} if flags else {}
    return told | ({"throttle events": f"{sum(value for _, value in events):.0f} since it started"} if events else {})


def _harms(found: Sequence[Source], kind: Kind) -> list[tuple[str, float]]:
    read = [(channel, value) for one in found for channel, value in zip(one.channels, one.read(), strict=True)]
    return [(channel.name, value) for channel, value in read if channel.harm and channel.kind == kind and value is not None]


def _x86(root: Path) -> list[Source]:
    """Cores' counters together; those of a package apart from other packages', each of whose CPUs counts the same events."""
    found = []
    for what in ("core", "package"):
        files = folders(root, f"sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{what}_throttle_count")
        groups: dict[str, list[Path]] = {}
        for file in files:
            if _counted(file) is not None:
                groups.setdefault(f"package {_package(file)}".rstrip() if what == "package" else "core", []).append(file)
        for of, counted in groups.items():
            called = of if of[-1].isdigit() else f"a {of}"
            name = f"thermal throttling of {called}, counted on {len(counted)} CPUs"
            found.append(single(name, "events", (root, counted[0]), _together(counted, sum if what == "core" else max), harm=True))
    return found


def _package(file: Path) -> str:
    """Number of the package, and of the die in it where there are several, that a CPU's counter is of; empty where it is not told."""
    topology = file.parent.parent / "topology"
    package, die = number(topology / "physical_package_id"), number(topology / "die_id")
    return "" if package is None or package < 0 else f"{package}" + (f" die {die}" if die else "")


def _together(files: list[Path], together: Callable[[list[int]], int]) -> Callable[[], float | None]:
    """What was counted at first, and each rise since: of a CPU that goes away the others' go on counting, and no smaller count hides behind
    a larger one.
    """
    last = {file: _counted(file) or 0 for file in files}
    total = together(list(last.values()))

    def read() -> float | None:
        nonlocal total
        known = {file: value for file in files if (value := _counted(file)) is not None}
        if not known:
            return None
        total += together([max(0, value - last[file]) for file, value in known.items()])
        last.update(known)
        return float(total)

    return read


def _counted(file: Path) -> int | None:
    return value if (value := number(file)) is not None and value >= 0 else None


def _over_current(root: Path) -> list[Source]:
    counted = folders(root, "sys/class/hwmon/hwmon[0-9]*/oc[0-9]*_event_cnt")
    files = [*counted, *(file for file in folders(root, "sys/class/hwmon/hwmon[0-9]*/curr[0-9]*_alarm") if _TOO_MUCH.fullmatch(file.name))]
    found = []
    for file in files:
        if number(file) is None:
            continue
        chip = text(file.with_name("name")) or file.parent.name
        label = "" if file in counted else text(file.with_name(f"in{re.sub(r'[^0-9]', '', file.name.partition('_')[0])}_label")) or ""
        name = f"over-current {file.name.partition('_')[0]} of {chip}{f' ({label})' if label else ''}"
        found.append(single(name, "events" if file in counted else "flag", (root, file), _reader(file), harm=True))
    return found


def _cooling(root: Path) -> list[Source]:
    """One for each kind of which there are more than a few, as a server has one for each of its CPUs."""
    kinds: dict[str, list[Path]] = {}
    for folder in folders(root, "sys/class/thermal/cooling_device[0-9]*"):
        kind, file = text(folder / "type") or "", folder / "cur_state"
        if _SLOWING.search(kind) and number(file) is not None:
            kinds.setdefault(kind, []).append(file)
    found = []
    for kind, files in kinds.items():
        for some in [files] if len(files) > _FEW else [[file] for file in files]:
            which = some[0].parent.name if len(some) == 1 else f"any of {len(some)}"
            found.append(single(f"cooling by {kind} ({which})", "flag", (root, some[0]), _on(some), harm=True))
    return found


def _reader(file: Path) -> Callable[[], float | None]:
    return lambda: _counted(file)


def _on(files: list[Path]) -> Callable[[], float | None]:
    """1 where a cooling device does anything; some say −1 while they do nothing."""
    return lambda: max((float(value > 0) for file in files if (value := number(file)) is not None), default=None)

"""Temperatures: the kernel's thermal zones with their trip points, and sensors of processors.

Kernel: Documentation/ABI/testing/sysfs-class-thermal, Documentation/hwmon/sysfs-interface.rst, coretemp.rst and k10temp.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import between, folders, number, scaled, source, text
from dtvit_deploy.devices.state.source import Source, single

_LOWEST, _HIGHEST = -50.0, 200.0
"""°C of a device that works: −256 and −274 are codes of sensors that do not, and so is what lies far above."""
_CHIPS = ("coretemp", "k10temp", "zenpower", "k8temp", "cpu_thermal", "soc_thermal")
"""hwmon chips that are in processors; a disk's temperature says nothing here."""
_ELSEWHERE = re.compile(r"(?i)nvme|drivetemp|ssd|\bata|sata|iwlwifi|wi-?fi|wlan|modem|bat(tery|[0-9])?\b|charger")
"""Zones of disks, radios and batteries: at their trip points they do less themselves, and the processor does what it did."""
_LOWEST_TRIP = 50.0
_TRIPS = ("passive", "hot", "critical")
"""Kinds of trip points at which a device does less; at ``active`` ones a fan starts."""


def celsius(millidegrees: int | None) -> float | None:
    """Of what the kernel tells in thousandths of a degree."""
    return between(scaled(millidegrees, 1e-3), _LOWEST, _HIGHEST)


def sources(root: Path) -> list[Source]:
    """Zones, and the chips of processors that no zone shows."""
    return [*_zones(root), *_chips(root)]


def hottest(root: Path) -> str:
    """The highest temperature of all that answer, in words; empty where none does."""
    known = [degrees for one in _zones(root) or _chips(root) for degrees in one.read() if degrees is not None]
    return f"{max(known):.1f} °C at the hottest of {len(known)} sensors" if known else ""


def _zones(root: Path) -> list[Source]:
    """All but those that are switched off, and a Jetson's PMIC, which tells a constant, 50 or 100 °C."""
    found = []
    for folder in folders(root, "sys/class/thermal/thermal_zone[0-9]*"):
        file = folder / "temp"
        if (text(file) is None and not file.exists()) or text(folder / "mode") == "disabled":
            continue
        kind = text(folder / "type") or "thermal zone"
        if kind.lower().startswith("pmic"):
            continue
        name, limit = f"{kind} ({folder.name})", None if _ELSEWHERE.search(kind) else trip(_trips(folder))
        found.append(single(name, "temperature", (root, file), _reader(file), limit=limit))
    return found


def _trips(folder: Path) -> list[tuple[str | None, int | None]]:
    """Kinds and temperatures of a zone's trip points."""
    kinds = folders(folder, "trip_point_[0-9]*_type")
    return [(text(kind), number(kind.with_name(kind.name.replace("_type", "_temp")))) for kind in kinds]


def trip(points: list[tuple[str | None, int | None]]) -> float | None:
    """The lowest trip point, in °C, from which on a device does less; disabled ones are at 0 or below, placeholders of firmware at 20."""
    known = [degrees for kind, value in points if kind in _TRIPS and (degrees := celsius(value)) is not None and degrees > _LOWEST_TRIP]
    return min(known, default=None)


def _chips(root: Path) -> list[Source]:
    found = []
    for folder in folders(root, "sys/class/hwmon/hwmon[0-9]*"):
        chip = text(folder / "name")
        if chip not in _CHIPS:
            continue
        cores: list[Path] = []
        for file in folders(folder, "temp[0-9]*_input"):
            label = text(file.with_name(file.name.replace("_input", "_label"))) or file.name.removesuffix("_input")
            if re.fullmatch(r"Core [0-9]+", label):
                cores.append(file)
                continue
            limit = trip([("critical", number(file.with_name(file.name.replace("_input", "_crit"))))])
            found.append(single(f"{chip} {label}", "temperature", (root, file), _reader(file), limit=limit))
        if cores:
            name = f"{chip}, hottest of {len(cores)} cores ({source(root, cores[0].parent)})"
            found.append(single(name, "temperature", (root, cores[0]), _hottest(cores)))
    return found


def _reader(file: Path) -> Callable[[], float | None]:
    return lambda: celsius(number(file))


def _hottest(files: list[Path]) -> Callable[[], float | None]:
    return lambda: max((degrees for file in files if (degrees := celsius(number(file))) is not None), default=None)

"""What a Mac says of its thermal state, its power mode and its system (Apple: manual pages of ``pmset``, ``sw_vers``, ``powermetrics``,
``notifyutil``; ``OSThermalNotification.h``).

``powermetrics`` is for root alone; without it there is neither clock nor power, and no value stands in for them.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from itertools import pairwise

from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.stream import Stream, streamed
from dtvit_deploy.devices.state.tools import ended, program, said
from dtvit_deploy.harness.state.record import POWERMETRICS, Channel, Kind

_PRESSURE = "com.apple.system.thermalpressurelevel"
_NOTIFY = f"notifyutil -g {_PRESSURE}"
_THERM = "pmset -g therm"
_EVERY = 2.0
_LIMITS = {"CPU_Speed_Limit": 100, "CPU_Scheduler_Limit": 100}
_SAMPLERS = "cpu_power,gpu_power,ane_power,thermal"
_INTERVAL_MS = 200
"""A sample is known to be whole when the next one begins: it is of 0.2 to 0.6 s before it is read."""
_LONGEST_MS = 300.0
"""What a sample may have taken whose power counts; how energy settles is made for it (`record.REACH`)."""
_HEADER = re.compile(r"^\*\*\* Sampled system activity \(.*\) \((\d{1,9}\.\d{1,3})ms elapsed\) \*\*\*$", re.MULTILINE | re.ASCII)
_FIGURE = re.compile(
    r"^(?:(CPU|GPU|ANE|Combined) Power(?: \(CPU \+ GPU \+ ANE\))?: (\d{1,7}) mW"
    r"|(\S{1,20}-Cluster|GPU) HW active frequency: (\d{1,5}) MHz)$",
    re.MULTILINE | re.ASCII,
)
_LEVEL = re.compile(r"^Current pressure level: (Nominal|Moderate|Heavy|Trapping|Sleeping)$", re.MULTILINE | re.ASCII)
_SYSTEM = re.compile(
    r"^(ProductName|ProductVersion|BuildVersion):\t+(macOS|Mac OS X|\d{1,3}(?:\.\d{1,3}){1,2}|\d{1,3}[A-Z]\d{1,6}[a-z]?)$",
    re.MULTILINE | re.ASCII,
)
_MODES = {"0": "off", "1": "on"}
_POWER_MODES = {"0": "automatic", "1": "low power", "2": "high power"}


def is_one() -> bool:
    """Whether this machine is a Mac."""
    return platform.system() == "Darwin"


def sources() -> list[Source]:
    """Thermal pressure and limits; power and clocks where root asks."""
    found = flags()
    if is_one() and os.geteuid() == 0:
        command = (POWERMETRICS, "--samplers", _SAMPLERS, "-i", str(_INTERVAL_MS))
        found += streamed(Stream(*command, cut=whole_samples), metric_channels, metrics)
    return found


def flags() -> list[Source]:
    """Thermal pressure and limits, which anybody may ask for."""
    if not is_one():
        return []
    found = []
    if pressure(said(*_NOTIFY.split())) is not None:
        found.append(Source((_flag("thermal pressure", _NOTIFY),), lambda: (pressure(said(*_NOTIFY.split())),), every=_EVERY))
    if program("pmset"):
        found.append(Source((_flag("thermal warning or limit", _THERM),), lambda: (limited(said(*_THERM.split())),), every=_EVERY))
    return found


def facts() -> dict[str, str]:
    """Build of the system, low power mode, and the machine's model."""
    if not is_one():
        return {}
    return {
        "build": build(said("sw_vers")),
        "low power mode": low_power(said("pmset", "-g")),
        "power source": supply(said("pmset", "-g", "batt")),
        "model": (said("sysctl", "-n", "hw.model") or "").strip(),
    }


def build(told: str | None) -> str:
    """``macOS 26.1 (25B78)`` of what ``sw_vers`` says."""
    found = dict(_SYSTEM.findall(ended(told)))
    if len(found) < 3:
        return ""
    return f"{found['ProductName']} {found['ProductVersion']} ({found['BuildVersion']})"


def low_power(told: str | None) -> str:
    """Of what ``pmset -g`` says: the settings in use, under one of two names."""
    found = dict(re.findall(r"^ (lowpowermode|powermode)\s+(\d)\s*$", ended(told), re.MULTILINE | re.ASCII))
    if "lowpowermode" in found:
        return _MODES.get(found["lowpowermode"], "")
    return _POWER_MODES.get(found.get("powermode", ""), "")


def supply(told: str | None) -> str:
    """``AC Power`` or ``Battery Power``, of what ``pmset -g batt`` says."""
    match = re.match(r"Now drawing from '(AC Power|Battery Power|UPS Power)'", ended(told))
    return match[1] if match else ""


def pressure(told: str | None) -> float | None:
    """1 where the system is told to do less (any level but 0, nominal)."""
    match = re.fullmatch(rf"{re.escape(_PRESSURE)} ([0-4])\s*", ended(told), re.ASCII)
    return float(match[1] != "0") if match else None


def limited(told: str | None) -> float | None:
    """1 where ``pmset -g therm`` tells a warning, or a limit below 100; 0 where it tells of all three that there is none; else None."""
    limits = dict(re.findall(r"^\s*(CPU_Speed_Limit|CPU_Scheduler_Limit)\s*=\s*(\d{1,3})\s*$", ended(told), re.MULTILINE | re.ASCII))
    warnings = dict(re.findall(r"^\s*(Thermal|Performance) [Ww]arning [Ll]evel\s*=\s*(\d{1,3})\s*$", ended(told), re.MULTILINE | re.ASCII))
    if any(int(value) < _LIMITS[name] for name, value in limits.items()) or any(map(int, warnings.values())):
        return 1.0
    quiet = set(
        re.findall(r"^Note: No (thermal|performance|CPU power) (?:warning level|status) has been recorded$", ended(told), re.MULTILINE)
    )
    every = {name.lower() for name in warnings} | quiet | ({"CPU power"} if limits.keys() == _LIMITS.keys() else set())
    return 0.0 if len(every) == 3 else None


def whole_samples(said: str) -> tuple[Sequence[str], str]:
    """Of ``powermetrics``: a sample is whole when the next one begins."""
    starts = [match.start() for match in _HEADER.finditer(said)]
    return [said[one:other] for one, other in pairwise(starts)], said[starts[-1] :] if starts else said


def metrics(sample: str) -> dict[str, float]:
    """Power in mW, clocks in MHz and thermal pressure of one sample.

    A sample that took longer than was asked for has no power: when that was delivered is not known well enough.
    """
    found: dict[str, float] = {}
    header = _HEADER.match(sample)
    soon = header is not None and float(header[1]) <= _LONGEST_MS
    for rail, power, cluster, clock in _FIGURE.findall(sample):
        if rail and not soon:
            continue
        name, value = (f"{rail} power", float(power)) if rail else (f"{cluster} clock", float(clock))
        if found.setdefault(name, value) != value:
            found[name] = -1.0  # told twice, and not the same
    if level := _LEVEL.search(sample):
        found["thermal pressure level"] = float(level[1] != "Nominal")
    return {name: value for name, value in found.items() if value >= 0 and not (name.endswith("clock") and value == 0)}


def metric_channels(sample: str) -> tuple[Channel, ...]:
    """What a sample has figures of."""
    kinds: Sequence[tuple[str, Kind]] = (("power", "power"), ("clock", "clock"), ("level", "flag"))
    return tuple(
        Channel(name=name, kind=kind, source=POWERMETRICS, harm=kind == "flag")
        for name in metrics(sample)
        for end, kind in kinds
        if name.endswith(end)
    )


def _flag(name: str, where: str) -> Channel:
    return Channel(name=name, kind="flag", source=where, harm=True)

"""What ``tegrastats`` prints of a Jetson, a line at a time (NVIDIA Jetson Linux Developer Guide, *tegrastats Utility*).

The formats of JetPack 4 to 7: power as ``NAME now/average`` in mW without a unit (R32), with ``mW`` behind each (R34 to R36), and as
``now/average/peak`` (R38, R39); temperatures as ``name@39.5C``, and as ``name@now/peak`` (R39); processors that are ``off``. What is not
exactly so is passed over: no number is better than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dtvit_deploy.devices.files import between
from dtvit_deploy.devices.state.rails import named
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.stream import Stream, streamed
from dtvit_deploy.harness.state.record import Channel, Kind

SOURCE = "tegrastats"
_INTERVAL = "500"
_NAME = r"(?<![^\s])([A-Za-z_][\w.-]{0,60})"
_END = r"(?=\s+[A-Za-z_]|\s*$)"
"""Of a figure: the next one has a name. What begins with a digit is the rest of a number that was torn apart."""
_POWER = re.compile(rf"{_NAME} (?:(\d{{1,7}})mW/\d{{1,7}}mW(?:/\d{{1,7}}mW)?|(\d{{1,7}})/\d{{1,7}}){_END}", re.ASCII)
_HEAT = re.compile(rf"{_NAME}@(-?\d{{1,3}}(?:\.\d{{1,3}})?)C(?:/-?\d{{1,3}}(?:\.\d{{1,3}})?C)?{_END}", re.ASCII)
_EMC = re.compile(rf"(?<![^\s])EMC_FREQ \d{{1,3}}%@(\d{{1,5}}){_END}", re.ASCII)
_GPU = re.compile(rf"(?<![^\s])GR3D_FREQ \d{{1,3}}%@(?:(\d{{1,5}})|\[((?:\d{{1,5}},)*\d{{1,5}})\]){_END}", re.ASCII)
_CPUS = re.compile(rf"(?<![^\s])CPU \[((?:(?:\d{{1,3}}%@\d{{1,5}}|off),)*(?:\d{{1,3}}%@\d{{1,5}}|off))\]{_END}", re.ASCII)
_FAKE = ("pmic", "pmic-die")
"""Sensors of some boards that tell a constant, 50 or 100 °C."""
EMC, GPU, CPU = "EMC clock", "GPU clock", "CPU clock, highest core"


def values(line: str) -> dict[str, float]:
    """Figures of one whole line, by channel: rails in mW, temperatures in °C, clocks in MHz.

    A name that is told twice with different figures has none. A line without its end was cut, and tells nothing.
    """
    if not line.endswith("\n"):
        return {}
    told = [(name, value) for name, _, value in _figures(line) if value is not None]
    return {name: value for name, value in told if all(other == value for again, other in told if again == name)}


def channels(line: str) -> tuple[Channel, ...]:
    """What a line has figures of; a unit that sleeps now (−256 °C) is one that may wake."""
    found: dict[str, Kind] = {name: kind for name, kind, _ in _figures(line)} if line.endswith("\n") else {}
    return tuple(Channel(name=name, kind=kind, source=SOURCE) for name, kind in found.items())


def sources(present: Iterable[Kind]) -> list[Source]:
    """What it tells beyond the kinds of which the kernel's own files tell already."""
    known = set(present)

    def told(line: str) -> tuple[Channel, ...]:
        return tuple(one for one in channels(line) if one.kind not in known or one.name in (EMC, GPU))

    return streamed(Stream(SOURCE, "--interval", _INTERVAL), told, values)


def _figures(line: str) -> list[tuple[str, Kind, float | None]]:
    found: list[tuple[str, Kind, float | None]] = [
        (rail, "power", float(each[2] or each[3])) for each in _POWER.finditer(line) if (rail := named(each[1]))
    ]
    found += [
        (f"{each[1]} temperature", "temperature", between(float(each[2]), -50, 200))
        for each in _HEAT.finditer(line)
        if each[1].lower() not in _FAKE
    ]
    if emc := _EMC.search(line):
        found.append((EMC, "clock", between(float(emc[1]), 1, 20_000)))
    if gpu := _GPU.search(line):
        found.append((GPU, "clock", between(max(map(float, (gpu[1] or gpu[2]).split(","))), 1, 20_000)))
    if cpus := _CPUS.search(line):
        clocks = [float(one.partition("@")[2]) for one in cpus[1].split(",") if one != "off"]
        found.append((CPU, "clock", between(max(clocks, default=None), 1, 20_000)))
    return found

"""NVIDIA GPUs in a PC, by ``nvidia-smi``, which the driver brings along (NVIDIA, its manual page and ``--help-query-gpu``; the bits
of what holds a clock down: *NVML API Reference*, ``nvmlClocksEventReasons``).

It is asked once and goes on telling (``-lms``), since starting it takes longer than all readings together. A line is of one GPU and says
how many there are, so that a report is whole when the last of them has spoken.

Power is ``power.draw.instant`` alone: from Ampere on, ``power.draw`` is the mean over the second before, in which the block before would be
a part of each block of energy. A driver that does not know the word has no rail here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dtvit_deploy.devices.files import between
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.stream import Stream, streamed
from dtvit_deploy.devices.state.tools import ended, said
from dtvit_deploy.harness.state.record import CARD, Channel, Kind

PROGRAM = CARD
_FORM = "--format=csv,noheader,nounits"
_INTERVAL = "200"
"""Milliseconds: a reading of the watcher, twice a second, finds at least one report."""
_MOST = 16
"""GPUs of a machine."""
_NUMBER = re.compile(r"\d{1,6}(?:\.\d{1,3})?", re.ASCII)
_NONE = re.compile(r"N/A|\[[A-Za-z/ ]{2,60}\]", re.ASCII)
_WHOLE = re.compile(r"\d{1,2}", re.ASCII)
_BITS = re.compile(r"0x[0-9a-fA-F]{16}", re.ASCII)


class _Figure(NamedTuple):
    """A number of a GPU: how it is asked for, what it is called here, its kind, what its unit is times, and what it can be at all."""

    asked: str
    called: str
    kind: Kind
    factor: float
    low: float
    high: float


_FIGURES = (
    _Figure("temperature.gpu", "temperature", "temperature", 1.0, 1, 150),  # at 0 °C there is no sensor, not a cold chip
    _Figure("temperature.memory", "memory temperature", "temperature", 1.0, 1, 150),
    _Figure("clocks.current.sm", "SM clock", "clock", 1.0, 1, 20_000),
    _Figure("clocks.current.memory", "memory clock", "clock", 1.0, 1, 50_000),
)
_POWER = _Figure("power.draw.instant", "board power", "power", 1e3, 1, 5_000_000)
REASONS = {
    0x8: ("hardware slowdown", True),
    0x20: ("software thermal slowdown", True),
    0x40: ("hardware thermal slowdown", True),
    0x80: ("power brake", True),
    0x4: ("at its power limit", False),
}
"""Bits of what holds a clock down, and whether a latency under it is INVALID. At its power limit a GPU is in any long load: that is a note.
Idle clocks and those that an application asked for are no harm."""


class Form(NamedTuple):
    """How one release of the driver is asked.

    Attributes:
        figures: numbers that it knows.
        reasons: what it calls the bits of what holds a clock down; ``events`` since R535, ``throttle`` before.
    """

    figures: tuple[_Figure, ...]
    reasons: str

    @property
    def query(self) -> str:
        return ",".join(("index", "count", *(one.asked for one in self.figures), self.reasons))


FORMS = (
    Form((*_FIGURES, _POWER), "clocks_event_reasons.active"),
    Form((*_FIGURES, _POWER), "clocks_throttle_reasons.active"),
    Form(_FIGURES, "clocks_throttle_reasons.active"),
)
"""The newest first: a driver refuses a query that has a word which it does not know."""


def sources() -> list[Source]:
    """What the GPUs of this machine tell; nothing where there is no driver, or it does not answer."""
    for form in FORMS:
        stream = Stream(PROGRAM, f"--query-gpu={form.query}", _FORM, "-lms", _INTERVAL, cut=whole_reports)
        if found := streamed(stream, _channels_of(form), _values_of(form)):
            return found
    return []


def whole_reports(told: str) -> tuple[Sequence[str], str]:
    """Lines that begin with the first GPU and end with the last, each time, and what follows the newest of them."""
    lines, found, after = told.splitlines(keepends=True), [], 0
    for end, line in enumerate(lines, 1):
        count = _counted(line) if line.endswith("\n") else 0
        report = lines[max(after, end - count) : end]
        if count and [_place(one) for one in report] == [(index, count) for index in range(count)]:
            found.append("".join(report))
            after = end
    return found, "".join(lines[after:])


def values(told: str, form: Form = FORMS[0]) -> dict[str, float]:
    """Figures of a report, by channel: °C, MHz, mW, and 1 for what holds a clock down, else 0.

    A line that has not all fields is no line, and one that is told twice tells nothing.
    """
    return {name: value for name, _, value in _figures(told, form) if value is not None}


def channels(told: str, form: Form = FORMS[0]) -> tuple[Channel, ...]:
    """What a report has figures of. What a GPU does not have, ``[N/A]``, is no channel."""
    harm = dict(REASONS.values())
    found = []
    for name, kind, value in _figures(told, form):
        if value is not None:
            what = name.partition(": ")[2]
            noted = 0.0 if kind == "flag" and not harm[what] else None
            found.append(Channel(name=name, kind=kind, source=PROGRAM, harm=kind == "flag" and harm[what], limit=noted))
    return tuple(found)


def facts() -> dict[str, str]:
    """Name and driver, and what somebody sets: the limit of power, persistence."""
    return told_once(said(PROGRAM, f"--query-gpu={_ONCE}", _FORM))


_ONCE = "index,driver_version,power.limit,persistence_mode,name"


def told_once(told: str | None) -> dict[str, str]:
    """Facts of what it says once of each GPU."""
    found: dict[str, list[str]] = {}
    for line in ended(told).splitlines():
        index, *fields = (field.strip() for field in line.split(",", _ONCE.count(",")))
        if not _WHOLE.fullmatch(index) or len(fields) != _ONCE.count(","):
            continue
        driver, limit, persistence, name = fields
        if re.fullmatch(r"\d{3}\.\d{1,3}(?:\.\d{1,3})?", driver, re.ASCII) and re.fullmatch(r"[A-Za-z0-9][\w .()/-]{1,80}", name, re.ASCII):
            found.setdefault("GPUs", []).append(f"{name}, driver {driver}")
        if _NUMBER.fullmatch(limit) and between(float(limit), 1, 5_000) is not None:
            found.setdefault("GPU power limit", []).append(f"{float(limit):g} W")
        if persistence in ("Enabled", "Disabled"):
            found.setdefault("GPU persistence", []).append(persistence.lower())
    return {what: "; ".join(each) for what, each in found.items()}


def _channels_of(form: Form) -> Callable[[str], tuple[Channel, ...]]:
    return lambda told: channels(told, form)


def _values_of(form: Form) -> Callable[[str], dict[str, float]]:
    return lambda told: values(told, form)


def _figures(told: str, form: Form) -> Iterator[tuple[str, Kind, float | None]]:
    lines = [line for line in told.splitlines(keepends=True) if line.endswith("\n")]
    places = [_place(line) for line in lines]
    for line, place in zip(lines, places, strict=True):
        fields = _fields(line)
        if place is None or places.count(place) > 1 or len(fields) != len(form.figures) + 3:
            continue
        if not all(_NUMBER.fullmatch(text) or _NONE.fullmatch(text) for text in fields[2:-1]):
            continue  # a field that is neither a number nor one of the words for none is of a line that something happened to
        reasons = fields[-1]
        gpu = f"GPU {place[0]}"
        for one, text in zip(form.figures, fields[2:-1], strict=True):
            value = between(float(text) * one.factor, one.low, one.high) if _NUMBER.fullmatch(text) else None
            yield f"{gpu} {one.called}", one.kind, value
        if _BITS.fullmatch(reasons):
            bits = int(reasons, 16)
            for bit, (what, _) in REASONS.items():
                yield f"{gpu}: {what}", "flag", float(bool(bits & bit))


def _fields(line: str) -> Sequence[str]:
    return line.rstrip("\n").split(", ")


def _place(line: str) -> tuple[int, int] | None:
    """Which GPU of how many a line is of."""
    first, *others = _fields(line)
    if not others or not _WHOLE.fullmatch(first) or not _WHOLE.fullmatch(others[0]):
        return None
    index, count = int(first), int(others[0])
    return (index, count) if index < count <= _MOST else None


def _counted(line: str) -> int:
    place = _place(line)
    return 0 if place is None else place[1]

"""What a watcher recorded of a device while its latency was taken: facts before and after, and a series for each thing that can be read.

A value that could not be read is None, never 0: a sensor of a unit that sleeps does not say that it is cold, nor an unreadable rail that it
delivers nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, unit

Kind = Literal["temperature", "clock", "power", "energy", "events", "flag", "seconds", "share"]
UNITS: dict[str, str] = {
    "temperature": "°C",
    "clock": "MHz",
    "power": "mW",
    "energy": "µJ",
    "events": "",
    "flag": "",
    "seconds": "s",
    "share": "%",
}
"""Of a channel's values and its limit. ``energy``, ``events`` and ``seconds`` are counted since the device began, ``flag`` is 0 or 1."""
_BY_KIND = "; ".join(f"{called or 'count'} ({kind})" for kind, called in UNITS.items())
"""Which it is depends on the kind."""
CARD = "nvidia-smi"
"""Source of what a graphics card of a PC tells; a Jetson's GPU is part of its chip."""
POWERMETRICS = "powermetrics"
"""Source of what a Mac tells of its power."""
REACH: dict[str, float] = {POWERMETRICS: 0.9}
"""Seconds before a reading from which what it tells may be, of sources of which that is more than the moment of the reading."""
NOT_WATCHED = "not watched"
"""The fact that names what a device has beyond what can be watched."""
LARGEST = 1e15
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
"""Of a sensor: more than any has, and little enough to add up."""
Name = Annotated[str, msgspec.Meta(max_length=200)]


class Channel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that was read again and again.

    Attributes:
        name: of the sensor, rail or counter, as the device calls it.
        kind: what it is, and so its unit (`UNITS`).
        source: the file or the tool that it was read from.
        harm: whether an event or a flag of it means that the device held itself back, so that a latency is of another device.
        limit: of a temperature, that from which on the device holds itself back; of a counter of energy, its last value before 0; of time
            that is lost, the share of sampling from which on it is worth a word; of a flag that does no harm, beyond which it is.
        values: one for each time; None where it did not answer.
    """

    name: Name
    kind: Kind
    source: Name
    harm: bool = False
    limit: Annotated[Number, unit(_BY_KIND)] | None = None
    values: tuple[Annotated[Number, unit(_BY_KIND)] | None, ...] = ()

    @property
    def unit(self) -> str:
        return UNITS[self.kind]

    @property
    def judges(self) -> bool:
        """Whether what it says can make a latency INVALID: while it is silent, nobody knows whether it would."""
        return self.harm or (self.kind == "temperature" and self.limit is not None)


class Watched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a device around one measurement.

    Attributes:
        before, after: what it said of itself then.
        times_s: when the channels were read, in seconds since sampling began; those of before are negative.
        sampled_s: when sampling ended, on the same clock.
        channels: what was read.
        failure: why nobody watched to the end; empty where somebody did.
    """

    before: dict[str, str] = {}
    after: dict[str, str] = {}
    times_s: tuple[Number, ...] = ()
    sampled_s: Amount = 0.0
    channels: tuple[Channel, ...] = ()
    failure: Name = ""

    @property
    def of_processor(self) -> Watched:
        """The same without the graphics cards: what they do says nothing of a latency that none of them has a part in."""
        facts = ({name: said for name, said in each.items() if not name.startswith("GPU ")} for each in (self.before, self.after))
        before, after = facts
        channels = tuple(one for one in self.channels if one.source != CARD)
        return msgspec.structs.replace(self, before=before, after=after, channels=channels)

    def during(self, channel: Channel) -> list[tuple[float, float]]:
        """Times and values of a channel while samples were taken, those that could be read."""
        return [(at, value) for at, value in self._read(channel) if 0 <= at <= self.sampled_s]

    def around(self, channel: Channel) -> list[tuple[float, float]]:
        """As `during`, with the last reading before that and the first after it: what was counted in between happened meanwhile."""
        known = self._read(channel)
        first = max((at for at, _ in known if at <= 0), default=0.0)
        last = min((at for at, _ in known if at >= self.sampled_s), default=self.sampled_s)
        return [(at, value) for at, value in known if first <= at <= last]

    def rise(self, channel: Channel) -> float | None:
        """By how much a counter rose while samples were taken; what it lost in between, when it began anew, is not counted."""
        values = [value for _, value in self.around(channel)]
        if len(values) < 2:
            return None
        return sum(max(0.0, later - earlier) for earlier, later in pairwise(values))

    def _read(self, channel: Channel) -> list[tuple[float, float]]:
        return [(at, value) for at, value in zip(self.times_s, channel.values, strict=False) if value is not None]

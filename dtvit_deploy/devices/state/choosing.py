"""Which channels are watched, where a machine has more than can be read twice a second: those first by which a figure is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.harness.state.record import Channel
from dtvit_deploy.plural import counted

MOST = 120
"""Channels: more than most devices have (a machine with eight GPUs has about a hundred), and few enough to be read twice a second."""
MOST_TEMPERATURES = 30
"""Of those, so that a board with a hundred thermal zones has its clocks and rails watched, too."""
_NAMED = 3


class Chosen(NamedTuple):
    """Sources with the channels that are watched, and the names of those that are not."""

    sources: list[Source]
    dropped: tuple[str, ...]

    @property
    def told(self) -> str:
        """What is not watched, in words; empty where everything is."""
        if not self.dropped:
            return ""
        others = len(self.dropped) - _NAMED
        return f"{counted(len(self.dropped), 'channel')}, {', '.join(self.dropped[:_NAMED])}" + (
            f" and {others} others" if others > 0 else ""
        )


def chosen(found: Sequence[Source]) -> Chosen:
    """At most `MOST` channels and `MOST_TEMPERATURES` temperatures, those that judge first. A source of which nothing is left is closed;
    what costs a process is read last, so that it delays nothing that is told with the same time.
    """
    every = [(_rank(channel), number, place) for number, one in enumerate(found) for place, channel in enumerate(one.channels)]
    kept: dict[int, list[int]] = {}
    temperatures = count = 0
    for _, number, place in sorted(every):
        hot = found[number].channels[place].kind == "temperature"
        if count < MOST and not (hot and temperatures == MOST_TEMPERATURES):
            kept.setdefault(number, []).append(place)
            count, temperatures = count + 1, temperatures + hot
    for number, one in enumerate(found):
        if number not in kept:
            one.close()
    dropped = tuple(found[number].channels[place].name for _, number, place in every if place not in kept.get(number, ()))
    narrowed = [_narrowed(found[number], sorted(places)) for number, places in sorted(kept.items())]
    return Chosen(sorted(narrowed, key=lambda one: one.every > 0), dropped)


def _rank(channel: Channel) -> int:
    return 0 if channel.harm else 1 if channel.judges else 3 if channel.kind == "temperature" else 2


def _narrowed(source: Source, places: list[int]) -> Source:
    if len(places) == len(source.channels):
        return source
    return source._replace(channels=tuple(source.channels[place] for place in places), read=_some(source.read, places))


def _some(read: Callable[[], Sequence[float | None]], places: list[int]) -> Callable[[], list[float | None]]:
    def some() -> list[float | None]:
        values = read()
        return [values[place] for place in places]

    return some

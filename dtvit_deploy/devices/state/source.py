"""What a watcher reads: a source gives a value for each of its channels at once, None for what it cannot tell now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.devices.files import source
from dtvit_deploy.harness.state.record import Channel, Kind


class Source(NamedTuple):
    """Channels that are read together.

    Attributes:
        channels: what they are, without values.
        read: their values now, one for each.
        every: seconds from one call of it to the next, for what costs more than reading a file.
        close: ends what it started; called once.
    """

    channels: tuple[Channel, ...]
    read: Callable[[], Sequence[float | None]]
    every: float = 0.0
    close: Callable[[], None] = lambda: None


def single(
    name: str, kind: Kind, where: tuple[Path, Path], read: Callable[[], float | None], *, harm: bool = False, limit: float | None = None
) -> Source:
    """A source of one channel; ``where`` is the root of the device's tree and the file in it."""
    channel = Channel(name=name[:200], kind=kind, source=source(*where)[:200], harm=harm, limit=limit)
    return Source((channel,), lambda: (read(),))

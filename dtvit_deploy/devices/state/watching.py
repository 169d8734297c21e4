"""The watcher's own process: tells what there is, then a line of values twice a second, until its standard input ends.

It is a process and no thread: a thread would take the interpreter from the runs that are timed, and could not be seen to have died.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dtvit_deploy.devices.files import between
from dtvit_deploy.devices.state.everything import facts, watched
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.harness.state.record import LARGEST, NOT_WATCHED

INTERVAL = 0.5
"""Seconds between two readings, at first."""
_GROWTH = 1200
"""A measurement of an hour has no more readings than it needs: the interval grows to such a part of what has passed."""
_LONGEST = 2.5
_NICE = 10


def main(root: str, interval: str) -> None:
    """Watch until standard input ends.

    The first line has ``before`` and ``channels``, each further one the seconds of the system's monotonic clock and a value for each
    channel, the last one ``after``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever measures, and its end ends this
    place = Path(root)
    kept = watched(place)
    found = kept.sources
    channels = [channel for one in found for channel in one.channels]
    unwatched = {NOT_WATCHED: kept.told} if kept.told else {}
    _say({"before": facts(place) | unwatched, "channels": msgspec.to_builtins(channels)})
    with contextlib.ExitStack() as stack:
        for one in found:
            stack.callback(one.close)
        with contextlib.suppress(OSError):
            os.nice(_NICE)
        began, due = time.monotonic(), [0.0] * len(found)
        while True:
            now = time.monotonic()
            _say([now, *_read(found, due, now - began)])
            wait = min(max(float(interval), (now - began) / _GROWTH), _LONGEST)
            if select.select([0], [], [], wait)[0]:
                break
        _say([time.monotonic(), *_read(found, [0.0] * len(found), 0.0)])
    _say({"after": facts(place)})


def _read(found: Sequence[Source], due: list[float], now: float) -> Iterator[float | None]:
    """Values of all channels; None for those of a source whose turn it is not, and for what is more than a record may hold."""
    for index, one in enumerate(found):
        if now < due[index]:
            yield from [None] * len(one.channels)
            continue
        due[index] = now + one.every
        yield from (between(value, -LARGEST, LARGEST) for value in one.read())


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()

"""A program of the device that goes on telling: figures are those of its newest whole report, and a flag is on that was on in any since the
last reading.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.tools import program
from dtvit_deploy.harness.state.record import Channel

_PATIENCE = 3.0
"""Seconds for the first report."""
_LOOKS = 0.05
_LARGEST = 1 << 18
"""Bytes of a report that has no end: what is older goes. And of one reading: a program that floods its pipe is read no further."""

Cut = Callable[[str], tuple[Sequence[str], str]]
"""The whole reports in a text, the newest last, and what follows them."""


def each_line(said: str) -> tuple[Sequence[str], str]:
    """Of a program that tells a line at a time."""
    *whole, rest = said.split("\n")
    return [f"{line}\n" for line in whole], rest


class Stream:
    """Such a program while it runs; none where it is not there, or does not start."""

    def __init__(self, *command: str, cut: Cut = each_line) -> None:
        self._cut, self._left = cut, ""
        self._process: subprocess.Popen[bytes] | None = None
        if (path := program(command[0])) is not None:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [path, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )

    def reports(self) -> Sequence[str]:
        """What it has told since the last call, the newest last; nothing where it has told nothing whole."""
        if self._process is None or self._process.stdout is None:
            return ()
        file, told = self._process.stdout.fileno(), b""
        os.set_blocking(file, False)
        with contextlib.suppress(BlockingIOError):
            while len(told) < _LARGEST and (piece := os.read(file, 1 << 16)):
                told += piece
        found, self._left = self._cut(self._left + told.decode(errors="replace"))
        self._left = self._left[-_LARGEST:]
        return found

    def first(self) -> str | None:
        """The first report, waited for."""
        until = time.monotonic() + _PATIENCE
        while self._process is not None and time.monotonic() < until:
            ended = self._process.poll() is not None
            if (found := self.reports()) or ended:
                return found[-1] if found else None
            time.sleep(_LOOKS)
        return None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def streamed(stream: Stream, told: Callable[[str], tuple[Channel, ...]], values: Callable[[str], Mapping[str, float]]) -> list[Source]:
    """A source of the channels that its first report has; none where there is no report."""
    report = stream.first()
    channels = () if report is None else told(report)
    if not channels:
        stream.close()
        return []

    def read() -> list[float | None]:
        every = [values(one) for one in stream.reports()]
        newest = every[-1] if every else {}
        return [_seen(every, one.name) if one.kind == "flag" else newest.get(one.name) for one in channels]

    return [Source(channels, read, close=stream.close)]


def _seen(every: Sequence[Mapping[str, float]], flag: str) -> float | None:
    """Whether a flag was on in any report: what came and went between two readings held the device back all the same."""
    return max((one[flag] for one in every if flag in one), default=None)

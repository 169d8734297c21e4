"""A program of the device that goes on telling, of which the newest whole report counts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping

from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.tools import program
from dtvit_deploy.harness.state.record import Channel

_PATIENCE = 3.0
"""Seconds for the first report."""
_LOOKS = 0.05
_LARGEST = 1 << 18
"""Bytes of a report that has no end: what is older goes."""

Cut = Callable[[str], tuple[str | None, str]]
"""The newest whole report in a text, if there is one, and what follows it."""


def last_line(said: str) -> tuple[str | None, str]:
    """Of a program that tells a line at a time."""
    whole, end, rest = said.rpartition("\n")
    return (whole.rpartition("\n")[2] + "\n", rest) if end else (None, said)


class Stream:
    """Such a program while it runs; none where it is not there, or does not start."""

    def __init__(self, *command: str, cut: Cut = last_line) -> None:
        self._cut, self._left = cut, ""
        self._process: subprocess.Popen[bytes] | None = None
        if (path := program(command[0])) is not None:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [path, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )

    def newest(self) -> str | None:
        """What it has told since the last call; None where it has told nothing whole."""
        if self._process is None or self._process.stdout is None:
            return None
        file, pieces = self._process.stdout.fileno(), []
        os.set_blocking(file, False)
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(file, 1 << 16):
                pieces.append(piece)
        report, self._left = self._cut(self._left + b"".join(pieces).decode(errors="replace"))
        self._left = self._left[-_LARGEST:]
        return report

    def first(self) -> str | None:
        """The first report, waited for."""
        until = time.monotonic() + _PATIENCE
        while self._process is not None and time.monotonic() < until:
            ended = self._process.poll() is not None
            if (report := self.newest()) is not None or ended:
                return report
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
        newest = stream.newest()
        known = {} if newest is None else values(newest)
        return [known.get(channel.name) for channel in channels]

    return [Source(channels, read, close=stream.close)]

"""A watcher beside a measurement: started before it, told to end after it, and seen to have died where it did.

It writes into a file without a name, and not into a pipe, which somebody would have to read while runs are timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from dtvit_deploy.devices.state.watching import INTERVAL
from dtvit_deploy.devices.state.watching import main as _watching
from dtvit_deploy.harness.state.record import Channel, Watched
from dtvit_deploy.process.child import child_command

_WATCH = f"from {_watching.__module__} import main; main(*sys.argv[1:])"
_PATIENCE = 30.0
"""Seconds for the first reading, and for the last words: tools of a device may take some of them, and so may a machine at work."""
_LOOKS = 0.01
_PIECE = 1 << 20


class Watch:
    """One measurement's watcher.

    Args:
        process: that watches; None where it could not be started, for the reason ``why``.
        said: the file that it writes; None where there is none.
    """

    def __init__(self, process: subprocess.Popen[bytes] | None, said: IO[bytes] | None, why: str = "") -> None:
        self._process, self._said, self._why = process, said, why
        self.origin = self._end = time.monotonic()

    def begins(self) -> None:
        """Sampling begins now: times are told since then."""
        self.origin = self._end = time.monotonic()

    def ends(self) -> None:
        """Sampling has ended now."""
        self._end = time.monotonic()

    def sampled(self, began: float, ended: float) -> None:
        """Another process of this machine sampled between these moments of `time.monotonic`, which all processes share."""
        self.origin, self._end = began, ended

    @property
    def rails(self) -> bool:
        """Whether a rail or a counter of energy can be read."""
        return any(one.kind in ("energy", "power") for one in _told(self._lines(), self.origin).channels)

    def finished(self) -> Watched:
        """End watching, and what was seen."""
        stopped = self._stop()
        found = msgspec.structs.replace(_told(self._lines(), self.origin), sampled_s=max(0.0, self._end - self.origin))
        why = self._why
        if self._process is not None and not why and not (stopped and found.after):
            how = _how(self._process.returncode) if stopped else f"did not end within {_PATIENCE:.0f} s when it was told to"
            last = max(found.times_s, default=0.0)
            why = f"it {how} after a reading {last:.1f} s into {found.sampled_s:.1f} s of sampling, without its last words"
        return msgspec.structs.replace(found, failure=why)

    def wait_for_first(self) -> None:
        """Wait until it has read once: what came before the measurement is a part of it."""
        until = time.monotonic() + _PATIENCE
        while self._process is not None and len(self._lines()) < 2:
            if self._process.poll() is not None:
                return
            if time.monotonic() > until:
                self._why = f"it read nothing within {_PATIENCE:.0f} s"
                return
            time.sleep(_LOOKS)

    def _lines(self) -> list[Any]:
        """What it has written, whole lines alone; read without moving the file's offset, which is the writer's too."""
        if self._said is None:
            return []
        file, pieces, at = self._said.fileno(), [], 0
        while piece := os.pread(file, _PIECE, at):
            pieces.append(piece)
            at += len(piece)
        *whole, _ = b"".join(pieces).split(b"\n")
        return [json.loads(line) for line in whole]

    def close(self) -> None:
        """End it at once, where it has not ended."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _stop(self) -> bool:
        """Tell it to end; whether it did, by itself."""
        process = self._process
        if process is None or process.stdin is None:
            return False
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
        return True


@contextlib.contextmanager
def watching(folder: Path | None = None, root: Path = Path("/"), interval: float = INTERVAL) -> Iterator[Watch]:
    """Watch this machine while the block measures; where that cannot be, the record says why.

    Args:
        folder: where the file without a name may lie; else where the system has its temporary files.
        root: what stands for the machine's file tree.
        interval: seconds between two readings, at first.
    """
    process, said, why = None, None, ""
    with contextlib.ExitStack() as stack:
        try:
            said = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            command = child_command(_WATCH, str(root), str(interval))
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.DEVNULL)
        except OSError as error:
            why = f"it could not be started: {error.strerror}"
        watch = Watch(process, said, why)
        try:
            watch.wait_for_first()
            yield watch
        finally:
            watch.close()


def _told(lines: list[Any], origin: float) -> Watched:
    if not lines:
        return Watched()
    first = lines[0]
    readings = [line for line in lines[1:] if isinstance(line, list)]
    channels = msgspec.convert(first["channels"], list[Channel])
    series = [tuple(reading[place + 1] for reading in readings) for place in range(len(channels))]
    return Watched(
        before=first["before"],
        after=lines[-1]["after"] if isinstance(lines[-1], dict) and "after" in lines[-1] else {},
        times_s=tuple(reading[0] - origin for reading in readings),
        channels=tuple(msgspec.structs.replace(channel, values=values) for channel, values in zip(channels, series, strict=True)),
    )


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"

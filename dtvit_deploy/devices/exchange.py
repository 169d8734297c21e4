"""One command of this machine with its three streams: what it is given, what it answers, within bounds of size and time.

A transport is such a command: a shell, or the ssh client. Each gets a session of its own, so that Ctrl-C in the terminal reaches this
process alone, which then ends the command in its own order; nothing can ask a question on the terminal either.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

ANSWER = 16 << 20
"""Bytes that a command may answer; more is no answer to anything that is asked here, and would only fill the memory."""
WORDS = 64 << 10
"""Bytes that are kept of what it says on standard error: the last ones, where the reason is."""
_PIECE = 64 << 10
_LOOKS = 0.1
"""Seconds between two looks at whether a command that says no more, and is still to be given something, has ended."""
_GRACE = 2.0
"""Seconds that a command has to end by itself once it is asked to."""


class Finished(NamedTuple):
    """How a command ended: its exit status (negative: the signal that ended it), its standard output, and the end of its standard error."""

    returncode: int
    stdout: bytes
    stderr: bytes


class TooLongError(Exception):
    """The command answered more than `ANSWER`, and was ended."""


def exchange(
    command: Sequence[str],
    *,
    stdin: bytes | BinaryIO = b"",
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Finished:
    """Run a command to its end, feeding it while it answers: neither side waits for the other.

    Args:
        command: the program and its arguments; no shell reads them.
        stdin: what it is given; a file is read piece by piece.
        timeout: seconds until it is ended; None: it has the time that it takes.
        environment: its variables; None: those of this process.
        folder: where it runs; None: where this process does.

    Raises:
        OSError: the program cannot be started, or ``stdin`` cannot be read.
        TimeoutError: it had not ended by then, and was ended.
        TooLongError: it answered more than it may.
    """
    until = None if timeout is None else time.monotonic() + timeout
    source: BinaryIO = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
    with _started(command, environment, folder, stderr=subprocess.PIPE) as process:
        answer, words = _streamed(process, source, until)
        try:
            status = process.wait(None if until is None else max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        return Finished(status, answer, words)


@contextlib.contextmanager
def followed(command: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Iterator[BinaryIO]:
    """The standard output of a command while it runs; the command is ended with the block.

    Its standard input stays open until then, and is closed first: a command that reads there finds out that nobody follows it, also where
    this process was killed.

    Raises:
        OSError: the program cannot be started.
    """
    with _started(command, environment, folder, stderr=subprocess.DEVNULL) as process:
        yield cast(BinaryIO, process.stdout)


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str] | None, folder: Path | None, *, stderr: int
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command that was started in a session of its own: its streams first, then it is asked, then all of it goes by force.

    What it has started may outlive it: a client that is asked in the wrong moment hears it only with its next sign of life.
    """
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _streamed(process: subprocess.Popen[bytes], source: BinaryIO, until: float | None) -> tuple[bytes, bytes]:
    """Feed the command and take what it says, until it has closed both of its outputs, and has taken or left what it is given."""
    given, answered, said = (cast(io.BufferedIOBase, stream).fileno() for stream in (process.stdin, process.stdout, process.stderr))
    answer, words, waiting = bytearray(), bytearray(), memoryview(b"")
    with selectors.DefaultSelector() as ready:
        os.set_blocking(given, False)
        ready.register(given, selectors.EVENT_WRITE)
        ready.register(answered, selectors.EVENT_READ)
        ready.register(said, selectors.EVENT_READ)
        outputs = {answered, said}
        while outputs or (given in ready.get_map() and process.poll() is None):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            for key, _ in ready.select(left if outputs else _LOOKS):
                if key.fd == given:
                    waiting = waiting or memoryview(source.read(_PIECE))
                    taken = _taken(given, waiting)
                    if not taken:
                        ready.unregister(given)
                        cast(io.BufferedIOBase, process.stdin).close()
                    waiting = waiting[taken:]
                    continue
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    ready.unregister(key.fd)
                    outputs.discard(key.fd)
                elif key.fd == answered:
                    answer += piece
                    if len(answer) > ANSWER:
                        raise TooLongError
                else:
                    words = (words + piece)[-WORDS:]
    return bytes(answer), bytes(words)


def _taken(given: int, piece: memoryview) -> int:
    """How many bytes of it the command took; 0 where there are none, or it reads no more."""
    try:
        return os.write(given, piece) if piece else 0
    except BrokenPipeError:  # it ended, or closed its input: its answer tells why
        return 0

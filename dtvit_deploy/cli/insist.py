"""A request to end is met although the main thread does not come back: it may be inside a vendor's compiler for an hour.

Python calls a signal's handler in the main thread, between two of its own instructions. What the C part of that handler does at once is
to write the signal's number to a pipe, and a thread that waits at its other end needs the main thread for nothing. It gives it time to
unwind, which removes more than this can, says the same sentence, and ends the process.

A native call that holds Python's lock holds this thread up too. Those of our dependencies that take long do not hold it; what graphs from
elsewhere make of the others happens in a process of its own (`dtvit_deploy.runtimes.trial`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection

from dtvit_deploy.process.ending import remove_all

PATIENCE = 1.0
"""Seconds that the main thread gets: with those of `dtvit_deploy.process.ending` and what the system takes to free memory, less than 3."""


_LAST_WORD = threading.Lock()
"""Taken, for good, by whoever says it: the main thread may come to its end while the other one loses patience."""


def may_say_the_last_word() -> bool:
    """Whether nobody has said it yet; the caller does, at once."""
    return _LAST_WORD.acquire(blocking=False)


def insist(numbers: Collection[int], last_word: Callable[[int], str]) -> None:
    """From now on, end the process if one of these signals came and the main thread did not end it.

    Args:
        numbers: of the signals; others that arrive are none of this thread's.
        last_word: the line that is written to standard error, by the signal's number.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_let_go)
    threading.Thread(target=_wait, args=(reader, frozenset(numbers), last_word), name="insist", daemon=True).start()


def _let_go() -> None:
    """In a forked process: a signal that it gets must not be taken for one of its parent's, with which it shares the pipe."""
    signal.set_wakeup_fd(-1)  # whichever thread forked is the main one there


def _wait(reader: int, numbers: frozenset[int], last_word: Callable[[int], str]) -> None:
    while arrived := os.read(reader, 1):
        if arrived[0] in numbers:
            time.sleep(PATIENCE)
            end_now(arrived[0], last_word(arrived[0]))


def end_now(number: int, said: str) -> None:
    """Remove what the blocks that are open would have removed, and end the process as a signal of that number does."""
    clean = remove_all()
    if may_say_the_last_word():
        with contextlib.suppress(OSError):
            # Past Python's own stream, whose lock the main thread may hold.
            os.write(2, f"{said if clean else said.partition(';')[0]}\n".encode())
    else:
        time.sleep(0.1)  # it is being written
    os._exit(128 + number)

"""What must be removed when the process ends without unwinding: while a vendor's native code runs, no ``with`` block is left.

Python runs a signal's handler between two of its own instructions. Where the main thread is inside a compiler for a minute, it does so
after that minute; whoever asked the process to end gets it killed by then, and finds what was half written. So another thread ends it
(`dtvit_deploy.cli.insist`), and what the blocks would have removed is removed from here.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

SECONDS = 1.0
"""How long the end waits for names that are being changed right now; after that, what a killed process leaves is left."""
changing_names = threading.RLock()
"""Held while finished files get their names, and folders that must go again are made: the end comes before or after that."""
_removals: dict[object, Callable[[], None]] = {}


@contextlib.contextmanager
def removed_at_the_end(removal: Callable[[], None]) -> Iterator[None]:
    """Have ``removal`` called when the block ends, and where the process ends first: by force, while the block runs, in another thread.

    It is called again where it did not come to its end: a request to end may come at the last moment before it begins.
    """
    key = object()
    _removals[key] = removal
    try:
        yield
    finally:
        with uninterrupted():
            removal()
            _removals.pop(key, None)


def remove_all() -> bool:
    """Remove what the open blocks would, and let nothing get a name from now on: the process ends next.

    Returns:
        False where files were still getting their names, so that nothing was touched; the next writer removes what is left, as after a
        kill.
    """
    if not changing_names.acquire(timeout=SECONDS):
        return False
    for removal in reversed(list(_removals.values())):
        with contextlib.suppress(Exception):  # whatever one of them runs into, the others still have theirs to remove
            removal()
    return True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C and requests to end waiting until the block is done; only the main thread is ever interrupted by them.

    By handlers and not by the thread's mask: a signal that one thread masks is given to another, and Python's handler then runs in the main
    thread all the same.
    """
    waiting: list[int] = []
    with contextlib.ExitStack() as at_end:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                former = signal.getsignal(number)
                if former is not None:  # None: set by an embedding program in C, and impossible to put back
                    signal.signal(number, lambda given, _: waiting.append(given))
                    at_end.callback(signal.signal, number, former)
        try:
            yield
        finally:
            at_end.close()
            for caught in waiting:
                signal.raise_signal(caught)

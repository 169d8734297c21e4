"""Who may work on this machine now: many side by side, or one that measures time, alone.

Locks of files, which the kernel drops with the process that holds them, however it ends. They bind the processes of this user that share
the folder: other plans on the machine, and the workers of a farm there. Others' work is not seen; a measurement that it disturbs is told
by its spread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from dtvit_deploy.errors import InputError

MACHINE = "machine"
"""Folder beside a cache's entries, for the locks of who works and who measures."""
WAITING = "waiting for others that work on this machine"


@contextlib.contextmanager
def at_work(folder: Path, say: Callable[[str], None], *, alone: bool) -> Iterator[None]:
    """Within the block nobody measures time on this machine; or, ``alone``, nobody else works at all.

    Who would be alone keeps newcomers out while it waits for those at work, so that it comes to its turn.

    Args:
        folder: where the locks are; a private one, which may be shared with other machines.
        say: called with `WAITING` where there is somebody to wait for.

    Raises:
        InputError: the locks cannot be opened.
    """
    machine = re.sub(r"[^\w.-]", "_", platform.node()) or "machine"
    with contextlib.ExitStack() as held:
        files = [_opened(folder / f"{machine}.{name}") for name in ("door", "room")]
        door, room = (held.enter_context(os.fdopen(file)) for file in files)
        _lock(door.fileno(), fcntl.LOCK_EX, say)
        _lock(room.fileno(), fcntl.LOCK_EX if alone else fcntl.LOCK_SH, say)
        if not alone:
            _unlock(door.fileno())
        yield


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"{path}, a lock, cannot be opened: {error.strerror}", remedy="remove it, or what is in its way") from error


def _lock(file: int, kind: int, say: Callable[[str], None]) -> None:
    with contextlib.suppress(OSError):  # of a file system without locks: then nobody is kept out
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            say(WAITING)
            fcntl.flock(file, kind)


def _unlock(file: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)

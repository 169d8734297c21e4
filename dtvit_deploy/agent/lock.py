"""Who works at a job: a lock of a file in its folder, which the kernel drops with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "lock"


def locked(folder: Path) -> int | None:
    """The open file of a job's lock, held as long as it is open here or in who it is handed to; None where somebody has it.

    Who worked there before is no longer written in it.
    """
    file = _opened(folder)
    if file is None or not _locks(file, fcntl.LOCK_EX):
        return None
    os.ftruncate(file, 0)
    return file


def alive(folder: Path) -> bool:
    """Whether somebody works at a job, or is about to."""
    if not (folder / NAME).exists():
        return False
    file = _opened(folder)
    if file is None or not _locks(file, fcntl.LOCK_SH):  # shared, so that of two who look neither takes the other for a worker
        return True
    os.close(file)
    return False


def worker(folder: Path) -> int | None:
    """The process that works at a job, and leads a group of its own; None where it is not known, or nobody does."""
    try:
        number = int((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return number if number > 1 and alive(folder) else None


def say_who_works(lock: int, process: int) -> None:
    """Write down, in a lock that is held, for whom it is."""
    os.pwrite(lock, str(process).encode(), 0)


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _locks(file: int, kind: int) -> bool:
    """Lock an open file; it is closed where somebody else has locked it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True

"""Who works at a job: a lock of a file in its folder, which the kernel drops with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "lock"


def locked(folder: Path) -> int | None:
    """The open file of a job's lock, held as long as it is open here or in who it is handed to; None where somebody has it."""
    try:
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def alive(folder: Path) -> bool:
    """Whether somebody works at a job."""
    if not (folder / NAME).exists():
        return False
    lock = locked(folder)
    if lock is None:
        return True
    os.close(lock)
    return False

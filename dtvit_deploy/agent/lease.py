"""Who has the device: one at a time, of all its users, so that no figure is taken beside another's job.

An exclusive lock on a file that every user may open, which the kernel drops with the process that holds it. Who that is, and since when, is
written in the file for others to be told; since anybody can write it, it is never believed, only shown.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.words import clean

PLACE = "DTVIT_DEPLOY_LEASE"
"""Variable that names another file: for several devices that are one machine."""
_NAME = "dtvit-deploy-device.lock"
_LOOKS = 0.25
"""Seconds between two tries of who waits."""
_TRIES = 5
_TELLS = 5.0
"""Seconds between two reports of whom one waits for."""


class Holder(NamedTuple):
    """Who has the device, as they say, since when by its clock, which may be wrong; empty where they do not say."""

    who: str
    since: str

    def __str__(self) -> str:
        return f"{self.who or 'somebody who does not say'} has the device {self.since or 'since a time that is not told'}"


def place() -> Path:
    """The file, the same for every user of the machine."""
    if chosen := os.environ.get(PLACE):
        return Path(chosen)
    for folder in (Path("/run/lock"), Path("/tmp")):
        with contextlib.suppress(OSError):
            if folder.stat().st_mode & (stat.S_ISVTX | stat.S_IWOTH) == stat.S_ISVTX | stat.S_IWOTH:
                return folder / _NAME
    return Path("/tmp") / _NAME


def try_lease(who: str) -> int | None:
    """The lock's open file, where nobody has it; it is held for as long as that is open, here or in a process that it is handed to.

    Raises:
        MissingError: the file cannot be opened.
    """
    file = _opened()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    if not _is_the_file(file):  # it was removed meanwhile, and others lock another one
        os.close(file)
        return None
    said = f"{clean(who)[:200]}\nsince {time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n"
    with contextlib.suppress(OSError):  # of another user's file that may only be read: then nothing is told
        os.ftruncate(file, 0)
        os.pwrite(file, said.encode(), 0)
    return file


def wait_for_lease(who: str, say: Callable[[str], None]) -> int:
    """As `try_lease`, once nobody else has it; ``say`` is told now and then who does."""
    told = 0.0
    while (file := try_lease(who)) is None:
        if time.monotonic() - told > _TELLS or not told:
            told = time.monotonic()
            if (other := holder()) is not None:
                say(str(other))
        time.sleep(_LOOKS)
    return file


def require_lease(who: str) -> int:
    """As `try_lease`, for who will not wait.

    Raises:
        MissingError: somebody has it.
    """
    for _ in range(_TRIES):
        if (file := try_lease(who)) is not None:
            return file
        time.sleep(_LOOKS / _TRIES)  # somebody may only have looked who has it
    raise MissingError(str(holder() or "somebody has the device"), remedy="wait for them (without --no-wait), or ask them")


def give_up() -> None:
    """Remove the file, where nobody has the lease; whoever has opened it meanwhile sees that it is no longer the one, and opens another."""
    file = try_lease("")
    if file is not None:
        with contextlib.suppress(OSError):  # another user's, which is theirs to remove
            place().unlink()
        os.close(file)


def holder() -> Holder | None:
    """Who has the device; None where nobody does.

    Raises:
        MissingError: the file cannot be opened.
    """
    file = _opened()
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _said(os.pread(file, 1000, 0))
        return None
    finally:
        os.close(file)


def _is_the_file(file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(place()))
    except OSError:
        return False


def _said(content: bytes) -> Holder:
    who, since, *_ = [clean(line)[:200] for line in content.decode(errors="replace").split("\n")] + [""]
    return Holder(who, since)


def _opened() -> int:
    """The lock's file. It is made only where it is not there: a system may forbid to open a file of another user's with O_CREAT in a folder
    that all may write, root too.
    """
    path = place()
    always = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        try:
            file = os.open(path, flags | always, 0o666)
        except OSError as error:
            why = error
            continue
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(file)
            raise InputError(f"{path}, the lock of this device, is not a file of its own", remedy=f"see who made it, and remove {path}")
        if flags & os.O_CREAT:
            with contextlib.suppress(OSError):
                os.fchmod(file, 0o666)  # whatever the umask says
        return file
    raise MissingError(f"{path}, the lock of this device, cannot be opened: {why.strerror}", remedy=f"remove {path}, or what is in its way")

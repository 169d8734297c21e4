"""The process that locks clocks and gives them back: when its standard input ends, whatever ended whoever holds the other end.

It is not one of `child_command`, which end with their parent: this one outlives it. What it changes is on disk before it is changed, in a
folder that a reboot empties, as it does the changes. A lock on that file ends with this process, so that whoever finds the file without a
lock gives back what a killed one left.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from dtvit_deploy.devices.clocks.setting import FOLDER
from dtvit_deploy.devices.clocks.wanted import Kept, has_any, wanted
from dtvit_deploy.errors import DeployError

RECORD = f"{FOLDER}/clocks.json"
"""Below the root. Everybody may see that there is one."""
PATIENCE = 20.0
"""Seconds that a guard whose command has just been killed has to give back."""
_LOOKS = 0.05
LOCKED, REFUSED, RESTORED = "locked", "refused", "restored"


def main(root: str, patience: str) -> None:
    """Lock, say so in one line, wait for the end of standard input, give back, say so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    place = Path(root)
    try:
        if not has_any(place):  # then nothing is written either
            wanted(place)
        file = open_record(place)
    except DeployError as error:
        _say(REFUSED, str(error), error.remedy)
        return
    except OSError as error:
        _say(REFUSED, f"clocks cannot be locked: /{RECORD}, where it is kept what was, cannot be written: {error.strerror}")
        return
    with file:
        if not _held(file, float(patience)):
            _say(REFUSED, "clocks cannot be locked: another command has them locked now")
            return
        left = give_back_of(place, file)
        if left:
            _say(REFUSED, f"clocks cannot be locked: what an earlier command left could not be given back: {', '.join(left)}")
            return
        try:
            found = wanted(place)
        except DeployError as error:
            _say(REFUSED, str(error), error.remedy)
            return
        _keep(file, found.settings)
        for one in found.settings:
            if why := one.lock(place):
                left = give_back_of(place, file)
                also = f"; and could not be given back: {', '.join(left)}" if left else ""
                _say(REFUSED, f"clocks cannot be locked: {why}{also}")
                return
        _say(LOCKED, found.how)
        sys.stdin.buffer.read()
        moved = [what for one in found.settings for what in one.moved(place)]
        left = give_back_of(place, file)
        _say(RESTORED, json.dumps({"moved": moved, "left": left}))


def give_back_left(root: Path = Path("/"), patience: float = PATIENCE) -> list[str]:
    """Give back what a guard that was killed left, where there is any and this user may; what did not take it.

    Args:
        root: what stands for the machine's file tree.
        patience: seconds that one which gives back now is waited for.
    """
    path = root / RECORD
    if not os.access(path, os.R_OK | os.W_OK):
        return []
    try:
        file = open_record(root)
    except OSError:  # none of ours
        return []
    with file:
        return give_back_of(root, file) if _held(file, patience) else []


def locked_by_another(root: Path = Path("/")) -> bool:
    """Whether somebody holds the clocks now, or left them so, and this user cannot give them back."""
    try:
        return (root / RECORD).stat().st_size > 0
    except OSError:
        return False


def give_back_of(root: Path, file: IO[str]) -> list[str]:
    """Give back what a record has, and empty it; what could not be stays in it."""
    file.seek(0)
    said = file.read()
    try:
        settings = msgspec.json.decode(said, type=list[Kept]) if said else []
    except msgspec.ValidationError:
        return [f"what another version of dtvit-deploy left in /{RECORD}"]
    except msgspec.MsgspecError:  # it was cut, and so nothing had been changed yet
        settings = []
    found = [(one, one.give_back(root)) for one in reversed(settings)]
    _keep(file, [one for one, left in reversed(found) if left])
    return [what for _, left in found for what in left]


def open_record(root: Path) -> IO[str]:
    """The record, made where there is none.

    Raises:
        OSError: this user may not, or somebody else may write what stands in it.
    """
    path = root / RECORD
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _require_ours(path.parent.stat())
    # Not blocking: a pipe of that name would be waited for.
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        status = os.fstat(number)
        _require_ours(status)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(1, "it is no file")
        return os.fdopen(number, "r+", errors="replace")
    except BaseException:
        os.close(number)
        raise


def _require_ours(status: os.stat_result) -> None:
    """What stands in the record is written into the kernel's files: nobody else may write there."""
    if status.st_uid != os.geteuid():
        raise PermissionError(1, "it is another user's")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(1, "others may write there")


def _held(file: IO[str], patience: float) -> bool:
    """Whether the record is ours now: who had it may be about to give back."""
    until = time.monotonic() + patience
    while not _is_ours(file):
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOKS)
    return True


def _is_ours(file: IO[str]) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _keep(file: IO[str], settings: Sequence[Kept]) -> None:
    """Whole on disk before anything follows from it."""
    file.seek(0)
    file.truncate()
    if settings:
        file.write(msgspec.json.encode(settings).decode())
    file.flush()
    os.fsync(file.fileno())


def _say(word: str, more: str, remedy: str | None = None) -> None:
    told = json.dumps([more, remedy]) if word == REFUSED else more
    try:
        sys.stdout.write(f"{word} {told}\n")
        sys.stdout.flush()
    except OSError:  # nobody listens any more, and that is no reason to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

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
import sys
from pathlib import Path
from typing import IO

import msgspec

from dtvit_deploy.devices.clocks.settings import Setting, given_back, how, put, wanted
from dtvit_deploy.errors import DeployError

RECORD = "run/dtvit-deploy/clocks.json"
"""Below the root; only root writes in its folder, since root writes into files what stands in it. Everybody may see that there is one."""
LOCKED, REFUSED, RESTORED = "locked", "refused", "restored"


def main(root: str) -> None:
    """Lock, say so in one line, wait for the end of standard input, give back, say so."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    place = Path(root)
    try:
        file = open_record(place)
    except OSError as error:
        _say(REFUSED, f"clocks cannot be locked: /{RECORD}, where it is kept what was, cannot be written: {error.strerror}")
        return
    with file:
        if not _held(file):
            _say(REFUSED, "clocks cannot be locked: another command has them locked now")
            return
        left = give_back_of(place, file)
        if left:
            _say(REFUSED, f"clocks cannot be locked: what an earlier command left could not be given back: {', '.join(left)}")
            return
        try:
            settings = wanted(place)
        except DeployError as error:
            _say(REFUSED, str(error))
            return
        _keep(file, settings)
        refused = next((one for one in settings if not put(place, one.path, one.locked)), None)
        if refused is not None:
            given_back(place, settings)
            _keep(file, [])
            _say(REFUSED, f"clocks cannot be locked: /{refused.path} does not take {refused.locked}")
            return
        _say(LOCKED, how(settings))
        sys.stdin.buffer.read()
        moved = [f"/{one.path}" for one in settings if put_by_others(place, one)]
        left = give_back_of(place, file)
        _say(RESTORED, json.dumps({"moved": moved, "left": left}))


def put_by_others(root: Path, one: Setting) -> bool:
    """Whether a file does no longer say what it was locked to."""
    try:
        return (root / one.path).read_text().strip() != one.locked
    except OSError:
        return True


def give_back_left(root: Path = Path("/")) -> list[str]:
    """Give back what a guard that was killed left, where there is any and this user may; the files that did not take it."""
    path = root / RECORD
    if not os.access(path, os.R_OK | os.W_OK):
        return []
    with open_record(root) as file:
        return give_back_of(root, file) if _held(file) else []


def locked_by_another(root: Path = Path("/")) -> bool:
    """Whether somebody holds the clocks now, or left them so, and this user cannot give them back."""
    try:
        return (root / RECORD).stat().st_size > 0
    except OSError:
        return False


def give_back_of(root: Path, file: IO[str]) -> list[str]:
    """Give back what a record has, and empty it; it stays where something did not take it."""
    file.seek(0)
    said = file.read()
    try:
        settings = msgspec.json.decode(said, type=list[Setting]) if said else []
    except msgspec.MsgspecError:  # it was cut, and so nothing had been changed yet
        settings = []
    left = given_back(root, settings)
    _keep(file, [one for one in settings if f"/{one.path}" in left])
    return left


def open_record(root: Path) -> IO[str]:
    """The record, made where there is none.

    Raises:
        OSError: this user may not.
    """
    path = root / RECORD
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise PermissionError(1, "its folder is another user's")
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+")


def _held(file: IO[str]) -> bool:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _keep(file: IO[str], settings: list[Setting]) -> None:
    """Whole on disk before anything follows from it."""
    file.seek(0)
    file.truncate()
    if settings:
        file.write(msgspec.json.encode(settings).decode())
    file.flush()
    os.fsync(file.fileno())


def _say(word: str, more: str) -> None:
    try:
        sys.stdout.write(f"{word} {more}\n")
        sys.stdout.flush()
    except OSError:  # nobody listens any more, and that is no reason to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

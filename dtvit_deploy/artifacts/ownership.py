"""Whose files may be believed: the cache's are loaded as programs, so that whoever can write one of them decides what is run.

That is this user, and root, who can do everything anyway.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from pathlib import Path

from dtvit_deploy.errors import InputError

_SHARED = stat.S_IWGRP | stat.S_IWOTH


def require_own_way(folder: Path) -> None:
    """Refuse a folder to which a link of somebody else leads: where that leads, somebody else says, today and tomorrow.

    Raises:
        InputError: one on the way is another user's; root's are the system's.
    """
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            found = place.lstat()
            if stat.S_ISLNK(found.st_mode) and found.st_uid not in (os.geteuid(), 0):
                raise InputError(
                    f"the cache {folder} is reached through a link of another user (number {found.st_uid}), {place}",
                    remedy="set DTVIT_DEPLOY_CACHE to a folder of yours",
                )


def require_private(folder: Path) -> None:
    """Refuse a folder in which somebody else may have put what would be run; root may, who can do everything anyway.

    A umask of 002 makes every folder writable for a group in which there is, usually, the user alone: such a one of ours is mended. A
    folder that hands its group on, or is open to all, was meant to be shared, and is not ours to change.

    Raises:
        InputError: it is another user's, or others can write it.
    """
    run = "programs are loaded from it, and would run what others put there"
    try:
        found = folder.stat()
    except OSError:  # not there: then there is nothing in it, and whoever makes it sees what is wrong
        return
    if not stat.S_ISDIR(found.st_mode):
        return
    if found.st_uid == os.geteuid() and found.st_mode & (_SHARED | stat.S_ISGID) == stat.S_IWGRP:
        with contextlib.suppress(OSError):
            folder.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IWGRP)
            found = folder.stat()  # a file system without modes takes the change and forgets it
    if found.st_uid not in (os.geteuid(), 0):
        raise InputError(
            f"the cache {folder} belongs to another user (number {found.st_uid}); {run}",
            remedy="set DTVIT_DEPLOY_CACHE to a folder of yours",
        )
    if found.st_mode & _SHARED:
        raise InputError(
            f"the cache {folder} can be written by others (mode {stat.S_IMODE(found.st_mode):o}); {run}",
            remedy="set DTVIT_DEPLOY_CACHE to another folder; or, if nobody else has put anything there,"
            f" chmod go-w {shlex.quote(str(folder))}",
        )


def is_anyones(inside: Path) -> bool:
    """Whether what an entry holds is a link, another user's, or what others can write: it may be another file once it has been checked."""
    found = inside.lstat()
    return stat.S_ISLNK(found.st_mode) or found.st_uid not in (os.geteuid(), 0) or bool(found.st_mode & _SHARED)


def close_to_others(inside: Path) -> None:
    """Take from others the right to write what was made here, which a umask of 002 gives them; what a link leads to is left alone."""
    if not inside.is_symlink():
        inside.chmod(stat.S_IMODE(inside.stat().st_mode) & ~_SHARED)

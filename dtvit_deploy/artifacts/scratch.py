"""A folder that one process works in: locked while its owner lives, and gone when the block ends, or the process, whichever way.

A process that is killed leaves it, and the next one that works in the same place removes it. Whose owner is dead is told by a lock that
the kernel drops with the process, not by the PID in the name: in a container every run has the same PID, and two containers that share a
folder do not see each other's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dtvit_deploy.process.ending import changing_names, removed_at_the_end, uninterrupted

_ATTEMPTS = 100
"""Another process may remove the folder that it had made while this one is about to use it; each attempt loses one such race."""
_TEMPORARY = "dtvit-deploy-"
_ANYONES = re.compile(rf"{_TEMPORARY}\d+-[0-9a-f]{{8}}")
_SECONDS = 1.0
"""How long a folder is removed again while somebody still writes to it: a compiler's thread, which nobody can stop, finishes its file."""


@contextlib.contextmanager
def scratch_folder(make: Callable[[], tuple[Path, int]], made_for_it: Sequence[Path] = ()) -> Iterator[Path]:
    """The folder that ``make`` returns as `locked_folder` does, within the block.

    No request to end comes between its making and the note that it must go, and none is made once everything was removed for the end of the
    process (`dtvit_deploy.process.ending`).

    Args:
        made_for_it: folders around it, innermost first, which go with it where nothing else is in them by then.

    Raises:
        OSError: what ``make`` raises comes through.
    """

    def remove() -> None:
        remove_whole(folder)
        remove_empty(made_for_it)

    with contextlib.ExitStack() as at_end:
        with uninterrupted(), changing_names:
            folder, lock = make()
            at_end.callback(os.close, lock)
            at_end.enter_context(removed_at_the_end(remove))
        yield folder


def locked_folder(parent: Path, prefix: str, mode: int = 0o777) -> tuple[Path, int]:
    """Make a folder that says by a lock that its owner lives.

    Args:
        prefix: its name, before eight random hexadecimal digits.
        mode: of the folder, and of ``parent`` where that is made too; the umask applies.

    Returns:
        The folder, and the descriptor that holds its lock: whoever closes it must have removed or renamed the folder.

    Raises:
        OSError: it cannot be made there; nothing is left of it then.
    """
    for attempt in range(_ATTEMPTS):
        folder = parent / f"{prefix}{secrets.token_hex(4)}"
        try:
            parent.mkdir(mode, parents=True, exist_ok=True)
            folder.mkdir(mode)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            remove_empty([folder])
            if isinstance(error, FileNotFoundError) and attempt < _ATTEMPTS - 1:  # some file systems answer so to every new name: /proc
                continue
            raise
        # A file system without locks refuses them also to whoever would remove the folder, so it is safe without.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)  # removed as abandoned between its making and the lock
    raise OSError(errno.EAGAIN, "the folders made there disappear at once", str(parent))


def temporary_folder(place: str | Path) -> tuple[Path, int]:
    """Make a private folder for temporary files, as `locked_folder` does, and remove those there that killed processes have left.

    Raises:
        OSError: it cannot be made there.
    """
    made = locked_folder(Path(place).absolute(), f"{_TEMPORARY}{os.getpid()}-", 0o700)
    with contextlib.suppress(OSError):  # a place that can be written and not listed
        remove_abandoned(Path(place), _ANYONES)
    return made


def remove_abandoned(parent: Path, name: re.Pattern[str]) -> None:
    """Remove the locked folders of that name that killed processes have left.

    They are in nobody's way, so what cannot be removed stays without a word.

    Raises:
        OSError: ``parent`` cannot be read.
    """
    for folder in list(parent.iterdir()):
        if not name.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def remove_whole(folder: Path) -> None:
    """Remove a folder of ours, again where another thread put something into it meanwhile; what cannot be removed stays without a word."""
    until = time.monotonic() + _SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder) or time.monotonic() > until:
            return
        time.sleep(0.01)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()

"""Files in folders: what operating systems and servers leave among images is passed over, and what else is no image is counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dtvit_deploy.calibration.decode import SUFFIXES
from dtvit_deploy.errors import InputError
from dtvit_deploy.plural import counted, some

LITTER = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
"""Names, in lower case, that macOS, Windows and network drives give to files and folders of their own."""


def is_image(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return Path(name).suffix.lower() in SUFFIXES


def entries(folder: str) -> tuple[list[str], list[str]]:
    """Folders and all else in ``folder``, without hidden ones and litter. A broken link is kept: reading it says what is wrong.

    Raises:
        InputError: it cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(".") and entry.name.lower() not in LITTER:
                    (folders if _is_folder(entry) else files).append(entry.path)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read: {error.strerror or error}", remedy="check its permissions, or give another folder"
        ) from error
    return folders, files


def walk(folder: str, top: str) -> Iterator[str]:
    """All files below ``folder``; a folder that was met before, ``top`` among them, is not entered again.

    Raises:
        InputError: a folder cannot be read.
    """
    met = {os.path.realpath(top)}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if (real := os.path.realpath(current)) not in met:
            met.add(real)
            folders, files = entries(current)
            yield from files
            waiting += folders


def by_kind(files: Iterable[str]) -> str:
    """How many files there are of each kind: ``.heic (3), .txt (1)``."""
    suffixes = Counter(Path(path).suffix.lower() or "no suffix" for path in files)
    return some(f"{suffix} ({count})" for suffix, count in sorted(suffixes.items(), key=lambda kind: (-kind[1], kind[0])))


def skipped(files: list[str]) -> tuple[str, ...]:
    """What is to be said of files that are no images, in one line; nothing where there are none."""
    if not files:
        return ()
    verbs = ("was", "is") if len(files) == 1 else ("were", "are")
    return (f"{counted(len(files), 'file')} {verbs[0]} skipped, which {verbs[1]} no image of a kind that can be read: {by_kind(files)}",)


def no_image(folder: Path, files: list[str]) -> InputError:
    """The refusal of a folder without images."""
    if not files:
        return InputError(f"{folder} holds no files", remedy="give a folder of images")
    return InputError(
        f"no image among the {counted(len(files), 'file')} of {folder}: {by_kind(files)}", remedy=f"known are {', '.join(sorted(SUFFIXES))}"
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False

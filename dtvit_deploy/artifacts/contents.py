"""What an entry of the cache holds: written down when it is built, and looked at when it is used, since files get lost, and changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.ownership import close_to_others, is_anyones
from dtvit_deploy.errors import InputError

LISTING = ".files"
"""In each entry: size and SHA-256 of its files, by name."""


def content_of(entry: Path) -> str:
    """SHA-256 of what an entry holds: names, sizes and digests of its files.

    Raises:
        InputError: it is there no more.
    """
    try:
        return _digest(entry / LISTING)
    except FileNotFoundError as error:
        raise InputError(
            f"{entry} was removed from the cache, and is needed now", remedy="leave the cache alone while something runs, and run it again"
        ) from error


def list_contents(folder: Path) -> None:
    """Write down what a folder holds, and close it to others."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    listed = {file.relative_to(folder).as_posix(): (file.stat().st_size, _digest(file)) for file in files}
    (folder / LISTING).write_bytes(msgspec.json.encode(listed))
    for inside in folder.rglob("*"):
        close_to_others(inside)


def share(path: str | Path, place: str | Path) -> None:
    """Give a file of an entry a place in another: a second name of the same file, where the file system has that, since neither is changed.

    Raises:
        OSError: it cannot be copied either.
    """
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def is_whole(folder: Path, *, by_size: bool = False) -> bool:
    """Whether every file is what was built; by its size alone, which takes no reading, if so asked."""
    try:
        if any(map(is_anyones, folder.rglob("*"))):
            return False
        listed = msgspec.json.decode((folder / LISTING).read_bytes(), type=dict[str, tuple[int, str]])
        return all(
            (folder / name).stat().st_size == size and (by_size or _digest(folder / name) == digest)
            for name, (size, digest) in listed.items()
        )
    except (OSError, msgspec.MsgspecError):
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def last_used(folder: Path) -> float:
    """When an entry was asked for, in seconds since 1970."""
    try:  # another process may remove it this moment
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def size_of(folder: Path) -> int:
    """Bytes of an entry's files."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in set(names) - {LISTING}:
            with contextlib.suppress(OSError):
                total += (Path(inside) / name).lstat().st_size
    return total

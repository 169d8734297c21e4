"""Which blobs of a device were read and found to have their digest, so that a gigabyte is not read again as each job begins.

A blob counts as long as the file is the one that was read: its number, its size and the time of its last change. What the disk has
damaged since shows where the blob is used (an artefact is held to its manifest, feeds to their checksums); then nothing counts any more.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

NAME = "verified.json"
_LARGEST = 16 << 20
Mark = list[int]


class Verified:
    """The list of them, in a folder; of several processes that write it at once one has its way, and the others read their blobs again.

    Args:
        folder: where the list is.
        kept: whether it is believed and written at all: not where others can write the folder.
    """

    def __init__(self, folder: Path, *, kept: bool) -> None:
        self._path, self._kept = folder / NAME, kept

    def read(self) -> dict[str, Mark]:
        """By the names of the blobs, what their files were; empty where it cannot be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if self._kept and self._path.stat().st_size <= _LARGEST:
                found = json.loads(self._path.read_bytes())
                return found if isinstance(found, dict) else {}
        return {}

    def add(self, blobs: Mapping[str, Path]) -> None:
        """Note that these are what they are called, for as long as nobody changes them; of those that are gone nothing is kept."""
        if not self._kept or not blobs:
            return
        folder = next(iter(blobs.values())).parent
        found = {name: mark for name, mark in self.read().items() if (folder / name).exists()}
        found |= {name: mark for name, path in blobs.items() if (mark := mark_of(path)) is not None}
        part = self._path.with_name(f".{NAME}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk: then they are read again
            part.write_text(json.dumps(found))
            part.replace(self._path)

    def forget(self) -> None:
        """Have everything read again."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def mark_of(path: Path) -> Mark | None:
    """What a file is, short of reading it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]

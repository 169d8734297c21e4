"""What is kept on a device: the agent, blobs by their content, and a folder for each job, in one private folder of the user's cache.

Every file appears whole, by a rename.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import dtvit_deploy
from dtvit_deploy.agent.verified import Verified, mark_of
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.job import Blob

SPARE = 16 << 20
"""Bytes that are left free on the device's disk."""
_PIECE = 1 << 20


class Store:
    """The folder, which is made where it is not there.

    Args:
        root: the folder.
        private: refuse one that others can write; a stick's file system may know no other.

    Raises:
        InputError: it is another user's, or others can write it.
        MissingError: it cannot be made.
    """

    def __init__(self, root: Path, *, private: bool = True) -> None:
        self.root = root
        self.blobs, self.jobs = root / "blobs", root / "jobs"
        self._verified = Verified(root, kept=private)
        try:
            for folder in (root, self.blobs, self.jobs):
                folder.mkdir(0o700, parents=True, exist_ok=True)
            found = root.stat()
        except OSError as error:
            raise MissingError(
                f"{root}, the agent's folder on the device, cannot be made: {error.strerror}",
                remedy="free its disk, or set XDG_CACHE_HOME there to a folder that can be written",
            ) from error
        if private and (found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise InputError(
                f"{root}, the agent's folder on the device, can be written by others; what they put there would be run",
                remedy=f"look at what is in it, then remove it there: rm -r {root}",
            )

    @classmethod
    def here(cls) -> Store:
        """The one that this agent's archive lies in.

        Raises:
            InputError, MissingError: as of the class.
        """
        return cls(archive().parent.parent)

    def blob(self, sha256: str) -> Path:
        """Where a blob is, if it is there."""
        return self.blobs / sha256

    def missing(self, asked: Iterable[Blob]) -> dict[str, int]:
        """Of the blobs that a job needs, those that are not here, with how many bytes of each are. One that is damaged is not here."""
        found: dict[str, int] = {}
        here: dict[str, Path] = {}
        verified = self._verified.read()
        for blob in asked:
            path = self.blob(blob.sha256)
            if path.is_file() and (verified.get(blob.sha256, []) == mark_of(path) or _digest(path) == blob.sha256):
                here[blob.sha256] = path
                with contextlib.suppress(OSError):
                    os.utime(path)  # it was asked for
                continue
            path.unlink(missing_ok=True)
            found[blob.sha256] = size_of(self._part(blob.sha256))
        self._verified.add(here)
        return found

    def doubt(self) -> None:
        """Have every blob read again before it is used once more: something failed, and it may be a blob that the disk has damaged."""
        self._verified.forget()

    def put(self, blob: Blob, offset: int, stream: BinaryIO) -> None:
        """Take a blob, or the rest of one of which the first ``offset`` bytes are here. What comes before the connection goes is kept.

        Raises:
            InputError: the bytes are not those of that digest; they are removed.
            MissingError: they do not come, or there is no room for them.
        """
        part = self._part(blob.sha256)
        with _full_disk(part.name[:16]), _alone(part) as file:
            if file.tell() < offset:
                raise MissingError(f"{offset:,} bytes of {blob.sha256[:16]}… should be on the device, and are not", remedy="send it whole")
            file.truncate(offset)
            require_room(self.root, blob.bytes - offset)
            left = blob.bytes - offset
            while left > 0 and (piece := stream.read(min(left, _PIECE))):
                file.write(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
            if left:
                raise MissingError(f"{left:,} bytes of {blob.sha256[:16]}… did not come", remedy="send the rest")
            if _digest(part) != blob.sha256:
                part.unlink()
                raise InputError(
                    f"{blob.sha256[:16]}… was altered on its way: what came to the device has another digest",
                    remedy="send it again; if that fails too, something on the way changes it",
                )
            part.replace(self.blob(blob.sha256))
            self._verified.add({blob.sha256: self.blob(blob.sha256)})

    def _part(self, sha256: str) -> Path:
        return self.blobs / f"{sha256}.part"


def archive() -> Path:
    """The archive that this agent runs from."""
    return Path(dtvit_deploy.__file__).absolute().parents[1]


def require_room(folder: Path, size: int) -> None:
    """Refuse to write what would fill the device's disk.

    Raises:
        MissingError: so many bytes and `SPARE` are not free.
    """
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise MissingError(
            f"the device's disk is full: {free / 1e6:,.0f} MB are free in {folder}, and {(size + SPARE) / 1e6:,.0f} MB are needed",
            remedy="free some space there; `device clean` removes what this program keeps",
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """A file to go on with, which nobody else writes meanwhile; not one that somebody else has finished and given its name."""
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return


@contextlib.contextmanager
def _full_disk(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = "the device's disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"the device cannot write: {error.strerror}"
        raise MissingError(f"{full}, as {name}… came", remedy="free some space there; `device clean` removes what is kept") from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0

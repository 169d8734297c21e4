"""Work that was done is kept under the digest of everything that went into it, and not done again.

The cache belongs to one user on one machine: its folder is private, because exported programs are loaded from it without further
questions. Entries are whole or absent: one that lost a file (to a cleaner of old files, or a power cut), or in which one changed, is
built again. The least recently used go when it outgrows its limit.

Whatever is not an entry yet, or no longer, has a hidden name. A process that was killed leaves such a folder behind; the next one that
builds removes it, if the lock that its owner held is free (as in :mod:`dtvit_deploy.staging`, and for the reasons given there).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from dtvit_deploy.errors import InputError

LIMIT = 8 << 30
"""Bytes. One network's artefacts are a few hundred megabytes."""
_ENTRY = re.compile(r"\w+-[0-9a-f]{32}")
_HIDDEN = re.compile(r"\.\w+-[0-9a-f]{32}-[0-9a-f]{8}")
"""Nothing else in the folder is touched: the user may have named one that holds more."""
_LISTING = ".files"
"""In each entry: size and SHA-256 of its files, by name."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ATTEMPTS = 100
"""Another process may take a folder, made but not locked yet, for one that was left behind; each attempt loses one such race."""


class Cache:
    """A folder of entries, each a folder named by its stage and the digest of its key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Cache:
        """``$DTVIT_DEPLOY_CACHE``, else ``dtvit-deploy`` in the user's cache folder.

        Raises:
            InputError: there is no such folder, since the user has no home.
        """
        chosen = os.environ.get("DTVIT_DEPLOY_CACHE")
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        try:
            return cls(Path(chosen).expanduser() if chosen else Path(base).expanduser() / "dtvit-deploy")
        except RuntimeError as error:  # a container's user without a name, often
            raise InputError(
                f"there is no place for the cache: {chosen or base} names a home folder, and there is none",
                remedy="set DTVIT_DEPLOY_CACHE to a folder of yours, or use --no-cache",
            ) from error

    def entry(self, stage: str, key: object, build: Callable[[Path], None]) -> Path:
        """The folder of a stage's result, built by ``build(folder)`` when it is not there yet.

        Args:
            stage: what is done; the first part of the entry's name.
            key: everything that the result depends on, as JSON-able data.
            build: writes the result into an empty folder; what it raises comes through, and nothing is kept of it.

        Raises:
            InputError: the cache's folder cannot be written.
        """
        digest = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()
        folder = self.root / f"{stage}-{digest[:32]}"
        with contextlib.suppress(OSError):  # not there; or there, and not ours to write
            os.utime(folder)
        if _is_whole(folder):
            return folder
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._forget_interrupted()
            part, lock = self._begin(folder.name)
        except OSError as error:
            raise self._unwritable(error, "set DTVIT_DEPLOY_CACHE to a folder of yours, or use --no-cache") from error
        try:
            build(part)
            _list(part)
            if folder.is_dir() and not _is_whole(folder):
                self._remove(folder)
            try:
                part.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process may have been faster; its result is as good
                    raise
        except OSError as error:
            if error.errno in _FULL or str(error.filename or "").startswith(str(self.root)):
                raise self._unwritable(error, "free some space, or set DTVIT_DEPLOY_CACHE to another folder") from error
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
            os.close(lock)
        self._shrink(keep=folder)
        return folder

    def find(self, stage: str, matches: Callable[[Path], bool]) -> Path | None:
        """An entry of a stage that holds what is looked for."""
        entries = (folder for folder in self._folders(_ENTRY) if folder.name.startswith(f"{stage}-"))
        complete = (folder for folder in entries if _is_whole(folder, by_size=True))
        return next((folder for folder in complete if matches(folder) and _is_whole(folder)), None)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(map(_size, self._folders(_ENTRY)))

    def _folders(self, name: re.Pattern[str]) -> list[Path]:
        return [folder for folder in sorted(self.root.glob("*")) if name.fullmatch(folder.name)]

    def _hidden(self, name: str) -> Path:
        return self.root / f".{name}-{secrets.token_hex(4)}"

    def _begin(self, name: str) -> tuple[Path, int]:
        """A hidden folder, and the descriptor that holds its lock."""
        for _ in range(_ATTEMPTS):
            part = self._hidden(name)
            part.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
                with contextlib.suppress(OSError):  # a file system without locks refuses them to everybody
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if part.exists():
                    return part, lock
                os.close(lock)
        raise OSError(errno.EAGAIN, "its folders disappear as soon as they are made")

    def _forget_interrupted(self) -> None:
        for folder in self._folders(_HIDDEN):
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)

    def _shrink(self, keep: Path) -> None:
        entries = sorted((_used(folder), folder) for folder in self._folders(_ENTRY) if folder != keep)
        sizes = {folder: _size(folder) for _, folder in entries}
        total = sum(sizes.values()) + _size(keep)
        for _, folder in entries:
            if total <= LIMIT:
                break
            total -= sizes[folder]
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        gone = self._hidden(folder.name)
        with contextlib.suppress(OSError):
            folder.rename(gone)  # first, since half an entry must not have an entry's name
            shutil.rmtree(gone, ignore_errors=True)

    def _unwritable(self, error: OSError, remedy: str) -> InputError:
        return InputError(f"the cache {self.root} cannot be written: {error.strerror or error}", remedy=remedy)


def _list(folder: Path) -> None:
    # A listing that is there came with files that were copied from another entry.
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != _LISTING]
    listed = {file.relative_to(folder).as_posix(): (file.stat().st_size, _digest(file)) for file in files}
    (folder / _LISTING).write_bytes(msgspec.json.encode(listed))


def _is_whole(folder: Path, *, by_size: bool = False) -> bool:
    """Whether every file is what was built; by its size alone, which takes no reading, if so asked."""
    try:
        listed = msgspec.json.decode((folder / _LISTING).read_bytes(), type=dict[str, tuple[int, str]])
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


def _used(folder: Path) -> float:
    try:  # another process may remove it this moment
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for inside, _, names in os.walk(folder):
        for name in set(names) - {_LISTING}:
            with contextlib.suppress(OSError):
                total += (Path(inside) / name).lstat().st_size
    return total

"""Work that was done is kept under the digest of everything that went into it, and not done again.

The cache belongs to one user on one machine: its folder is private, because exported programs are loaded from it without further
questions. Entries are whole or absent. The least recently used go when it outgrows its limit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from dtvit_deploy.errors import InputError

LIMIT = 8 << 30
"""Bytes. One network's artefacts are a few hundred megabytes."""


class Cache:
    """A folder of entries, each a folder named by the digest of its key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Cache:
        """``$DTVIT_DEPLOY_CACHE``, else ``dtvit-deploy`` in the user's cache folder."""
        chosen = os.environ.get("DTVIT_DEPLOY_CACHE")
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return cls(Path(chosen).expanduser() if chosen else Path(base).expanduser() / "dtvit-deploy")

    def entry(self, stage: str, key: object, build: Callable[[Path], None]) -> Path:
        """The folder of a stage's result, built by ``build(folder)`` when it is not there yet.

        Args:
            stage: what is done; the first part of the entry's name.
            key: everything that the result depends on, as JSON-able data.
            build: writes the result into an empty folder; what it raises, nothing is kept of.

        Raises:
            InputError: the cache's folder cannot be written.
        """
        digest = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()
        folder = self.root / f"{stage}-{digest[:32]}"
        if folder.is_dir():
            os.utime(folder)
            return folder
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._forget_interrupted()
            part = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=self.root))
        except OSError as error:
            raise InputError(
                f"the cache {self.root} cannot be written: {error.strerror or error}",
                remedy="set DTVIT_DEPLOY_CACHE to a folder of yours, or use --no-cache",
            ) from error
        try:
            build(part)
            if not folder.is_dir():  # another process may have been faster; its result is as good
                part.rename(folder)
        except OSError as error:
            if folder.is_dir():
                return folder
            raise InputError(f"the cache {self.root} cannot be written: {error.strerror or error}", remedy="free some space") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._shrink(keep=folder)
        return folder

    def find(self, stage: str, matches: Callable[[Path], bool]) -> Path | None:
        """An entry of a stage that holds what is looked for."""
        return next((folder for folder in sorted(self.root.glob(f"{stage}-*")) if matches(folder)), None)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(map(_size, self.root.glob("*-*")))

    def _forget_interrupted(self) -> None:
        for folder in self.root.glob(".*-*"):
            owner = folder.name[1:].split("-")[0]
            if owner.isdigit() and not _alive(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)

    def _shrink(self, keep: Path) -> None:
        entries = sorted((folder for folder in self.root.glob("*-*") if folder != keep), key=lambda folder: folder.stat().st_mtime)
        sizes = {folder: _size(folder) for folder in entries}
        total = sum(sizes.values()) + _size(keep)
        for folder in entries:
            if total <= LIMIT:
                break
            total -= sizes[folder]
            shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

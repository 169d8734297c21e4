"""Work that was done is kept under the digest of everything that went into it, and not done again.

The cache belongs to one user on one machine: its folder is private, because exported programs are unpickled from it, which runs what
they say; one that others can write is refused. Entries are whole or absent: one that lost a file (to a cleaner of old files, or a power
cut), or in which one changed, is built again. The least recently used go when it outgrows its limit.

Whatever is not an entry yet, or no longer, has a hidden name. A process that was killed leaves such a folder behind; the next one that
builds removes it, if the lock that its owner held is free (see :mod:`dtvit_deploy.artifacts.scratch`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtvit_deploy.artifacts.contents import is_whole, last_used, list_contents, size_of
from dtvit_deploy.artifacts.ownership import require_own_way, require_private
from dtvit_deploy.artifacts.scratch import locked_folder, remove_abandoned, scratch_folder
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.ending import changing_names

LIMIT = 8 << 30
"""Bytes. One network's artefacts are a few hundred megabytes."""
RECENT = 3600.0
"""Seconds. What was used so lately may be what a run builds on right now, and stays, beyond the limit too."""
_LOOKS = 16
"""All entries are measured again when a process has added this part of the limit: there may be thousands."""
_added: dict[Path, int] = {}
"""Bytes that this process has added since it measured all entries, by the caches' folders."""
_ENTRY = re.compile(r"[\w-]+-[0-9a-f]{32}")
_HIDDEN = re.compile(r"\.[\w-]+-[0-9a-f]{32}-[0-9a-f]{8}")
"""Nothing else in the folder is touched: the user may have named one that holds more."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHOOSE = "set DTVIT_DEPLOY_CACHE to a folder of yours, or use --no-cache"


class Held(NamedTuple):
    """An entry.

    Attributes:
        stage: what was done.
        size: in bytes.
        used: when it was last asked for, in seconds since 1970.
    """

    name: str
    stage: str
    size: int
    used: float


class Cache:
    """A folder of entries, each a folder named by its stage and the digest of its key."""

    def __init__(self, root: Path, *, anew: bool = False) -> None:
        """A cache in ``root``; ``anew`` builds what is asked for although it is there, and puts it in its place."""
        self.root, self._anew = root, anew

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
            InputError: the cache's folder cannot be written, or others can write it.
        """
        folder = self._named(stage, key)
        return folder if not self._anew and self._usable(folder) else self._built(folder.name, build, lambda part: folder)

    def known(self, stage: str, key: object) -> Path | None:
        """The folder of a stage's result, where it is there and whole.

        Raises:
            InputError: others can write the cache's folder.
        """
        folder = self._named(stage, key)
        return folder if self._usable(folder) else None

    def entry_by_content(self, stage: str, build: Callable[[Path], None], content: Callable[[Path], object]) -> Path:
        """The folder of a result that is built each time, since not everything that it depends on can be named beforehand.

        Equal content is one entry, so that what is made from it is known by it.

        Args:
            stage, build: as in :meth:`entry`.
            content: what the folder that was built is known by, as JSON-able data.

        Raises:
            InputError: as in :meth:`entry`.
        """
        return self._built(f"{stage}-{secrets.token_hex(16)}", build, lambda part: self._named(stage, content(part)))

    def find(self, stage: str, matches: Callable[[Path], bool]) -> Path | None:
        """An entry of a stage that holds what is looked for.

        Raises:
            InputError: others can write the cache's folder.
        """
        return next((folder for folder in self._entries(stage) if matches(folder) and is_whole(folder)), None)

    def tidy(self) -> None:
        """Remove what processes that were killed had begun to build."""
        with contextlib.suppress(OSError):
            remove_abandoned(self.root, _HIDDEN)

    def entries(self, stage: str) -> list[Path]:
        """Every entry of a stage that is whole by the sizes of its files, of which none is read.

        Raises:
            InputError: others can write the cache's folder.
        """
        return list(self._entries(stage))

    def _entries(self, stage: str) -> Iterator[Path]:
        self._require_ours()
        for folder in self._folders(_ENTRY):
            if folder.name.rpartition("-")[0] == stage:
                require_private(folder)
                if is_whole(folder, by_size=True):
                    yield folder

    def _require_ours(self) -> None:
        """Refuse a root that another user can write, or lead elsewhere.

        Raises:
            InputError: see `require_own_way` and `require_private`.
        """
        require_own_way(self.root)
        require_private(self.root)

    def beside(self, name: str) -> Path:
        """A private folder next to the entries, for what a library keeps; the cache leaves it alone.

        Raises:
            InputError: others can write the cache's folder or this one, or a link of theirs leads there; or it cannot be made.
        """
        folder = self.root / name
        try:
            self.root.mkdir(0o700, parents=True, exist_ok=True)
            self._require_ours()
            folder.mkdir(0o700, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error, _CHOOSE) from error
        require_own_way(folder)
        require_private(folder)
        return folder

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(map(size_of, self._folders(_ENTRY)))

    def held(self) -> list[Held]:
        """Every entry, the one that was used last at the end; no file is read.

        Raises:
            InputError: others can write the cache's folder.
        """
        self._require_ours()
        found = (Held(folder.name, folder.name.rpartition("-")[0], size_of(folder), last_used(folder)) for folder in self._folders(_ENTRY))
        return sorted(found, key=lambda entry: entry.used)

    def prune(self, before: float) -> list[Held]:
        """Remove the entries that were not used since ``before``, in seconds since 1970; whoever needs one builds it again.

        Raises:
            InputError: others can write the cache's folder.
        """
        gone = [entry for entry in self.held() if entry.used < before]
        for entry in gone:
            self._remove(self.root / entry.name)
        return gone

    def _folders(self, name: re.Pattern[str]) -> list[Path]:
        return [folder for folder in sorted(self.root.glob("*")) if name.fullmatch(folder.name)]

    def _named(self, stage: str, key: object) -> Path:
        digest = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()
        return self.root / f"{stage}-{digest[:32]}"

    def _usable(self, folder: Path) -> bool:
        """Whether an entry is there and whole; from now on it is the one used last."""
        self._require_ours()
        require_private(folder)
        with contextlib.suppress(OSError):  # not there; or there, and not ours to write
            os.utime(folder)
        return is_whole(folder)

    def _built(self, name: str, build: Callable[[Path], None], place: Callable[[Path], Path]) -> Path:
        """Build in a hidden folder, and give it the name that ``place`` finds for it, unless one of that name is there."""
        try:
            self.root.mkdir(0o700, parents=True, exist_ok=True)
            self._require_ours()
            remove_abandoned(self.root, _HIDDEN)
        except OSError as error:
            raise self._unwritable(error, _CHOOSE) from error
        try:
            with scratch_folder(functools.partial(self._open, name)) as part:
                build(part)
                list_contents(part)
                folder = place(part)
                if self._anew or not self._usable(folder):
                    self._settle(part, folder)
        except OSError as error:
            if error.errno in _FULL or str(error.filename or "").startswith(str(self.root)):
                raise self._unwritable(error, "free some space, or set DTVIT_DEPLOY_CACHE to another folder") from error
            raise
        self._shrink(keep=folder)
        return folder

    def _open(self, name: str) -> tuple[Path, int]:
        try:
            return locked_folder(self.root, f".{name}-", 0o700)
        except OSError as error:
            raise self._unwritable(error, _CHOOSE) from error

    def _settle(self, part: Path, folder: Path) -> None:
        with changing_names:
            self._remove(folder)
            try:
                part.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process may have been faster; its result is as good
                    raise

    def hold(self, folders: Iterable[Path]) -> None:
        """Say that entries are still in use, so that none goes for being the one used least recently."""
        for folder in folders:
            with contextlib.suppress(OSError):
                os.utime(folder)

    def _shrink(self, keep: Path) -> None:
        size = size_of(keep)
        added = _added.get(self.root, LIMIT) + size
        if added * _LOOKS < LIMIT:
            _added[self.root] = added
            return
        _added[self.root] = 0
        entries = sorted((last_used(folder), folder) for folder in self._folders(_ENTRY) if folder != keep)
        sizes = {folder: size_of(folder) for _, folder in entries}
        total, now = sum(sizes.values()) + size, time.time()
        for used, folder in entries:
            if total <= LIMIT or now - used < RECENT:
                break
            total -= sizes[folder]
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        def renamed() -> tuple[Path, int]:  # first, since half an entry must not have an entry's name
            gone = folder.rename(self.root / f".{folder.name}-{secrets.token_hex(4)}")
            return gone, os.open(gone, os.O_RDONLY | os.O_DIRECTORY)

        with contextlib.suppress(OSError), scratch_folder(renamed):
            pass

    def _unwritable(self, error: OSError, remedy: str) -> InputError:
        return InputError(f"the cache {self.root} cannot be written: {error.strerror or error}", remedy=remedy)

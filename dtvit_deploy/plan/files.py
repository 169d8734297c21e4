"""What the user's files and folders hold, as one digest of each: what a stage is kept by, and what a worker elsewhere must find too."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.calibration.folders import entries, is_image, walk
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.material import are_images, class_map_of
from dtvit_deploy.recipe.tables import Recipe

_IMAGES = "images"
_SHARE = "give all machines of a farm the same files under the same paths, by a file system that they share, say"


class FileState(NamedTuple):
    """What a file or a folder of the user's held when it was read.

    Attributes:
        digest: of what it holds, the same on every machine.
        stamp: of sizes and times, which a look at each file tells: what changes meanwhile has another.
    """

    digest: str
    stamp: str


def state_of(path: Path, *, data: bool) -> FileState:
    """What a file holds; with ``data``, a folder or a list of images too: the images, and the names of all files.

    Raises:
        InputError, OSError: it is not there, cannot be read, or is empty.
    """
    stamp = stamp_of(path, data=data)
    if not data or not are_images(path):
        return FileState(_digest(path), stamp)
    digest = hashlib.sha256()
    for file in _files(path):
        content = _digest(file) if is_image(file.name) or file == path else ""
        digest.update(f"{os.path.relpath(file, path)} {content}\0".encode("utf-8", "surrogateescape"))
    return FileState(f"{_IMAGES} {digest.hexdigest()}", stamp)


def stamp_of(path: Path, *, data: bool) -> str:
    """Digest of the names, sizes and times of change of a file, or of the images in a folder or a list; nothing is read but a list.

    Raises:
        InputError, OSError: as `state_of`.
    """
    digest = hashlib.sha256()
    for file in _files(path) if data and are_images(path) else [path]:
        told = ""
        if is_image(file.name) or file == path:
            found = file.stat()
            told = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
        digest.update(f"{os.path.relpath(file, path)} {told}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def require_same(path: Path, known: FileState) -> FileState:
    """The state of a file on another machine, where it holds the same.

    Raises:
        InputError: it holds something else, or it is not there or cannot be read.
    """
    try:
        found = state_of(path, data=known.digest.startswith(_IMAGES))
    except OSError as error:
        raise InputError(f"{path} cannot be read on this worker: {error.strerror or error}", remedy=_SHARE) from error
    if found.digest != known.digest:
        raise InputError(f"{path} holds something else on this worker than where the plan was made", remedy=_SHARE)
    return found


def require_unchanged(files: Mapping[str, FileState]) -> None:
    """Refuse files that are not as they were when the plan was made: a result of them would be kept under what they held then.

    Raises:
        InputError: names one.
    """
    for path, known in files.items():
        try:
            stamp = stamp_of(Path(path), data=known.digest.startswith(_IMAGES))
        except (InputError, OSError):
            stamp = ""
        if stamp != known.stamp:
            raise InputError(f"{path} has changed since the run began", remedy="run it again, and leave the files alone meanwhile")


def _files(path: Path) -> list[Path]:
    """The files of a folder, as images are looked for, links followed; or a list and the images that it names."""
    if path.is_file():
        return [path, *(image.path for image in open_images(path).images)]
    folders, here = entries(str(path))
    found = sorted(Path(name) for name in (*here, *(name for folder in folders for name in walk(folder, str(path)))))
    if not found:
        raise InputError(f"{path} is empty")
    return found


def _digest(path: Path) -> str:
    """SHA-256 of a file, and of nothing that never ends: a pipe, say."""
    if not path.is_file():
        raise InputError(f"{path} is no file")
    return sha256_of(path)


class Known:
    """What the files of requests hold, each read once."""

    def __init__(self) -> None:
        self._states: dict[Path, FileState | None] = {}
        self._counts: dict[tuple[Path, Path | None], int] = {}

    def digest(self, path: Path, *, data: bool) -> str:
        """What it holds. What cannot be told is as nothing else: the stage that takes it is done, and says what is wrong."""
        if path not in self._states:
            try:
                self._states[path] = state_of(path, data=data)
            except (InputError, OSError):
                self._states[path] = None
        state = self._states[path]
        return state.digest if state is not None else secrets.token_hex(16)

    def named_in(self, asked: Mapping[str, Any], recipe: Recipe) -> dict[str, FileState]:
        """Of a request's files whose digests are a part of what is asked, their states by absolute path."""
        data = recipe.data
        paths = (recipe.model.checkpoint, recipe.int8.ranges, recipe.checks, data.calibration, data.evaluation, data.class_map)
        said = set(_texts(asked))
        known = {str(path.absolute()): state for path in paths if path is not None and (state := self._states.get(path)) is not None}
        return {path: state for path, state in known.items() if any(state.digest in text for text in said)}

    def images(self, path: Path, recipe: Recipe) -> int:
        """How many images a folder or a list holds; 0 where it cannot be told without the network's classes."""
        key = path, recipe.data.class_map
        if key not in self._counts:
            try:
                self._counts[key] = len(open_images(path, class_map=class_map_of(recipe)))
            except (InputError, OSError):
                self._counts[key] = 0
        return self._counts[key]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)

"""What the user's files and folders hold, as one digest of each: what a stage is kept by, and what a worker elsewhere must find too."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.calibration.folders import entries, walk
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.material import are_images, class_map_of
from dtvit_deploy.recipe.tables import Recipe

_IMAGES, _UNREADABLE = "images", "unreadable"


def digest_of(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError, OSError: it is not there, or cannot be read.
    """
    return sha256_of(path)


def digest_of_data(path: Path) -> str:
    """Of a file, its SHA-256; of a folder or a list of images, that over names and contents of the files: samples are drawn by both.

    Raises:
        InputError, OSError: it is not there, cannot be read, or is empty.
    """
    if not are_images(path):
        return sha256_of(path)
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(sha256_of(path).encode())
        files = [image.path for image in open_images(path).images]
    else:
        folders, here = entries(str(path))  # as images are looked for, links followed
        files = sorted(Path(name) for name in (*here, *(name for folder in folders for name in walk(folder, str(path)))))
        if not files:
            raise InputError(f"{path} is empty")
    for file in files:
        digest.update(f"{os.path.relpath(file, path)} {sha256_of(file)}\0".encode("utf-8", "surrogateescape"))
    return f"{_IMAGES} {digest.hexdigest()}"


def require_same(path: Path, digest: str) -> None:
    """Refuse a file or a folder that holds something else than what has that digest, by either of the functions above.

    Raises:
        InputError: it does, or it is not there or cannot be read.
    """
    try:
        found = digest_of_data(path) if digest.startswith(_IMAGES) else digest_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read on this worker: {error.strerror or error}", remedy=_SHARE) from error
    if found != digest:
        raise InputError(f"{path} holds something else on this worker than where the plan was made", remedy=_SHARE)


_SHARE = "give all machines of a farm the same files under the same paths, by a file system that they share, say"


class Known:
    """What the files of requests hold, each read once."""

    def __init__(self) -> None:
        self._digests: dict[Path, str] = {}
        self._counts: dict[tuple[Path, Path | None], int] = {}

    def digest(self, path: Path, reading: Callable[[Path], str]) -> str:
        """What it holds. What cannot be told is as nothing else: the stage that takes it is done, and says what is wrong."""
        if path not in self._digests:
            try:
                self._digests[path] = reading(path)
            except (InputError, OSError):
                self._digests[path] = f"{_UNREADABLE} {secrets.token_hex(16)}"
        return self._digests[path]

    def named_in(self, asked: Mapping[str, Any], recipe: Recipe) -> dict[str, str]:
        """Of a request's files whose digests are a part of what is asked, those digests by absolute path."""
        data = recipe.data
        paths = (recipe.model.checkpoint, recipe.int8.ranges, recipe.checks, data.calibration, data.evaluation, data.class_map)
        said = set(_texts(asked))
        known = {str(path.absolute()): self._digests[path] for path in paths if path is not None and path in self._digests}
        return {path: digest for path, digest in known.items() if not digest.startswith(_UNREADABLE) and any(digest in it for it in said)}

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

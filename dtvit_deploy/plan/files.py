"""What the user's files and folders hold, as one digest of each: what a stage is kept by, and what a worker elsewhere must find too."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.calibration.folders import entries, walk
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.material import are_images

_IMAGES = "images"


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

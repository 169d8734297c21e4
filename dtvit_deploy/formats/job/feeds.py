"""Several feeds as one blob: an uncompressed ``.npz`` whose members are ``000000.INPUT``, read one feed at a time.

Equal feeds give equal bytes, so that a device that has them is not sent them again. The reference's tensors travel in the same form.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

_FORMAT: Any = np.lib.format
_MEMBER = re.compile(r"(\d{6})\.(.+)\.npy", re.DOTALL)
MOST = 1_000_000
"""Feeds of one blob, by the digits of a member's number."""


def write_feeds(file: BinaryIO, feeds: Iterable[Feeds]) -> int:
    """Write feeds, each as it comes.

    Returns:
        How many there were.
    """
    count = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for feed in feeds:
            for name, array in sorted(feed.items()):
                info = zipfile.ZipInfo(f"{count:06d}.{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(info, "w", force_zip64=True) as member:
                    _FORMAT.write_array(member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            count += 1
    return count


def read_feeds(path: Path) -> Iterator[Outputs]:
    """The feeds of a blob, one in memory at a time.

    Raises:
        InputError: it is no such blob, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _feeds(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"the feeds in {path.name[:16]}… cannot be read: {error}", remedy="send them again") from error


def _feeds(archive: zipfile.ZipFile) -> Iterator[Outputs]:
    number = 0
    feed: Outputs = {}
    for info in archive.infolist():
        match = _MEMBER.fullmatch(info.filename)
        if match is None or info.compress_type != zipfile.ZIP_STORED or int(match[1]) not in (number, number + 1):
            raise ValueError(f"{info.filename!r} is no member of feeds")
        if int(match[1]) > number:
            yield feed
            number, feed = number + 1, {}
        with archive.open(info) as member:
            feed[match[2]] = _FORMAT.read_array(member, allow_pickle=False)
            if member.read(1):
                raise ValueError(f"{info.filename!r} goes on after its array")
    if feed:
        yield feed


def feed_digest(feed: Feeds) -> str:
    """SHA-256 of a feed's names, types, shapes and values, by which an answer that was recorded is found again."""
    digest = hashlib.sha256()
    for name, array in sorted(feed.items()):
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

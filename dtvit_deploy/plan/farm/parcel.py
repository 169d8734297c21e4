"""A stage's result as it travels: its files, and the digest that it must have where it arrives."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import LISTING, content_of, list_contents
from dtvit_deploy.errors import DeployError

KIND = "parcel"
"""The first part of the names of results in the cache that came from elsewhere."""


class Parcel(NamedTuple):
    """A result.

    Attributes:
        content: digest of all of it (`dtvit_deploy.artifacts.contents.content_of`).
        files: bytes by name, in the order of the names.
    """

    content: str
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.files.values()))


def packed(folder: Path) -> Parcel:
    """What an entry of the cache holds.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / LISTING)
    return Parcel(content_of(folder), {file.relative_to(folder).as_posix(): file.read_bytes() for file in files})


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write a result's files into an empty folder.

    Raises:
        DeployError: a name leads out of the folder, or it is not what it was when it was sent.
        OSError: it cannot be written.
    """
    for name, content in parcel.files.items():
        path = folder / name
        if name.startswith("/") or ".." in Path(name).parts:
            raise DeployError(f"a result that came from a worker names {name!r}, which is not in its folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    list_contents(folder)
    arrived = content_of(folder)
    (folder / LISTING).unlink()
    if arrived != parcel.content:
        raise DeployError("a result that came from another machine is not what was sent", remedy="run it again; look at the network")


def received(parcel: Parcel, cache: Cache) -> Path:
    """The folder of a result that came from elsewhere; of equal ones there is one.

    Raises:
        DeployError: it is not what it was when it was sent.
        InputError: the cache cannot be written.
    """
    return cache.entry(KIND, {"content": parcel.content}, lambda part: unpack(parcel, part))

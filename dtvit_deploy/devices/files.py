"""Small files of a kernel, read so that nothing they do stops whoever reads: absent, locked, asleep, or not what they should be."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LARGEST = 1 << 20
_PIECE = 1 << 16


def text(path: Path) -> str | None:
    """What a file says, without the NULs of device trees; None where it cannot be read now.

    ``EAGAIN`` is how a sensor of a unit answers that sleeps. Python's files make None of it where text is expected, and fail; here it is an
    error like any other.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < _LARGEST and (piece := os.read(file, _PIECE)):
            pieces.append(piece)
    except OSError:
        return None
    finally:
        os.close(file)
    return b"".join(pieces).decode(errors="replace").strip("\0 \t\n")


def whole(said: str | None) -> int | None:
    """A whole number that is all that is said."""
    return int(said) if said is not None and re.fullmatch(r"-?[0-9]{1,18}", said, re.ASCII) else None


def number(path: Path) -> int | None:
    """The whole number that a file holds."""
    return whole(text(path))


def between(value: float | None, low: float, high: float) -> float | None:
    """A value that can be one; None beyond, where a sensor has codes of its own for *none*."""
    return value if value is not None and low <= value <= high else None


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def folders(root: Path, pattern: str) -> list[Path]:
    """Folders of a pattern, those with lower numbers in their names first."""
    return sorted(root.glob(pattern), key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))])


def source(root: Path, path: Path) -> str:
    """A file as the device calls it, wherever its tree lies here."""
    return f"/{path.relative_to(root).as_posix()}"

"""A series in a file: one line of JSON for each point, added at its end.

Who adds to it holds the file's lock from reading to writing, so that two that end at once are both in it. A line is whole or absent: where
it cannot be written to its end, the file gets its former length back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.ending import uninterrupted
from dtvit_deploy.report.compare import Comparison
from dtvit_deploy.report.series import LAST, Point, compare_with_series, lines, points
from dtvit_deploy.report.slower import require_band

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report

LARGEST = 64 << 20
"""Bytes of a series: tens of thousands of points."""


def compare_and_add(path: Path, report: Report, *, last: int = LAST, slower: float | None = None) -> tuple[Comparison, int]:
    """Compare a report with a series, then add it; a file that is not there is made.

    Added whatever was found: a series is what was measured, and those who look for the moment of a change need the slow ones most.

    Returns:
        The comparison, and how many points were added; those of a report that is in the series already are not.

    Raises:
        InputError: the file cannot be read or written, or is no series; the report has no latency.
    """
    require_band(slower)
    new = points(report)
    with _locked(path) as file:
        earlier = _points(path, _content(path, file))
        found = compare_with_series(earlier, report, last=last, slower=slower)
        known = {one.report for one in earlier}
        added = [one for one in new if one.report not in known]
        _append(path, file, added)
    return found, len(added)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InputError(f"{path} is no file that a series can be in", remedy="give the name of a file")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)  # and with it the lock


def _content(path: Path, file: int) -> bytes:
    size = os.fstat(file).st_size
    if size > LARGEST:
        raise InputError(f"{path} is {size:,} bytes; a series has {LARGEST:,} at most", remedy="begin another file")
    try:
        return os.pread(file, size, 0)
    except OSError as error:
        raise _unusable(path, error) from error


def _points(path: Path, content: bytes) -> list[Point]:
    found = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            require_shallow_json(line)
            found.append(msgspec.json.decode(line, type=Point))
        except ValueError as error:  # msgspec's own, an encoding's and too deep a nest are each one
            raise InputError(
                f"{path}, line {number}, is no point of a series: {error}", remedy="take that line out, or give another file"
            ) from error
    return found


def _append(path: Path, file: int, added: Sequence[Point]) -> None:
    if not added:
        return
    size = os.fstat(file).st_size
    begun = size and os.pread(file, 1, size - 1) != b"\n"  # by hand: a last line without its end
    whole = b"\n" * bool(begun) + b"".join(lines(added))
    with uninterrupted():
        try:
            written = 0
            while written < len(whole):
                written += os.write(file, whole[written:])
        except OSError as error:
            os.ftruncate(file, size)
            raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be used as a series: {error.strerror}", remedy="give a file that can be written, in a folder that is there"
    )

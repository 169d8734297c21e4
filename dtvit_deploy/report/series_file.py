"""A series in a file: one line of JSON for each point, added at its end.

Who adds to it holds the file's lock from reading to writing, so that two that end at once are both in it. A line is whole or absent: where
it cannot be written to its end, the file gets its former length back. All of a report's lines are one write, which a kill or a loss of
power may still cut; what is left of a line then is cut off by the next who adds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.ending import uninterrupted
from dtvit_deploy.report.compare import Comparison
from dtvit_deploy.report.series import LAST, Point, judged, lines, points
from dtvit_deploy.report.slower import require_band

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report

LARGEST = 64 << 20
"""Bytes of a series: tens of thousands of points."""
LOCK_SECONDS = 60.0
"""How long to wait for another who adds, which takes a second or two; one that hangs would be waited for without an end."""
_BEGIN = b'{"agreement":'
"""Of every line that was written here: fields are in the order of their names."""
_CUT = "Input data was truncated"
"""What msgspec says of JSON that ends too early, and of nothing else; in the middle of a number it has other words."""


def compare_and_add(path: Path, report: Report, *, last: int = LAST, slower: float | None = None) -> tuple[Comparison, int]:
    """Compare a report with a series, then add it; a file that is not there is made.

    Added whatever was found: a series is what was measured, and those who look for the moment of a change need the slow ones most.

    Returns:
        The comparison, and how many points were added; those of a report that is in the series already are not.

    Raises:
        InputError: the file cannot be read or written, or is no series; the report has no latency.
    """
    require_band(slower)
    points(report)  # which refuses what has none, before there is a file
    with _locked(path) as file:
        content = _content(path, file)
        whole = _whole(content)
        earlier = _points(path, content[:whole])
        found, new = judged(earlier, report, last=last, slower=slower)
        known = {(one.report, one.subject) for one in earlier}
        added = [one for one in new if (one.report, one.subject) not in known]
        _append(path, file, added, whole)
    if whole < len(content):
        told = f"the last line of {path} broke off, as that of a process that was killed while it wrote, and was taken out"
        found = msgspec.structs.replace(found, notes=(*found.notes, told))
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
        _lock(path, file)
        yield file
    finally:
        os.close(file)  # and with it the lock


def _lock(path: Path, file: int) -> None:
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise InputError(
                    f"{path} has been locked by {_holder(file)} for {LOCK_SECONDS:g} s, and nothing was added",
                    remedy="wait for it to end, or end it, and compare again",
                ) from error
        except OSError as error:
            raise _unusable(path, error) from error
        else:
            return
        time.sleep(min(0.1, LOCK_SECONDS))


def _holder(file: int) -> str:
    """Who has the lock, as far as this system tells: Linux lists locks by device and inode."""
    found = os.fstat(file)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            told = line.split()
            if "->" not in told and "FLOCK" in told and place in told and (process := int(told[told.index(place) - 1])) > 0:
                return f"process {process}"
    return "another process"


def _content(path: Path, file: int) -> bytes:
    size = os.fstat(file).st_size
    if size > LARGEST:
        raise InputError(f"{path} is {size:,} bytes; a series has {LARGEST:,} at most", remedy="begin another file")
    try:
        return os.pread(file, size, 0)
    except OSError as error:
        raise _unusable(path, error) from error


def _whole(content: bytes) -> int:
    """Bytes up to a last line that breaks off in the middle of a point; all of them where none does."""
    begin = content.rfind(b"\n") + 1
    line = content[begin:]
    if not line or not (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
        return len(content)
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        return begin if str(error).startswith(_CUT) or not line.endswith(b"}") else len(content)  # half a number is told as a wrong one
    return len(content)


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


def _append(path: Path, file: int, added: Sequence[Point], whole: int) -> None:
    """Add lines behind the first ``whole`` bytes; what else is there is cut off."""
    size = os.fstat(file).st_size
    if not added and whole == size:
        return
    begun = whole and os.pread(file, 1, whole - 1) != b"\n"  # by hand: a last line without its end
    content = (b"\n" * bool(begun) + b"".join(lines(added))) if added else b""
    with uninterrupted():
        try:
            if whole < size:
                os.ftruncate(file, whole)
            written = 0
            while written < len(content):  # one write, but where the disk is nearly full, and then the next says so
                written += os.write(file, content[written:])
            os.fsync(file)
        except OSError as error:
            os.ftruncate(file, whole)
            raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be used as a series: {error.strerror}", remedy="give a file that can be written, in a folder that is there"
    )

"""A results file: one line that says what it is, then frames, each with its length and checksum; it is written while it grows, and read so.

    dtvit-deploy results 1\\n
    frame: u32 length of the payload, u32 CRC-32 of it (both big-endian), payload
    payload: a JSON object on one line, \\n, then the bytes of the arrays that it lists (C order, little-endian)

Whoever reads trusts nothing of it: lengths are looked at before memory is taken, types are from a short list, and the last frame, ``end``,
has the number of frames and the SHA-256 of every byte before it.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Mapping
from struct import Struct as Packing
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, NamedTuple

import msgspec

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"dtvit-deploy results 1\n"
LARGEST_FRAME = 64 << 20
"""Bytes of a payload."""
LARGEST_HEADER = 1 << 20
MOST_ARRAYS, MOST_AXES = 64, 8
MOST_LETTERS = 1000
"""Of an array's name."""
DTYPES = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""Types that an array may have."""
_HEAD = Packing(">II")
_Size = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_FRAME)]
Kind = Literal["job", "waiting", "begin", "part", "progress", "done", "failed", "end"]


class ResultsError(InputError):
    """A results file that is not as it was written."""


class CutOffError(ResultsError):
    """It ends within a frame: a connection was lost, or a file was cut."""


class Described(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An array in a payload."""

    name: Annotated[str, msgspec.Meta(max_length=MOST_LETTERS)]
    dtype: Annotated[str, msgspec.Meta(max_length=10)]
    shape: Annotated[tuple[_Size, ...], msgspec.Meta(max_length=MOST_AXES)]

    @property
    def bytes(self) -> int:
        """How many it takes, exactly: Python's whole numbers do not overflow."""
        width = 1 if self.dtype == "bool" else int(self.dtype.lstrip("uintfloa")) // 8
        return math.prod(self.shape) * width


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a frame says.

    Attributes:
        kind: ``job`` comes first, ``begin`` before what a task gives, ``part`` is one of its results, ``done`` or ``failed`` its end.
        task: place in the job's tasks; -1 for what belongs to none.
        index: of a part.
        body: of the kind and of the task.
        arrays: that follow.
    """

    kind: Kind
    task: Annotated[int, msgspec.Meta(ge=-1, le=1000)] = -1
    index: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0
    body: dict[str, Any] = {}
    arrays: Annotated[tuple[Described, ...], msgspec.Meta(max_length=MOST_ARRAYS)] = ()


class Frame(NamedTuple):
    """One frame: what it says, the bytes of its arrays, and how many bytes it takes in the file."""

    header: Header
    content: memoryview
    raw: bytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name, in this machine's byte order; they cannot be written to.

        Raises:
            ResultsError: a truth value is none.
        """
        import numpy as np

        found, at = {}, 0
        for one in self.header.arrays:
            piece = self.content[at : at + one.bytes]
            if one.dtype == "bool" and one.bytes and max(piece) > 1:
                raise _altered(f"a truth value of {one.name} is neither true nor false")
            values = np.frombuffer(piece, np.dtype(one.dtype).newbyteorder("<")).reshape(one.shape)
            found[one.name] = values if sys.byteorder == "little" else values.astype(one.dtype)
            at += one.bytes
        return found


def frame_bytes(
    kind: Kind, *, task: int = -1, index: int = 0, body: Mapping[str, Any] | None = None, arrays: Mapping[str, Any] | None = None
) -> bytes:
    """A frame as the file has it.

    Raises:
        InputError: it would be larger than a frame may be, or an array has a type that frames do not carry.
    """
    described, pieces = [], []
    if arrays:
        import numpy as np

        for name, array in arrays.items():
            if array.dtype.name not in DTYPES:
                raise InputError(
                    f"{name} has the type {array.dtype.name}, which results do not carry", remedy=f"types: {', '.join(DTYPES)}"
                )
            described.append(Described(name, array.dtype.name, tuple(array.shape)))
            pieces.append(np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C").tobytes())
    header = msgspec.json.encode(Header(kind=kind, task=task, index=index, body=dict(body or {}), arrays=tuple(described)))
    payload = b"".join([header, b"\n", *pieces])
    if len(payload) > LARGEST_FRAME or len(header) > LARGEST_HEADER:
        raise InputError(
            f"one result of task {task} has {len(payload):,} bytes, {len(header):,} of them words; a frame has {LARGEST_FRAME:,} at most,"
            f" and {LARGEST_HEADER:,} words",
            remedy="ask for less at a time",
        )
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read_magic(stream: BinaryIO) -> None:
    """Read the first line.

    Raises:
        ResultsError: it is another.
    """
    found = _exactly(stream, len(MAGIC))
    if found != MAGIC:
        raise ResultsError(f"this is no results file: it begins with {found[:40]!r}", remedy="give the file that the device wrote")


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame; None at the end of the file.

    Raises:
        CutOffError: the file ends within the frame.
        ResultsError: the frame is not as it was written, or claims what no frame may.
    """
    head = stream.read(_HEAD.size)
    if not head:
        return None
    head += _exactly(stream, _HEAD.size - len(head)) if len(head) < _HEAD.size else b""
    length, checksum = _HEAD.unpack(head)
    if not 0 < length <= LARGEST_FRAME:
        raise _altered(f"a frame claims {length:,} bytes, and {LARGEST_FRAME:,} are the most")
    payload = _exactly(stream, length)
    if zlib.crc32(payload) != checksum:
        raise _altered("the checksum of a frame does not fit its bytes")
    end = payload.find(b"\n", 0, LARGEST_HEADER + 1)
    if end < 0:
        raise _altered("a frame has no line that says what it is")
    try:
        require_shallow_json(payload[:end])
        header = msgspec.json.decode(payload[:end], type=Header)
    except ValueError as error:
        raise _altered(f"a frame says what no frame does: {error}") from error
    if len({one.name for one in header.arrays}) != len(header.arrays) or any(one.dtype not in DTYPES for one in header.arrays):
        raise _altered("a frame lists an array twice, or one of an unknown type")
    content = memoryview(payload)[end + 1 :]
    if sum(one.bytes for one in header.arrays) != len(content):
        raise _altered(f"the arrays of a frame should have {sum(one.bytes for one in header.arrays):,} bytes, and it has {len(content):,}")
    return Frame(header, content, head + payload)


def _altered(what: str) -> ResultsError:
    return ResultsError(f"the results were altered, or damaged on their way: {what}", remedy="have the device write them again")


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes, taken in pieces: a length that is a lie takes no more memory than what is there.

    Raises:
        CutOffError: there are fewer.
    """
    pieces, left = [], count
    while left:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            raise CutOffError("the results end within a frame", remedy="fetch the whole file from the device")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)

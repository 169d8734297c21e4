"""Ready feeds of an ``.npz`` file, read a sample at a time: the file may be larger than the memory."""

from __future__ import annotations

import math
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, overload

from dtvit_deploy.artifacts.archive import data_offset
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dtvit_deploy.calibration.feeds import Feed

LARGEST_NPZ = 4 << 30
"""Bytes of all arrays of a compressed file, unpacked; one that is not compressed may be as large as it is."""
_PIECE = 1 << 20
_Refusal = Callable[[str], InputError]


class _Open:
    """A file that is closed when nobody can read of it any more: feeds are kept for as long as somebody measures with them."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        weakref.finalize(self, file.close)


@dataclass(frozen=True)
class _Rows:
    """Where the samples of one input lie, one after the other, in an open file."""

    source: _Open
    start: int
    dtype: np.dtype[Any]
    spec: TensorSpec

    def row(self, index: int) -> NDArray[Any]:
        import numpy as np

        content = bytearray(math.prod(self.spec.shape) * self.dtype.itemsize)
        file: Any = self.source.file
        file.seek(self.start + index * len(content))
        if file.readinto(content) != len(content):
            raise InputError(f"{self.spec.name} ended while it was read", remedy="leave the file as it is for so long")
        return np.frombuffer(content, self.dtype).reshape(self.spec.shape).astype(self.spec.dtype, copy=False)


@dataclass(frozen=True)
class _Held:
    """Samples of one input that do not lie one after the other, and are held in memory."""

    every: NDArray[Any]

    def row(self, index: int) -> NDArray[Any]:
        sample: NDArray[Any] = self.every[index, ...]
        return sample


@dataclass(frozen=True)
class _Origin:
    """The file that feeds are read from, for another process to open: an open file cannot be sent there.

    Attributes:
        sums: the CRC-32 of every array, which the archive holds and reading it has proved.
    """

    path: Path
    signature: Signature
    sums: dict[str, int]


class StoredFeeds(Sequence["Feed"]):
    """Feeds that are read when they are asked for; a slice is another view of the same file, and so is what another process is sent."""

    def __init__(self, rows: dict[str, _Rows | _Held], places: range, origin: _Origin) -> None:
        self._rows, self._places, self._origin = rows, places, origin

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> StoredFeeds: ...
    def __getitem__(self, index: int | slice) -> Feed | StoredFeeds:
        if isinstance(index, slice):
            return StoredFeeds(self._rows, self._places[index], self._origin)
        place = self._places[index]
        return {name: rows.row(place) for name, rows in self._rows.items()}

    def __reduce__(self) -> tuple[object, ...]:
        return _opened_again, (self._origin, self._places)


def _opened_again(origin: _Origin, places: range) -> StoredFeeds:
    """The same feeds in another process.

    Raises:
        InputError: the file is another one by now, or cannot be read there.
    """
    feeds = load_feeds(origin.path, origin.signature)
    if feeds._origin.sums != origin.sums:
        raise InputError(f"{origin.path} was changed while it was measured with", remedy="leave the file as it is for so long")
    return StoredFeeds(feeds._rows, places, feeds._origin)


def load_feeds(path: Path, signature: Signature) -> StoredFeeds:
    """Feeds from an ``.npz`` file that holds one array for each input, by its name, with samples along the first axis.

    For an input of shape S the array has the shape (N, *S), or, where S begins with a batch of 1, (N, *S[1:]).
    Nothing in the file is run or believed: sizes are checked from the headers before memory is taken for them, and every value is read
    once, in pieces, before any is used. A compressed file is unpacked to a temporary one, which has no name.

    Raises:
        InputError: the file cannot be read, is damaged or too large, an input is missing, unknown, of another shape or type, the
            inputs have different numbers of samples, or a value is NaN.
    """
    remedy = f"write it with numpy.savez, one array for each input with samples along the first axis: {_listed(signature)}"

    def refuse(message: str) -> InputError:
        return InputError(f"{path}: {message}", remedy=remedy)

    try:
        if not path.is_file():  # a named pipe would be waited for
            raise refuse("is no file" if path.exists() else "does not exist")
        source = _Open(path.open("rb"))
        with zipfile.ZipFile(source.file) as archive:
            rows, counts = _rows(archive, source, signature, refuse)
            sums = {info.filename: info.CRC for info in archive.infolist()}
    except InputError:
        raise
    # A hostile archive makes zipfile and numpy raise whatever they run into: BadZipFile, zlib.error, ValueError, RuntimeError (a
    # password), NotImplementedError (a compression), EOFError, MemoryError, …
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise refuse(f"cannot be read as an .npz file of feeds: {reason}") from error
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise refuse(f"every input needs the same number of samples, at least 1; {listed}")
    origin = _Origin(path.absolute(), signature, sums)
    return StoredFeeds(rows, range(min(counts.values(), default=0)), origin)


def _rows(
    archive: zipfile.ZipFile, source: _Open, signature: Signature, refuse: _Refusal
) -> tuple[dict[str, _Rows | _Held], dict[str, int]]:
    """Rows of every input, and how many there are."""
    members = archive.infolist()
    found, wanted = {info.filename for info in members}, {f"{spec.name}.npy" for spec in signature.inputs}
    if found != wanted:
        names = ", ".join(sorted(name.removesuffix(".npy") for name in found)) or "none"
        raise refuse(f"the arrays are {names}; the inputs are {_listed(signature)}")
    unpacked = sum(info.file_size for info in members)
    if unpacked > max(LARGEST_NPZ, source.file.seek(0, 2)):
        raise refuse(f"unpacks to {unpacked:,} bytes; at most {LARGEST_NPZ:,} are read")
    read = {spec.name: _read(archive, source, spec, refuse) for spec in signature.inputs}
    return {name: rows for name, (rows, _) in read.items()}, {name: count for name, (_, count) in read.items()}


def _read(archive: zipfile.ZipFile, source: _Open, spec: TensorSpec, refuse: _Refusal) -> tuple[_Rows | _Held, int]:
    """The samples of one input, once its header is found to describe that input and the bytes that follow it, and their number."""
    import numpy as np

    npy: Any = np.lib.format  # older releases of NumPy give it no types
    info = archive.getinfo(f"{spec.name}.npy")
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if header is None:  # version 3 is for records with foreign names, which no input is
            raise refuse(f"{spec.name} is written in version {version[0]}.{version[1]} of the .npy format")
        shape, in_fortran_order, dtype = header(stream)
        begins = stream.tell()
    batched = spec.shape[:1] == (1,) and shape[1:] == spec.shape[1:]
    if dtype.name != spec.dtype or dtype.kind not in "fiub" or not (shape[1:] == spec.shape or batched) or not shape:
        alternative = f" or N×{'×'.join(map(str, spec.shape[1:]))}" if spec.shape[:1] == (1,) else ""
        raise refuse(
            f"{spec.name} is {'×'.join(map(str, shape)) or 'scalar'} {dtype.name}; "
            f"expected {'×'.join(map(str, ('N', *spec.shape)))}{alternative} {spec.dtype}"
        )
    if math.prod(shape) * dtype.itemsize != info.file_size - begins:
        raise refuse(f"{spec.name} says it has {'×'.join(map(str, shape))} values, and {info.file_size - begins:,} bytes follow")
    if in_fortran_order and len(shape) > 1:
        return _held(archive, info, spec, shape[0], refuse), shape[0]
    stored = info.compress_type == zipfile.ZIP_STORED
    unpacked = None if stored else _Open(tempfile.TemporaryFile())  # noqa: SIM115 closed with the rows
    with archive.open(info) as stream:
        stream.read(begins)
        _check(stream, unpacked, dtype, spec, refuse)
    if unpacked is not None:
        return _Rows(unpacked, 0, dtype, spec), shape[0]
    return _Rows(source, data_offset(source.file, info) + begins, dtype, spec), shape[0]


def _check(stream: IO[bytes], copy: _Open | None, dtype: np.dtype[Any], spec: TensorSpec, refuse: _Refusal) -> None:
    """Read every value once, a piece at a time, which checks the archive's sums too, and write it to ``copy``.

    Infinity is left alone: a mask may well use it.
    """
    import numpy as np

    each, before = math.prod(spec.shape), 0
    while piece := stream.read(_PIECE // dtype.itemsize * dtype.itemsize):
        values = np.frombuffer(piece, dtype)
        if dtype.kind == "f" and (wrong := np.isnan(values)).any():
            raise refuse(f"{spec.name} holds NaN in sample {(before + int(wrong.argmax())) // each}")
        before += len(values)
        if copy is not None:
            copy.file.write(piece)


def _held(archive: zipfile.ZipFile, info: zipfile.ZipInfo, spec: TensorSpec, count: int, refuse: _Refusal) -> _Held:
    """An array in Fortran's order, whose samples are strewn over the file; no program that writes feeds one by one makes such."""
    import numpy as np

    npy: Any = np.lib.format
    if info.file_size > LARGEST_NPZ:
        raise refuse(f"{spec.name} is in Fortran's order and has {info.file_size:,} bytes; at most {LARGEST_NPZ:,} are read so")
    with archive.open(info) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    for sample, values in enumerate(array):
        if np.isnan(values).any():
            raise refuse(f"{spec.name} holds NaN in sample {sample}")
    return _Held(np.ascontiguousarray(array, np.dtype(spec.dtype)).reshape(count, *spec.shape))


def _listed(signature: Signature) -> str:
    return ", ".join(map(str, signature.inputs)) or "none"

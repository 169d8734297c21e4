"""The files of `torch.save`, in both of its formats, read as data: see :mod:`dtvit_deploy.models.inert`.

The newer format is a zip archive with a pickle, ``data.pkl``, and a record for each storage. The older is a row of pickles, of which
the fourth is the value, followed by the storages. A tensor is a view of a storage, and is made when somebody wants it: of a file with the
state of an optimizer beside the weights, only the weights take memory.
"""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dtvit_deploy.artifacts.archive import data_offset, require_intact
from dtvit_deploy.models.inert import Named, Reader, UnreadableError

LARGEST_PICKLE = 1 << 28
"""Bytes of ``data.pkl``; the tensors are not in it."""
MOST_DIMENSIONS = 64
"""Of a tensor, as torch has it: one shape of a million could be that of a million tensors."""
NO_CHECKSUMS = "the file was saved without checksums, so that damage to it cannot be seen"

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of the older format."""
_OLDER = 1001
_TORCHSCRIPT = "constants.pkl"
_NUMBERS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


class DamagedError(ValueError):
    """The file is not what its own tables say."""


class CompressedError(DamagedError):
    """Its records unpack to more than the file has."""


class TorchScriptError(UnreadableError):
    """It is a program, not what torch.save wrote."""


@dataclass(eq=False, slots=True)
class Storage:
    """A row of numbers in the file; ``count`` of them, of one type."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A tensor in the file: a view of a storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchFile:
    """An open file.

    Attributes:
        value: what was saved, with :class:`Stored` for tensors.
        notes: what is to be said of the file.
    """

    value: Any
    notes: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}  # of storages: first byte, bytes
        self._read: dict[str, Tensor] = {}
        self._reader = Reader(_built, _storage)

    def tensor(self, stored: Stored) -> Tensor:
        """The tensor itself; those that share a storage in the file share it here.

        Raises:
            DamagedError: it reaches beyond its storage, or that beyond the file.
        """
        storage = stored.storage
        if storage.key not in self._read:
            self._read[storage.key] = self._bytes(storage)
        raw = self._read[storage.key]
        item = stored.dtype.itemsize
        try:
            values = raw[: len(raw) // item * item].view(stored.dtype) if stored.dtype is not torch.bool else raw != 0
            return values.as_strided(stored.shape, stored.stride, stored.offset)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise DamagedError(f"a tensor of {stored.shape} at {stored.offset} does not fit its {storage.count} numbers") from error

    def _bytes(self, storage: Storage) -> Tensor:
        if storage.key not in self._places:
            raise DamagedError(f"the storage {storage.key} is not in the file")
        start, size = self._places[storage.key]
        wanted = storage.count * storage.dtype.itemsize
        if wanted > size:
            raise DamagedError(f"the storage {storage.key} has {size:,} bytes, not the {wanted:,} of its {storage.count:,} numbers")
        content = bytearray(wanted)
        self._file.seek(start)
        if self._file.readinto(content) != wanted:  # type: ignore[attr-defined]
            raise DamagedError(f"the storage {storage.key} is cut off")
        return torch.frombuffer(content, dtype=torch.uint8) if wanted else torch.empty(0, dtype=torch.uint8)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TorchFile]:
    """A file of `torch.save`, for as long as its tensors are wanted.

    Raises:
        DamagedError: it is cut off, or its checksums do not fit; CompressedError: it is compressed.
        UnreadableError: it is of another kind; TorchScriptError: of that one.
        UnsafeError: it calls what no data are made with.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        found = _Zipped(file) if file.read(4) == b"PK\x03\x04" else _Rowed(file)
        yield found


class _Zipped(TorchFile):
    """The format since torch 1.6."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
        names = [record.filename for record in records]
        if any(name.partition("/")[2] == _TORCHSCRIPT for name in names):
            raise TorchScriptError("it is a TorchScript archive")
        size = file.seek(0, 2)
        unpacked = sum(record.file_size for record in records)
        if unpacked > size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CompressedError(f"is compressed, as torch.save never does it: {size:,} bytes that unpack to {unpacked:,}")
        if len(set(names)) < len(names):
            raise DamagedError("has two records of one name")
        # torch.serialization.set_crc32_options(False) writes 0 for all of them, which a flipped bit cannot.
        if any(record.CRC for record in records):
            for record in records:
                require_intact(file, record)
        else:
            self.notes = (NO_CHECKSUMS,)
        top = names[0].partition("/")[0]
        known = {record.filename.removeprefix(f"{top}/"): record for record in records}
        if "data.pkl" not in known:
            raise UnreadableError("it is a zip archive without data.pkl")
        self._places = {
            name.removeprefix("data/"): (data_offset(file, record), record.file_size)
            for name, record in known.items()
            if name.startswith("data/")
        }
        if self._content(known, "byteorder", sys.byteorder.encode()) != sys.byteorder.encode():
            raise UnreadableError("it was saved on a machine of the other byte order")
        self.value = self._reader.read(self._content(known, "data.pkl", b""))

    def _content(self, known: dict[str, zipfile.ZipInfo], name: str, absent: bytes) -> bytes:
        if name not in known:
            return absent
        if known[name].file_size > LARGEST_PICKLE:
            raise UnreadableError(f"its {name} has {known[name].file_size:,} bytes")
        self._file.seek(data_offset(self._file, known[name]))
        return self._file.read(known[name].file_size)


class _Rowed(TorchFile):
    """The format before torch 1.6, and of ``_use_new_zipfile_serialization=False``."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        size = file.seek(0, 2)
        file.seek(0)
        row: Any = _Bounded(file, size)
        first = self._reader.read(row)
        if first != _MAGIC:
            self.value = first  # a plain pickle, in which whoever asks will find no tensors
            return
        if (version := self._reader.read(row)) != _OLDER:
            raise UnreadableError(f"it is of version {_said(version)} of torch's older format")
        system = self._reader.read(row)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise UnreadableError("it was saved on a machine of the other byte order")
        storages: dict[str, Storage] = {}

        def remembered(what: Any) -> Any:
            if isinstance(what, tuple) and len(what) == 4 and what[0] == "module":
                return what[1]  # the class of a layer; the older format keeps its source beside it
            found = _storage(what)
            storages.setdefault(found.key, found)
            return found

        self._reader.persistent = remembered
        self.value = self._reader.read(row)
        keys = self._reader.read(row)
        at = file.tell()
        for key in map(_key, keys):
            if key not in storages:
                raise DamagedError(f"the storage {key} is of nothing in the file")
            file.seek(at)
            count = int.from_bytes(file.read(8), "little")
            length = count * storages[key].dtype.itemsize
            if at + 8 + length > size:
                raise DamagedError(f"the storage {key} is cut off")
            self._places[key] = (at + 8, length)
            at += 8 + length


class _Bounded:
    """A file that is never asked for more than it has: to be asked for 4 GB, Python takes 4 GB first."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


def _storage(what: Any) -> Storage:
    """The storage of a persistent id: ("storage", type, key, where it was, how many numbers), and in the older format a view of it."""
    if not isinstance(what, tuple) or len(what) not in (5, 6) or what[0] != "storage" or (len(what) == 6 and what[5] is not None):
        raise UnreadableError("it refers to something that is no storage")
    _, kind, key, _, count = what[:5]
    name = kind.name if isinstance(kind, Named) else ""
    if name not in _NUMBERS or not isinstance(count, int) or count < 0:
        raise UnreadableError(f"it has a storage of the type {_said(kind)}")
    return Storage(_key(key), _NUMBERS[name], count)


def _key(key: Any) -> str:
    """What a storage is called: a number or a text, and nothing that would have to be written out."""
    if not isinstance(key, str | int):
        raise UnreadableError(f"it has a storage that is called by a {type(key).__name__}")
    return str(key)


def _said(value: Any) -> str:
    """A value in a message; of what can hold others, only the type, since they may be written into each other without end."""
    return str(value) if isinstance(value, str | int | float | Named) else type(value).__name__


def _built(callee: Named, arguments: tuple[Any, ...]) -> Any:
    """A tensor of one of the calls by which torch saves plain ones; None for any other call."""
    name = str(callee)
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"):
        storage, offset, shape, stride = arguments[:4]
        if not isinstance(storage, Storage):
            raise UnreadableError("its tensors were written by pickle.dump, not by torch.save")
        if any(not isinstance(one, tuple | list) or len(one) > MOST_DIMENSIONS for one in (shape, stride)):
            raise UnreadableError("it has a tensor of no shape")
        dtype: Any = storage.dtype
        if name.endswith("v3"):  # the storage has no type there
            dtype = vars(torch).get(arguments[6].name) if isinstance(arguments[6], Named) else None  # getattr would import for some names
        numbers = (offset, *shape, *stride)
        if not isinstance(dtype, torch.dtype) or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise UnreadableError("it has a tensor of no shape or type")
        return Stored(storage, dtype, offset, tuple(shape), tuple(stride))
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2" and isinstance(arguments[0], Named) and isinstance(arguments[2], tuple):
        if arguments[0] == callee:
            raise UnreadableError("it has a tensor that is made in a circle")
        return _built(arguments[0], arguments[2])  # a tensor with attributes of its own
    if name == "torch.Size" and isinstance(arguments[0], tuple):
        return arguments[0]
    return None

"""Weights in MIL's blob storage, version 2, the ``weight.bin`` of a package.

The layout is that of ``StorageFormat.hpp`` in https://github.com/apple/coremltools/tree/main/mlmodel/src/MILBlob/Blob: a header of 64
bytes, then pairs of 64 bytes of metadata and the data, each at a multiple of 64. A program refers to a blob by its metadata's offset.
Every number of it is checked, since a file can say anything.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.mil.program import HELD

HEADER = struct.Struct("<II")
"""Count of blobs, version."""
METADATA = struct.Struct("<IIQQ")
"""Sentinel, type, size in bytes, offset of the data."""
ENTRY = 64
SENTINEL = 0xDEADBEEF
VERSION = 2
TYPES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}
"""``BlobDataType`` of that format, by MIL's names."""
REMEDY = "export the package again, or fetch a whole copy of it"


class BlobFile:
    """One file of weights; each blob is read when it is asked for, and kept, as constants share blobs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                header = file.read(HEADER.size)
            self._size = path.stat().st_size
        except OSError as error:
            raise InputError(f"the package's weights {path.name} cannot be read: {error.strerror or error}", remedy=REMEDY) from error
        if self._size < ENTRY or HEADER.unpack(header)[1] != VERSION:
            raise InputError(f"{path.name} is not a file of weights in blob storage version {VERSION}", remedy=REMEDY)
        self.tensor = cache(self._tensor)

    def _tensor(self, offset: int, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The blob whose metadata is at ``offset``.

        Raises:
            InputError: there is none, or it is of another type or size than the program declares.
        """
        count = math.prod(shape)
        expected = math.ceil(count * HELD[dtype].bits / 8)
        where = f"the blob at byte {offset} of {self._path.name}"
        if offset % ENTRY or offset + ENTRY > self._size:
            raise InputError(f"{where} does not exist: the file has {self._size:,} bytes", remedy=REMEDY)
        with self._path.open("rb") as file:
            file.seek(offset)
            sentinel, kind, size, start = METADATA.unpack(file.read(METADATA.size))
            if sentinel != SENTINEL:
                raise InputError(f"{where} does not exist: no metadata are there", remedy=REMEDY)
            if TYPES.get(kind) != dtype or size != expected:
                found = f"{size:,} bytes of {TYPES.get(kind, f'type {kind}')}"
                raise InputError(f"{where} has {found}, the program declares {expected:,} of {dtype}", remedy=REMEDY)
            if start + size > self._size:
                raise InputError(f"{where} ends at byte {start + size:,}, the file at {self._size:,}", remedy=REMEDY)
            file.seek(start)
            data = file.read(size)
        return tensor_from_bytes(data, dtype, shape)


def tensor_from_bytes(data: bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Values as they lie in a file, packed from the lowest bit upwards where they are smaller than a byte."""
    held, count = HELD[dtype], math.prod(shape)
    if len(data) != math.ceil(count * held.bits / 8):
        raise InputError(f"{len(data):,} bytes are not {count:,} values of {dtype}", remedy=REMEDY)
    values: NDArray[Any]
    if held.bits < 8:
        values = unpacked(np.frombuffer(data, np.uint8), held.bits, count)
        if dtype == "int4":
            values = (values ^ 8).astype(np.int8) - np.int8(8)
    else:
        values = np.frombuffer(data, held.stored)
    return held_tensor(values, dtype).reshape(shape)


def held_tensor(values: NDArray[Any], dtype: str) -> torch.Tensor:
    """A copy of an array as values of a MIL type are held."""
    kind = HELD[dtype].torch
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    if wide.dtype in (np.uint16, np.uint32, np.uint64):
        wide = wide.astype(np.int64)
    return torch.from_numpy(np.array(wide)).to(kind)


def unpacked(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Unsigned values of some bits each, the lowest bit first."""
    each = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(each, axis=1, bitorder="little")[:, 0]

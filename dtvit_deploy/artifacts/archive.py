"""Where the bytes of a member lie in a zip archive that compresses nothing: `.pt` and `.npz` files are such archives."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import BinaryIO

_LOCAL = struct.Struct("<4s22xHH")
"""The local header: signature, … , length of the name, length of the extra field. The name, the extra field and the bytes follow."""
_PIECE = 1 << 20


def data_offset(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Position in ``file`` of the first byte of a stored member.

    Raises:
        zipfile.BadZipFile: there is no such member there, it is compressed or encrypted, or reaches beyond the end of the file.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise zipfile.BadZipFile(f"{member.filename} is compressed or encrypted")
    file.seek(member.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size:
        raise zipfile.BadZipFile(f"the header of {member.filename} is cut off")
    signature, name, extra = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"the header of {member.filename} is not where the archive says")
    start = member.header_offset + _LOCAL.size + name + extra
    if start + member.file_size > file.seek(0, 2):
        raise zipfile.BadZipFile(f"{member.filename} reaches beyond the end of the file")
    return int(start)


def require_intact(file: BinaryIO, member: zipfile.ZipInfo) -> None:
    """Hold a stored member's bytes against the checksum that the archive has of them, a piece at a time.

    Raises:
        zipfile.BadZipFile: they are others, or as `data_offset`.
    """
    file.seek(data_offset(file, member))
    left, checksum = member.file_size, 0
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise zipfile.BadZipFile(f"{member.filename} is cut off")
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    if checksum != member.CRC:
        raise zipfile.BadZipFile(f"the checksum of {member.filename} does not fit its bytes (CRC-32 {checksum:08x}, not {member.CRC:08x})")

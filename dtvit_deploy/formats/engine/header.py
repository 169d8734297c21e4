"""What an engine's own bytes say of it, read without any of NVIDIA's libraries.

Both formats begin alike: a tag (``ftrt`` for TensorRT, ``vtrt`` for TensorRT-RTX), a serialisation version of 0 in four bytes, and at 24
the library's version, one byte each for major, minor, patch and build. For TensorRT that is how NVIDIA's own trtexec reads a plan:
`printPlanVersion` in https://github.com/NVIDIA/TensorRT/blob/v10.3.0/samples/common/sampleEngines.cpp, unchanged in v11.1. Nothing else of
its layout is claimed here. torch-tensorrt tells a plan by the same tag.

For TensorRT-RTX it was observed, with the rest, in engines built by release 1.7.1.116 (each capability alone and in all pairs, FP32 and
FP16, with weights and without); NVIDIA does not document it. Numbers are little-endian::

    0   vtrt
    4   u32   0
    8   u64   number of sections: 2
    16  u64   size of the whole file
    24  4×u8  version: 1 7 1 116
    28  vtrt
    32  u32   compute capabilities, a bit each: 7.5 8.0 8.6 8.9 12.0 12.1 (7.5 alone is 01, 8.9 and 12.0 are 18, all are 3f;
              7e where none was named: the default leaves Turing out)
    56  u64   bytes that the weights take on the GPU: the size of their section; 0 where weights are streamed
    64  the sections, 24 bytes each: a tag, u32 0, u64 offset, u64 size. NGNE is the code; THGW the weights, of their size in the graph
        (up to 300² values exactly, 256 bytes more with 512²)
    -4  the complement of ftrt

Of another release only what comes before 28 is believed.
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from dtvit_deploy.errors import InputError

TAGS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""TensorRT-RTX's compute capabilities, in the order of their bits."""
LIBRARY_HEADER = 28
"""Bytes of what both formats begin with."""
_OBSERVED = "1.7."
_FIXED = struct.Struct("<4sIQQ4B4sI20xQ")
_SECTION = struct.Struct("<4s4xQQ")
_MOST_SECTIONS = 16
_HEAD = 4096
_SEAL = bytes(0xFF ^ byte for byte in b"ftrt")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """An engine, by its own account.

    Attributes:
        library: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library that built it, four numbers.
        size: of the file.
        declared: the size that the header gives; None where it is not known to give one.
        capabilities: compute capabilities it has code for; None where the header is not known to say.
        gpu_weights: bytes that its weights take on the GPU; None where unknown.
        sections: tag → bytes.
        faults: what in the header does not fit the rest of the file, in words.
    """

    library: str
    version: str
    size: int
    declared: int | None = None
    capabilities: tuple[str, ...] | None = None
    gpu_weights: int | None = None
    sections: dict[str, int] = {}
    faults: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """Bytes that were cut off its end."""
        return max((self.declared or 0) - self.size, 0)


class NotAnEngineError(InputError):
    """The file is no engine.

    Attributes:
        size: of the file; 0 is the empty one.
        cut: whether it begins as an engine does and ends within the header.
    """

    def __init__(self, message: str, *, size: int, cut: bool = False, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.size = size
        self.cut = cut


def read_header(path: Path) -> Header:
    """Read what the file says of itself: a few kilobytes, whatever its size.

    Raises:
        NotAnEngineError: it is empty, something else, or too short for a header.
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
            file.seek(max(size - len(_SEAL), 0))
            end = file.read(len(_SEAL))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise NotAnEngineError(f"{path.name} is empty: 0 bytes", size=0)
    library = TAGS.get(head[:4])
    if library is None:
        what, remedy = recognised(head)
        raise NotAnEngineError(f"{path.name} is {what}", size=size, remedy=remedy)
    if len(head) < LIBRARY_HEADER:
        raise NotAnEngineError(f"{path.name} ends after {size} bytes, within the header", size=size, cut=True)
    if head[4:8] != bytes(4):
        return Header(library=library, version="", size=size, faults=("the version of its serialisation is not 0, the one known",))
    version = ".".join(map(str, head[24:28]))
    if library != "tensorrt-rtx" or not version.startswith(_OBSERVED):
        return Header(library=library, version=version, size=size)
    if len(head) < _FIXED.size:
        raise NotAnEngineError(f"{path.name} ends after {size} bytes, within the header", size=size, cut=True)
    return _observed(head, end, version, size)


def _observed(head: bytes, end: bytes, version: str, size: int) -> Header:
    """The whole header of a TensorRT-RTX engine; ``head`` holds at least its fixed part."""
    _, _, count, declared, *_, tag, mask, weights = _FIXED.unpack_from(head)
    faults = [] if tag == b"vtrt" else ["the tag in the middle of its header is not vtrt"]
    if not mask or mask >> len(CAPABILITIES):
        faults.append(f"its compute capabilities {mask:#x} are not known ones")
    sections = {}
    if not 1 <= count <= _MOST_SECTIONS or len(head) < _FIXED.size + count * _SECTION.size:
        if declared <= size:
            faults.append(f"it claims {count} sections")
        count = 0
    for number in range(count):
        name, offset, length = _SECTION.unpack_from(head, _FIXED.size + number * _SECTION.size)
        if not _FIXED.size <= offset <= offset + length <= declared:
            faults.append(f"section {number + 1} lies outside the file")
        sections[name.decode("ascii", "backslashreplace")] = length
    if declared == size and end != _SEAL:
        faults.append("it does not end as engines do")
    capabilities = tuple(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
    return Header(
        library="tensorrt-rtx",
        version=version,
        size=size,
        declared=declared,
        capabilities=capabilities or None,
        gpu_weights=weights,
        sections=sections,
        faults=tuple(faults),
    )


def recognised(head: bytes) -> tuple[str, str]:
    """What a file that is no engine is, by its first bytes, and what to do about it."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file that it points to", "fetch the file itself: git lfs pull"
    if head[:4] == b"PK\3\4":
        return "a ZIP archive, as PyTorch's .pt and .pt2 files are", "export it first: dtvit-deploy export --target trt"
    if head[:2] == b"\x1f\x8b":
        return "compressed by gzip", "unpack it first: gunzip or tar -xzf"
    if head[:2] == b"\x80\x02" or head[:2] == b"\x80\x04":
        return "a Python pickle, as old PyTorch checkpoints are", "export it first: dtvit-deploy export --target trt"
    if _after_length(head, 8).startswith(b'{"'):
        return "a safetensors file: weights without a network", "export it first: dtvit-deploy export --target trt"
    if _after_length(head, 4).startswith(b"{"):  # as Ultralytics writes them; trtexec and the libraries read neither
        return (
            "an engine or something else behind metadata in JSON, which no TensorRT library reads",
            "cut off the metadata, or export anew",
        )
    if _is_onnx(head):
        return "an ONNX graph, which has yet to be compiled", "export it first: dtvit-deploy export --target trt"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] in (b"{", b"["):
        return "JSON: a manifest or a report, not the engine beside it", "give the engine's folder"
    if text[:1] == b"<":
        return "HTML or XML: a web page that was saved in the engine's place, perhaps", "download the file itself"
    if not text or (head.isascii() and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)):
        return "text", "give the engine's folder"
    if not any(head):
        return "nothing but zero bytes, as an interrupted copy leaves", "copy or download it again"
    return "no engine, and nothing else that is known here", "give the folder that `dtvit-deploy export --target trt` wrote"


def _after_length(head: bytes, width: int) -> bytes:
    """What follows a length in the first bytes, if it is one that a header of text could have."""
    length = int.from_bytes(head[:width], "little")
    return head[width:] if 2 <= length <= 100 << 20 else b""


def _is_onnx(head: bytes) -> bool:
    # A serialised ModelProto starts with its first field, ir_version, as a varint, and then the producer's name, a graph or an opset.
    return len(head) > 3 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42)

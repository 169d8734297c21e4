"""An engine's own bytes: read as far as they are known, and never believed further than they fit together."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.header import Header, NotAnEngineError, read_header

CODE, WEIGHTS = 300, 1024


def rtx_engine(version: tuple[int, int, int, int] = (1, 7, 1, 116), mask: int = 0x18, declared: int | None = None) -> bytes:
    """An engine as TensorRT-RTX 1.7.1 lays it out, written by hand."""
    start = 64 + 2 * 24
    weights = start + CODE + 4  # the weights' section is aligned to 8 bytes
    total = weights + WEIGHTS + 4
    head = struct.pack("<4sIQQ4B4sI20xQ", b"vtrt", 0, 2, total if declared is None else declared, *version, b"vtrt", mask, WEIGHTS)
    sections = struct.pack("<4s4xQQ4s4xQQ", b"NGNE", start, CODE, b"THGW", weights, WEIGHTS)
    return head + sections + b"ptrtd" + bytes(CODE + 4 - 5) + b"\1" * WEIGHTS + b"\x99\x8b\x8d\x8b"


def plan(version: tuple[int, int, int, int] = (10, 3, 0, 26)) -> bytes:
    """The part of a TensorRT plan that trtexec reads, and some more."""
    return struct.pack("<4sI16x4B", b"ftrt", 0, *version) + bytes(range(256)) * 4


def header(tmp_path: Path, content: bytes) -> Header:
    path = tmp_path / "model.engine"
    path.write_bytes(content)
    return read_header(path)


def refused(tmp_path: Path, content: bytes) -> NotAnEngineError:
    with pytest.raises(NotAnEngineError) as caught:
        header(tmp_path, content)
    return caught.value


class TestTensorRtRtx:
    def test_it_says_by_what_and_for_what_it_was_built(self, tmp_path: Path) -> None:
        found = header(tmp_path, rtx_engine())
        assert (found.library, found.version) == ("tensorrt-rtx", "1.7.1.116")
        assert found.capabilities == ("8.9", "12.0")
        assert found.declared == found.size == len(rtx_engine())
        assert found.sections == {"NGNE": CODE, "THGW": WEIGHTS}
        assert found.gpu_weights == WEIGHTS
        assert found.faults == ()

    @pytest.mark.parametrize(
        ("mask", "capabilities"),
        [(0x01, "7.5"), (0x02, "8.0"), (0x04, "8.6"), (0x08, "8.9"), (0x10, "12.0"), (0x20, "12.1"), (0x3F, "7.5 8.0 8.6 8.9 12.0 12.1")],
    )
    def test_every_capability_has_its_bit(self, tmp_path: Path, mask: int, capabilities: str) -> None:
        assert header(tmp_path, rtx_engine(mask=mask)).capabilities == tuple(capabilities.split())

    def test_what_was_cut_off_is_counted(self, tmp_path: Path) -> None:
        whole = rtx_engine()
        found = header(tmp_path, whole[:700])
        assert found.missing == len(whole) - 700
        assert found.faults == ()

    def test_of_another_release_only_the_version_is_believed(self, tmp_path: Path) -> None:
        found = header(tmp_path, rtx_engine((1, 8, 0, 3), mask=0xFF00, declared=7))
        assert found == Header(library="tensorrt-rtx", version="1.8.0.3", size=len(rtx_engine()))

    @pytest.mark.parametrize(
        ("offset", "content", "fault"),
        [
            (4, b"\1", "serialisation"),
            (8, b"\0", "0 sections"),
            (8, b"\xff" * 8, "sections"),
            (28, b"x", "tag in the middle"),
            (32, b"\0", "0x0 are not known"),
            (32, b"\x58", "0x58 are not known"),
            (72, b"\xff" * 8, "section 1 lies outside"),
            (72, b"\0", "section 1 lies outside"),
            (104, b"\xff" * 8, "section 2 lies outside"),
            (-1, b"\0", "does not end as engines do"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path: Path, offset: int, content: bytes, fault: str) -> None:
        changed = bytearray(rtx_engine())
        offset %= len(changed)
        changed[offset : offset + len(content)] = content
        assert any(fault in each for each in header(tmp_path, bytes(changed)).faults)


class TestTensorRt:
    def test_its_version_is_read_as_trtexec_does(self, tmp_path: Path) -> None:
        found = header(tmp_path, plan())
        assert found == Header(library="tensorrt", version="10.3.0.26", size=len(plan()))

    def test_an_unknown_serialisation_has_no_version(self, tmp_path: Path) -> None:
        content = bytearray(plan())
        content[4] = 1
        found = header(tmp_path, bytes(content))
        assert found.version == ""
        assert found.faults


class TestWhatIsNoEngine:
    @pytest.mark.parametrize(
        ("content", "what", "remedy"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer", "git lfs pull"),
            (b"PK\3\4" + bytes(40), "ZIP archive", "export"),
            (b"\x1f\x8b\x08" + bytes(40), "gzip", "unpack"),
            (b"\x80\x02}q\0", "pickle", "export"),
            ((44).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1]}}', "safetensors", "export"),
            ((9).to_bytes(4, "little") + b'{"a": 1} ' + plan(), "metadata in JSON", "metadata"),
            (b"\x08\x08\x12\x07pytorch\x1a\x00:\x80\x01", "ONNX graph", "export"),
            (b'{"model": "digits"}\n', "JSON", "folder"),
            (b"\n<!DOCTYPE html><title>404</title>", "web page", "download"),
            (b"engine goes here\n", "text", "folder"),
            (bytes(4096), "zero bytes", "again"),
            (bytes(range(200, 256)), "nothing else that is known", "dtvit-deploy export"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_it_is_called_by_its_name(self, tmp_path: Path, content: bytes, what: str, remedy: str) -> None:
        error = refused(tmp_path, content)
        assert what in str(error)
        assert remedy in (error.remedy or "")
        assert not error.cut

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        assert refused(tmp_path, b"").size == 0

    def test_a_file_that_is_not_there_or_a_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(InputError, match="cannot be read"):
                read_header(path)


class TestHostileBytes:
    def outcome(self, tmp_path: Path, content: bytes) -> Header | NotAnEngineError:
        """Either a header or the refusal; anything else that is raised fails the test."""
        try:
            return header(tmp_path, content)
        except NotAnEngineError as error:
            return error

    @pytest.mark.parametrize("whole", [rtx_engine(), plan()], ids=["rtx", "plan"])
    def test_cut_anywhere_it_is_either_refused_or_known_to_be_cut(self, tmp_path: Path, whole: bytes) -> None:
        for end in range(4, 256):
            found = self.outcome(tmp_path, whole[:end])
            if isinstance(found, NotAnEngineError):
                assert found.cut, end
            else:
                assert found.missing == (len(whole) - end if found.library == "tensorrt-rtx" else 0)

    def test_random_bytes_never_break_the_reader(self, tmp_path: Path) -> None:
        source = random.Random(0)
        for start in (b"", b"ftrt", b"vtrt", b"vtrt" + bytes(4), rtx_engine()[:28], rtx_engine()[:64], rtx_engine()[:80]):
            for length in (0, 1, 30, 60, 300):
                content = start + source.randbytes(length)
                assert self.outcome(tmp_path, content).size == len(content)

    def test_a_bit_altered_in_the_header_is_no_traceback(self, tmp_path: Path) -> None:
        whole = rtx_engine()
        for offset in range(112):
            for change in (0x01, 0x80, 0xFF):
                content = bytearray(whole)
                content[offset] ^= change
                assert isinstance(self.outcome(tmp_path, bytes(content)), NotAnEngineError) == (offset < 4)

"""Every kind of picture loads as a viewer shows it; everything else is refused in one sentence, soon, and in little memory."""

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from dtvit_deploy.calibration.decode import FORMATS, LARGEST_BYTES, SUFFIXES, decode_image
from dtvit_deploy.errors import InputError

ORIENTATION = ExifTags.Base.Orientation
GREY8, RGB8, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, **chunks: bytes) -> bytes:
    """A PNG written by hand: ``pixels`` are all rows, each without its filter byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(pixels) // height if height else 0
    rows = b"".join(b"\0" + pixels[i * stride : (i + 1) * stride] for i in range(height if pixels else 0))
    extra = b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def written(folder: Path, content: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def decoded(path: Path) -> NDArray[np.uint8]:
    image = decode_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def quadrants() -> Image.Image:
    """32×16: red and green above, blue and white below. No turn or mirror of it equals another."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16, 0] = pixels[:8, 16:, 1] = pixels[8:, :16, 2] = 255
    pixels[8:, 16:] = 255
    return Image.fromarray(pixels)


def as_stored(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """What a camera stores under that orientation, from EXIF's own words for row 0 and column 0."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_a_turned_photograph_stands_upright(tmp_path: Path, kind: str, options: dict[str, Any], orientation: int) -> None:
    upright = np.asarray(quadrants())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"turned.{kind.lower()}"
    Image.fromarray(np.ascontiguousarray(as_stored(upright, orientation))).save(path, kind, exif=exif, **options)
    found = decoded(path)
    assert found.shape == upright.shape
    # JPEG blurs colour across the edges, so look at the middle of each quadrant.
    for row, column in ((4, 8), (4, 24), (12, 8), (12, 24)):
        assert np.abs(found[row, column].astype(int) - upright[row, column]).max() <= 12


@pytest.mark.parametrize("exif", [b"", b"XX", b"MM\0*", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, exif: bytes) -> None:
    assert decoded(written(tmp_path, png(2, 1, 8, GREY8, b"\1\2", eXIf=exif)))[0, :, 0].tolist() == [1, 2]


def test_one_damaged_tag_does_not_cost_the_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[ExifTags.Base.ImageDescription] = "hello"
    buffer = io.BytesIO()
    quadrants().save(buffer, "JPEG", exif=exif)
    # The text comes to lie under the tag of the width, a number: Pillow could not write these EXIF data again.
    description = buffer.getvalue().index(b"\x01\x0e\x00\x02")
    damaged = bytearray(buffer.getvalue())
    damaged[description + 1] = 0
    assert decoded(written(tmp_path, bytes(damaged), "odd.jpg")).shape == (32, 16, 3)


def test_16_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 256, 257], [0x1234, 0x8000, 0xFF00, 0xFFFE, 0xFFFF]], np.uint16)
    found = decoded(written(tmp_path, png(5, 2, 16, GREY8, values.astype(">u2").tobytes())))
    assert found[..., 0].tolist() == [[0, 0, 0, 1, 1], [0x12, 0x80, 0xFF, 0xFF, 0xFF]]
    assert (found == found[..., :1]).all()


def test_16_bit_colour_is_read_like_16_bit_grey(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 65536, (4, 6), np.uint16)
    grey = decoded(written(tmp_path, png(6, 4, 16, GREY8, values.astype(">u2").tobytes()), "grey.png"))
    colour = decoded(written(tmp_path, png(6, 4, 16, RGB8, values.repeat(3).astype(">u2").tobytes()), "colour.png"))
    assert (grey == colour).all()
    assert (grey[..., 0] == values >> 8).all()


def test_16_bit_grey_turns_upright_too(tmp_path: Path) -> None:
    values = np.array([[0, 0x4000], [0x8000, 0xC000], [0xE000, 0xFFFF]], np.uint16)
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    found = decoded(written(tmp_path, png(2, 3, 16, GREY8, values.astype(">u2").tobytes(), eXIf=exif)))
    assert found[..., 0].tolist() == (np.rot90(values, -1) >> 8).tolist()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_netpbm_and_tiff(tmp_path: Path, order: str) -> None:
    values = np.array([[0, 0x0100, 0x80FF, 0xFFFF]], np.uint16)
    pgm = written(tmp_path, b"P5 4 1 65535\n" + values.astype(">u2").tobytes(), "a.pgm")
    assert decoded(pgm)[0, :, 0].tolist() == [0, 1, 0x80, 0xFF]
    tiff = written(tmp_path, _grey_tiff(values.astype(order + "u2"), order), "a.tif")
    assert decoded(tiff)[0, :, 0].tolist() == [0, 1, 0x80, 0xFF]


def test_a_tiff_whose_zero_is_white(tmp_path: Path) -> None:
    values = np.array([[0, 0x0100, 0x80FF, 0xFFFF]], "<u2")
    found = decoded(written(tmp_path, _grey_tiff(values, "<", photometric=0), "a.tif"))
    assert found[0, :, 0].tolist() == [255, 254, 127, 0]


def test_a_12_bit_tiff_is_not_dark(tmp_path: Path) -> None:
    # Two values in three bytes: 0xFFF and 0x800.
    found = decoded(written(tmp_path, _grey_tiff(np.frombuffer(b"\xff\xf8\x00", np.uint8), "<", width=2, bits=12), "a.tif"))
    assert found[0, :, 0].tolist() == [0xFF, 0x80]


def _grey_tiff(values: NDArray[Any], order: str, *, width: int = 0, bits: int = 16, photometric: int = 1, sample_format: int = 1) -> bytes:
    """One row, uncompressed."""
    data = values.tobytes()
    tags = [(256, width or values.size), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(data)), (339, sample_format)]
    padded = data + b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8 + len(padded)) + padded + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0"


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    found = decoded(written(tmp_path, png(3, 1, 8, PALETTE, b"\0\1\2", PLTE=bytes([10, 20, 30, 255, 0, 0, 0, 0, 255]))))
    assert found.tolist() == [[[10, 20, 30], [255, 0, 0], [0, 0, 255]]]


def test_a_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    colours = bytes([10, 20, 30, 255, 0, 0, 0, 0, 255])
    found = decoded(written(tmp_path, png(3, 1, 8, PALETTE, b"\0\1\2", PLTE=colours, tRNS=bytes([0, 255, 128]))))
    assert found[0, :2].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert np.abs(found[0, 2].astype(int) - [127, 127, 255]).max() <= 1


def test_a_transparent_gif_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.gif", transparency=0)
    assert decoded(tmp_path / "a.gif").tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    found = decoded(written(tmp_path, png(3, 1, 8, RGBA, bytes([9, 9, 9, 0, 255, 0, 0, 255, 0, 0, 0, 128]))))
    assert found[0, :2].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert np.abs(found[0, 2].astype(int) - 127).max() <= 1
    found = decoded(written(tmp_path, png(3, 1, 8, GREY_ALPHA, bytes([9, 0, 77, 255, 0, 128]))))
    assert found[0, :2, 0].tolist() == [255, 77]
    assert abs(int(found[0, 2, 0]) - 127) <= 1


@pytest.mark.parametrize(
    ("depth", "colour", "pixels", "see_through", "expected"),
    [
        (8, GREY8, b"\x05\x06", b"\x00\x05", [255, 6]),
        (8, RGB8, b"\x05\x05\x05\x06\x06\x06", b"\x00\x05\x00\x05\x00\x05", [255, 6]),
        (16, GREY8, b"\x80\x01\x80\x02", b"\x80\x01", [255, 0x80]),
        (16, RGB8, b"\x12\x80\x12\x80\x12\x80\x80\x12\x80\x12\x80\x12", b"\x12\x80\x12\x80\x12\x80", [255, 0x80]),
    ],
)
def test_one_colour_declared_transparent(
    tmp_path: Path, depth: int, colour: int, pixels: bytes, see_through: bytes, expected: list[int]
) -> None:
    assert decoded(written(tmp_path, png(2, 1, depth, colour, pixels, tRNS=see_through)))[0, :, 0].tolist() == expected


def test_premultiplied_grey_tiff_keeps_its_alpha(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.merge("LA", [Image.frombytes("L", (1, 2), bytes(band)) for band in ((60, 200), (120, 255))]).save(buffer, "TIFF")
    plain, multiplied = (struct.pack("<HHIHH", 338, 3, 1, kind, 0) for kind in (2, 1))
    assert buffer.getvalue().count(plain) == 1
    path = written(tmp_path, buffer.getvalue().replace(plain, multiplied), "a.tif")
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        pytest.skip("this Pillow cannot open such a TIFF, which is then refused")
    found = decoded(path)
    assert abs(int(found[0, 0, 0]) - (60 + 255 - 120)) <= 1
    assert found[1, 0, 0] == 200


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (128, 128, 128)])
def test_cmyk_jpeg_shows_its_colour_and_not_the_inverse(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (16, 16), colour).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    with Image.open(tmp_path / "print.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.abs(decoded(tmp_path / "print.jpg").astype(int) - colour).max() <= 6


def test_one_bit_and_grey(tmp_path: Path) -> None:
    assert decoded(written(tmp_path, png(8, 1, 1, GREY8, b"\xa5")))[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255]
    assert decoded(written(tmp_path, png(4, 1, 2, GREY8, b"\x1b")))[0, :, 0].tolist() == [0, 85, 170, 255]
    assert decoded(written(tmp_path, png(3, 1, 8, GREY8, b"\x00\x7f\xff"))).tolist() == [[[0] * 3, [127] * 3, [255] * 3]]
    assert decoded(written(tmp_path, b"P1 4 1\n1 0 0 1\n", "a.pbm"))[0, :, 0].tolist() == [0, 255, 255, 0]


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decoded(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


def most_memory() -> int:
    """Bytes that this process has held at most; Pillow's pixels are in it, unlike in tracemalloc."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def refusal(path: Path) -> str:
    """The message, from little time and memory, with a remedy and the path in it."""
    started, before = time.process_time(), most_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            decode_image(path)
    assert time.process_time() - started < 5
    assert most_memory() - before < 64 << 20
    assert caught.value.remedy
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_refused_not_half_grey(tmp_path: Path, kind: str, keep: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)).save(buffer, kind)
    content = buffer.getvalue()
    refusal(written(tmp_path, content[: int(len(content) * keep)], "broken.jpg"))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    assert "0 bytes" in refusal(written(tmp_path, b""))
    assert "PNG" in refusal(written(tmp_path, b"hello, I am a text\n" * 20))
    assert "folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "gone.png")
    assert refusal(tmp_path / ("x" * 300 + ".png"))
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert refusal(tmp_path / "loop.png")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refusal(tmp_path / "pipe.png")


def test_a_file_that_vanishes_after_it_was_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, png(1, 1, 8, GREY8, b"\0"))
    opened = Image.open

    def vanish(*args: Any, **options: Any) -> Any:
        path.unlink()
        return opened(*args, **options)

    monkeypatch.setattr(Image, "open", vanish)
    assert "No such file" in refusal(path)


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, png(1, 1, 8, GREY8, b"\0"))

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)
    assert refusal(path).endswith("Permission denied")


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    bomb = png(60_000, 60_000, 1, GREY8, b"")
    assert len(bomb) < 200
    assert "3600000000 pixels" in refusal(written(tmp_path, bomb, "bomb.png"))
    # Below Pillow's own limit, above ours; a real one, whose 15 MB of rows are 15 kB of file.
    assert "11000×11000 pixels" in refusal(written(tmp_path, png(11_000, 11_000, 1, GREY8, bytes(1375 * 11_000)), "smaller.png"))


def test_a_text_chunk_that_unpacks_to_much_more(tmp_path: Path) -> None:
    text = b"Comment\0\0" + zlib.compress(bytes(64 << 20))
    assert refusal(written(tmp_path, png(1, 1, 8, GREY8, b"\0", zTXt=text)))


def test_a_file_too_large_is_not_opened(tmp_path: Path) -> None:
    path = written(tmp_path, b"RIFF\xff\xff\xff\xffWEBP", "sparse.webp")
    os.truncate(path, LARGEST_BYTES + 1)
    assert f"{LARGEST_BYTES:,}" in refusal(path)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_no_pixels_is_no_image(tmp_path: Path, size: tuple[int, int]) -> None:
    assert refusal(written(tmp_path, png(*size, 8, GREY8, b"")))


def test_eps_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        pytest.fail("a program was started to read an image")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    Image.init()
    assert "EPS" in Image.OPEN
    assert "EPS" not in FORMATS
    refusal(written(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"))


@pytest.mark.parametrize("dtype", ["<f4", "<i4"])
def test_a_tiff_without_a_known_white_is_refused(tmp_path: Path, dtype: str) -> None:
    Image.fromarray(np.array([[0, 1], [200, 255]], dtype)).save(tmp_path / "science.tif")
    assert "white" in refusal(tmp_path / "science.tif")


def test_a_signed_16_bit_tiff_is_refused(tmp_path: Path) -> None:
    content = _grey_tiff(np.array([[0, 100]], "<i2"), "<", sample_format=2)
    assert "white" in refusal(written(tmp_path, content, "signed.tif"))


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    files = {}
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[ExifTags.Base.XResolution] = 72.0
    for kind in sorted({Image.registered_extensions()[suffix] for suffix in SUFFIXES}):
        buffer = io.BytesIO()
        quadrants().save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        files[kind] = buffer.getvalue()
    return files


def test_every_suffix_belongs_to_a_format_that_is_tried(whole: dict[str, bytes]) -> None:
    assert set(whole) == set(FORMATS)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_an_image_or_an_input_error(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(whole[data.draw(st.sampled_from(sorted(whole)))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, min(len(content), 250) - 1), st.integers(0, 255)), max_size=6)):
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert decode_image(path).mode == "RGB"

"""A mask is class indices of its own image, one for each pixel, whatever kind of PNG file they are in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dtvit_deploy.calibration.class_masks import MaskedImages, open_masked, read_mask
from dtvit_deploy.errors import InputError

ROWS = np.asarray([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
GREY, PALETTE = 0, 3


def png(values: Any, bits: int, colour: int) -> bytes:
    """A PNG file of so many bits a pixel, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = [np.packbits(np.unpackbits(row.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 16 - bits :]).tobytes() for row in values]
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, colour, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(range(3 * min(1 << bits, 85)))) if colour == PALETTE else b""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "colour"), [(b, GREY) for b in (1, 2, 4, 8, 16)] + [(b, PALETTE) for b in (1, 2, 4, 8)])
def test_indices_are_the_numbers_that_are_stored(tmp_path: Path, bits: int, colour: int) -> None:
    values = np.minimum(ROWS.astype(np.uint16), (1 << bits) - 1)
    (tmp_path / "a.png").write_bytes(png(values, bits, colour))
    found = read_mask(tmp_path / "a.png", (2, 4), 4)
    assert found.dtype == np.uint8
    assert (found == values).all()


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_number_that_is_no_class_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "a.png").write_bytes(png(ROWS.astype(np.uint16), bits, GREY))
    with pytest.raises(InputError, match=r"a\.png has pixels of class 2, 3; the 2 classes are 0 to 1, and 255 is none"):
        read_mask(tmp_path / "a.png", (2, 4), 2)


def test_255_is_nothing_that_is_said_and_256_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.asarray([[0, 255]], np.uint16), 16, GREY))
    assert read_mask(tmp_path / "a.png", (1, 2), 1).tolist() == [[0, 255]]
    (tmp_path / "a.png").write_bytes(png(np.asarray([[0, 256]], np.uint16), 16, GREY))
    with pytest.raises(InputError, match="class 256"):
        read_mask(tmp_path / "a.png", (1, 2), 1)


def test_another_size_than_the_image_is_refused_with_both(tmp_path: Path) -> None:
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is 4×2 pixels, and its image 640×480"):
        read_mask(tmp_path / "a.png", (480, 640), 4)
    with pytest.raises(InputError, match=r"a\.png is 4×2 pixels, and its image 2×4"):
        read_mask(tmp_path / "a.png", (4, 2), 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"holds colours \({mode}\)"):
        read_mask(tmp_path / "a.png", (2, 4), 4)


def test_what_is_no_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(ROWS).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(InputError, match=r"known format \(PNG\)"):
        read_mask(tmp_path / "a.png", (2, 4), 4)
    whole = png(np.zeros((500, 500), np.uint16), 8, GREY)
    (tmp_path / "a.png").write_bytes(whole[:100])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_mask(tmp_path / "a.png", (500, 500), 4)
    with pytest.raises(InputError, match="does not exist"):
        read_mask(tmp_path / "b.png", (2, 4), 4)


def test_a_file_that_declares_more_than_any_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = bytearray(png(ROWS.astype(np.uint16), 8, GREY))
    content[16:24] = struct.pack(">II", 11_000, 11_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="declares 11000×11000"):
        read_mask(tmp_path / "a.png", (11_000, 11_000), 4)


def lay(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def pairs(found: MaskedImages, folder: Path) -> list[tuple[str, str]]:
    masks = [Path(mask).relative_to(folder).as_posix() for mask in found.masks]
    return [(image.path.relative_to(folder).as_posix(), mask) for image, mask in zip(found.images.images, masks, strict=True)]


LAYOUTS: dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]] = {
    "beside each other": (("b.jpg", "b.png", "a.jpeg", "a.PNG"), [("a.jpeg", "a.PNG"), ("b.jpg", "b.png")]),
    "in two folders": (("images/a.png", "masks/a.png"), [("images/a.png", "masks/a.png")]),
    "as VOC has them": (("JPEGImages/a.jpg", "SegmentationClass/a.png"), [("JPEGImages/a.jpg", "SegmentationClass/a.png")]),
    "folders in both": (
        ("images/x/a.jpg", "images/y/a.jpg", "annotations/x/a.png", "annotations/y/a.png"),
        [("images/x/a.jpg", "annotations/x/a.png"), ("images/y/a.jpg", "annotations/y/a.png")],
    ),
    "a dot in the name": (("a.b.jpg", "a.b.png"), [("a.b.jpg", "a.b.png")]),
    "litter": (("images/a.jpg", "images/.a.jpg", "images/Thumbs.db", "masks/a.png"), [("images/a.jpg", "masks/a.png")]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_mask_of_an_image_has_its_name(tmp_path: Path, name: str) -> None:
    files, expected = LAYOUTS[name]
    lay(tmp_path, *files)
    found = open_masked(tmp_path, classes=("x", "y"))
    assert pairs(found, tmp_path) == expected
    assert found.images.classes == ("x", "y")
    assert not found.images.labelled


def test_both_folders_may_be_named(tmp_path: Path) -> None:
    lay(tmp_path, "one/a.png", "two/a.png", "two/b.png", "one/notes.heic")
    found = open_masked(tmp_path / "one", tmp_path / "two")
    assert pairs(found, tmp_path) == [("one/a.png", "two/a.png")]
    assert [note.split(" ")[:2] for note in found.images.notes] == [["1", "file"], ["1", "mask"]]


UNCLEAR: dict[str, tuple[tuple[str, ...], str]] = {
    "an image without a mask": (("images/a.jpg", "images/b.jpg", "masks/a.png"), "1 of the 2 images of .* have no mask in .*: .*b.jpg"),
    "masks that are no PNG": (("images/a.jpg", "masks/a.bmp"), "have no mask"),
    "masks alone": (("a.png", "b.png"), "holds no images beside PNG files"),
    "nothing": (("a.txt",), "holds no images"),
    "two images of a name": (("images/a.jpg", "images/a.jpeg", "masks/a.png"), "several images or masks"),
    "two masks of a name": (("images/a.jpg", "masks/a.png", "masks/a.PNG"), "several images or masks"),
    "images, and no folder of masks": (("images/a.jpg", "other/a.png"), "unclear: it has images"),
    "two folders of masks": (("images/a.jpg", "masks/a.png", "labels/a.png"), "unclear: it has images, masks, labels"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_is_refused(tmp_path: Path, name: str) -> None:
    files, told = UNCLEAR[name]
    lay(tmp_path, *files)
    with pytest.raises(InputError, match=told) as raised:
        open_masked(tmp_path)
    assert raised.value.remedy


def test_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "a.jpg")
    for images, masks in [(tmp_path / "none", None), (tmp_path, tmp_path / "none"), (tmp_path / "a.jpg", None)]:
        with pytest.raises(InputError, match=r"images and masks come from folders"):
            open_masked(images, masks)


def test_the_digest_is_of_the_masks_too(tmp_path: Path) -> None:
    lay(tmp_path, "one/images/a.jpg", "one/masks/a.png")
    before = open_masked(tmp_path / "one").digest
    (tmp_path / "one/masks/a.png").write_bytes(b"another")
    assert open_masked(tmp_path / "one").digest != before

"""Bad images are refused by name, and those of every kind are seen as a person sees them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commandline import deploy, refused


class TestImages:
    """Of `verify --data`, `evaluate --data` and `export --data` alike."""

    def verify(self, work: Path, data: str) -> str:
        return refused("verify", "net/networks.net.fp32.onnx", "--data", data, cwd=work)

    def test_an_empty_folder_is_refused(self, work: Path) -> None:
        (work / "empty").mkdir()
        for command in ("verify", "evaluate"):
            said = refused(command, "net/networks.net.fp32.onnx", "--data", "empty", cwd=work)
            assert "empty holds no files" in said
            assert "try: give a folder of images" in said

    def test_a_folder_that_cannot_be_read_is_refused(self, work: Path) -> None:
        (work / "loop").symlink_to("loop")
        assert "loop" in self.verify(work, "loop")
        assert "nowhere" in self.verify(work, "nowhere")
        assert "nowhere does not exist" in refused("export", "-m", "networks:net", "--data", "nowhere", cwd=work)
        assert "is a file" in self.verify(work, "networks.py")

    def test_what_only_has_an_images_name_is_refused_by_name(self, work: Path) -> None:
        (work / "images" / "b" / "1.jpg").write_text("<html>404</html>")
        said = self.verify(work, "images")
        assert "images/b/1.jpg is not an image of a known format" in said
        assert "try: take it out of the folder" in said

    def test_a_truncated_jpeg_among_whole_ones_is_named(self, work: Path) -> None:
        path = work / "images" / "c" / "0.jpg"
        path.write_bytes(path.read_bytes()[:-200])
        assert "images/c/0.jpg cannot be read as an image" in self.verify(work, "images")

    @pytest.mark.parametrize("side", [11_000, 60_000])  # above our limit, and above Pillow's
    def test_a_decompression_bomb_does_not_go_off(self, side: int, work: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
        (work / "images" / "a" / "bomb.png").write_bytes(png)
        said = self.verify(work, "images")
        assert "images/a/bomb.png" in said
        assert "11000×11000 pixels" in said or "3600000000 pixels" in said

    def test_feeds_that_do_not_fit_are_refused(self, work: Path) -> None:
        np.savez(work / "feeds.npz", image=np.zeros((2, 3, 15, 16), np.float32))
        assert "image 1×3×16×16 float32" in self.verify(work, "feeds.npz")

    def test_images_for_a_network_that_takes_none(self, work: Path) -> None:
        assert "accuracy needs images" in refused("evaluate", "net/networks.net.fp32.onnx", cwd=work)


def test_images_of_every_kind_load_correctly(work: Path) -> None:
    blue, green, red, white = (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)

    def plain(colour: tuple[int, int, int]) -> Image.Image:
        return Image.new("RGB", (20, 20), colour)

    def save(kind: str, name: str, image: Image.Image, **options: object) -> None:
        (work / "all" / kind).mkdir(parents=True, exist_ok=True)
        image.save(work / "all" / kind / name, **options)  # type: ignore[arg-type]

    save("0-blue", "cmyk.jpg", plain(blue).convert("CMYK"), quality=100)
    save("0-blue", "rgb.png", plain(blue))
    save("1-dark", "16-bit.png", Image.fromarray(np.full((20, 20), 0x2000, np.uint16)))
    save("2-green", "palette.png", plain(green).quantize(4))
    save("2-green", "palette.gif", plain(green).quantize(4))
    hidden = plain(red)
    hidden.putalpha(0)  # red that nobody sees, over white
    save("4-white", "transparent.png", hidden)
    save("4-white", "16-bit.tif", Image.fromarray(np.full((20, 20), 0xFF00, np.uint16)))
    opaque = plain(red)
    opaque.putalpha(255)
    save("3-red", "rgba.png", opaque)
    turned = plain(white)
    turned.paste(red, (10, 0, 20, 10))  # stored in the upper right: upper left once it is turned upright
    exif = Image.Exif()
    exif[0x0112] = 8  # rotate by 90° anticlockwise to see it upright
    save("3-red", "exif.jpg", turned, exif=exif, quality=100)
    artefact = "colours/colours.make.fp32.onnx"
    done = deploy("evaluate", artefact, "--data", "all", "--json", cwd=work)
    scores = [subject["accuracy"] for subject in json.loads(done.stdout)["subjects"]]
    assert [(score["top1"], score["samples"]) for score in scores] == [(1.0, 9)] * 2
    done = deploy("verify", artefact, "--data", "all", "--json", cwd=work)
    assert json.loads(done.stdout)["verdict"]["passed"] is True

"""One image file to an upright 8-bit RGB image, whatever it is; a file from elsewhere is hostile until it has been read whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is tried. Pillow's EPS reader starts Ghostscript, and nobody trains on the rest."""
SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpg", ".jpeg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})
"""Names that are taken for images in a folder, in lower case; what a file really is, its first bytes say."""
LARGEST_PIXELS = 100_000_000
"""Pixels: more than nearly any camera makes, and about 800 MB on the way to RGB. Checked from the header, before decoding."""
LARGEST_BYTES = 1 << 30
"""Bytes of a file: the greatest image without compression fits, and no reader is given a file that fills the memory."""

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation → what makes it upright. 1 is upright, and anything else is not an orientation."""
_ORIENTATION, _BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 0x0112, 258, 262, 0


def decode_image(path: Path) -> Image:
    """Read one file as RGB; of an animation, the first frame.

    EXIF orientation is applied, 16 bits a channel keep their upper 8, transparency is laid over white (dropping it would show
    colours that nobody sees), palettes and CMYK are converted. Colour profiles are not applied: training pipelines do not.

    Raises:
        InputError: the file cannot be read, is no image of a known format, is truncated, too large, or of a kind whose
            value range is unknown (32-bit integer or float).
    """
    with opened_image(path, FORMATS) as opened:
        return _to_rgb(_upright(opened), getattr(opened, "tag_v2", {}), str(opened.format), path)


@contextlib.contextmanager
def opened_image(path: Path, formats: tuple[str, ...]) -> Iterator[Image]:
    """A file's image as it is stored, loaded whole, while it is open. Sizes are looked at before anything is decoded.

    Raises:
        InputError: it cannot be read, is none of ``formats``, is truncated or too large, or what is done with it meets bytes that make no
            sense.
    """
    import warnings

    from PIL import Image, UnidentifiedImageError

    remedy = "take it out of the folder, or replace it with a whole one"
    try:
        _check_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: the limit below is ours and it refuses
            with Image.open(path, formats=formats) as opened:
                _check_size(path, *opened.size)
                opened.load()
                yield opened
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image of a known format ({', '.join(formats)})", remedy=remedy) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read as an image: {error.strerror or error}", remedy=remedy) from error
    # Hostile bytes make Pillow's readers raise whatever they run into: struct.error, KeyError, SyntaxError, MemoryError, …
    except Exception as error:
        raise InputError(f"{path} cannot be read as an image: {error or type(error).__name__}", remedy=remedy) from error


def thumbnail(path: Path, side: int = 96) -> str:
    """The image at most ``side`` pixels a side, as PNG in base64: what a report shows of it.

    Raises:
        InputError: as `decode_image`.
    """
    import base64
    import io

    image = decode_image(path)
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def _check_file(path: Path) -> None:
    if not path.is_file():  # a named pipe would be waited for, and a device has no end
        what = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}; an image was expected", remedy="check the path, and that nothing moves files away")
    size = path.stat().st_size
    if not size:
        raise InputError(f"{path} is empty (0 bytes)", remedy="take it out of the folder, or replace it with a whole one")
    if size > LARGEST_BYTES:
        raise InputError(
            f"{path} has {size:,} bytes; at most {LARGEST_BYTES:,} are read", remedy="take it out of the folder, or shrink it first"
        )


def _check_size(path: Path, width: int, height: int) -> None:
    if not 0 < width * height <= LARGEST_PIXELS:
        raise InputError(
            f"{path} declares {width}×{height} pixels; from 1 to {LARGEST_PIXELS:,} are decoded",
            remedy="take it out of the folder, or shrink it first",
        )


def _upright(opened: Image) -> Image:
    from PIL.Image import Transpose

    # Not ImageOps.exif_transpose: that writes the EXIF data anew, and fails where they are damaged. A damaged EXIF block
    # (ImageNet has some) says nothing about orientation; the pixels are shown as they are stored, as everywhere else.
    try:
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    except Exception:
        turn = None
    return opened.transpose(Transpose[turn]) if turn else opened


def _to_rgb(image: Image, tags: Any, kind: str, path: Path) -> Image:
    """RGB of a loaded image; ``tags`` are TIFF's (else empty), ``kind`` is the file's format."""
    from PIL import Image as Images

    # Only Netpbm uses mode "I" for 16 bits, brought to 0–65535; elsewhere it is 32 bits, or signed, and white is anybody's guess.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PPM"):
        return _from_16_bits(image, tags)
    if image.mode in ("I", "F"):
        number = "float" if image.mode == "F" else "32-bit or signed integer"
        raise InputError(
            f"{path} holds {number} pixels, and no range that says what white is", remedy="save it with 8 or 16 bits a channel"
        )
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:  # 16-bit colour, of which Pillow kept the upper 8
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode == "La":  # only this way is there a conversion that keeps the alpha
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or transparent is not None:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        shown = Images.new("RGB", layer.size, "white")
        shown.paste(layer, mask=layer)
        return shown
    return image.convert("RGB")


def _from_16_bits(image: Image, tags: Any) -> Image:
    """Grey in 16 bits to RGB by the upper 8 bits, which is how Pillow reads 16-bit colour."""
    import numpy as np
    from PIL import Image as Images

    values = np.asarray(image)
    bits = tags.get(_BITS, (16,))[0]  # 12-bit TIFF comes in the lower 12
    grey = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits, not 16
        grey = ~grey
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return Images.fromarray(grey).convert("RGB")

"""From an image to the input of a network that finds objects or classes of pixels: all of it, brought to a size that never changes."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Literal

import msgspec

from dtvit_deploy.calibration.preprocessing import LARGEST_SIDE
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class Letterbox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an RGB image of any size becomes a (3, H, W) float32 array that shows all of it.

    Attributes:
        size: height and width of the input, in pixels.
        fit: whether the image keeps its ratio and the rest is padded, or is stretched to the whole input.
        place: where the image lies in the padding.
        padding: of each channel, in units of the 0–1 range and in the order red, green, blue; None for the mean, which becomes 0 in the
            array, as MMDetection pads.
        interpolation: Pillow's filter, anti-aliased when shrinking.
        mean, std: per channel, in units of the 0–1 range, in the order of ``channels``.
        channels: order of the channels in the array.
    """

    size: tuple[int, int]
    fit: Literal["keep-ratio", "stretch"] = "keep-ratio"
    place: Literal["top-left", "centre"] = "top-left"
    padding: tuple[float, float, float] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if min(self.size) < 1 or max(self.size) > LARGEST_SIDE:
            raise InputError(f"letterbox: the input's size {self.size} must be from 1 to {LARGEST_SIDE} pixels a side")
        # Written so that NaN is refused as well.
        if not all(0 < deviation < math.inf for deviation in self.std) or not all(map(math.isfinite, self.mean)):
            raise InputError(
                f"letterbox: mean {self.mean} must be finite, and every standard deviation of {self.std} positive and finite",
                remedy="give both per channel, in units of the 0–1 range",
            )
        if self.padding is not None and not all(0 <= value <= 1 for value in self.padding):
            raise InputError(f"letterbox: the padding {self.padding} must be from 0 to 1", remedy="divide a colour of 0 to 255 by 255")
        if self.fit == "stretch" and (self.place != "top-left" or self.padding is not None):
            raise InputError(
                "letterbox: an image that is stretched has no padding", remedy='leave `place` and `padding` out, or fit "keep-ratio"'
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical description."""
        typed = msgspec.convert(msgspec.to_builtins(self), type(self))  # a mean given as 0 is the mean 0.0
        return hashlib.sha256(msgspec.json.encode(typed, order="sorted")).hexdigest()

    def placement(self, height: int, width: int) -> Placement:
        """Where an image of that size will lie. A side that the ratio makes less than half a pixel has one."""
        resized = self.size
        if self.fit == "keep-ratio":
            scale = min(self.size[0] / height, self.size[1] / width)
            rows, columns = (min(max(int(side * scale + 0.5), 1), most) for side, most in zip((height, width), self.size, strict=True))
            resized = rows, columns
        free = self.size[0] - resized[0], self.size[1] - resized[1]
        offset = (free[0] // 2, free[1] // 2) if self.place == "centre" else (0, 0)
        return Placement(original=(height, width), resized=resized, size=self.size, offset=offset)

    def apply(self, image: Image) -> tuple[NDArray[np.float32], Placement]:
        """(3, H, W) float32 array of an RGB image, and where in it the image lies."""
        import numpy as np
        from PIL import Image as Images

        placement = self.placement(image.height, image.width)
        (rows, columns), (top, left) = placement.resized, placement.offset
        whole = (columns, rows)
        resized = image if image.size == whole else image.resize(whole, Images.Resampling[self.interpolation.upper()])
        pixels = np.asarray(resized, np.float32) / np.float32(255)
        padding = np.asarray(self.mean if self.padding is None else self.padding, np.float32)
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
            padding = padding if self.padding is None else padding[::-1]  # the mean is in the array's order already
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        array = np.empty((3, *self.size), np.float32)
        array[:] = ((padding - mean) / std)[:, None, None]
        array[:, top : top + rows, left : left + columns] = ((pixels - mean) / std).transpose(2, 0, 1)
        return array, placement

"""From a decoded image to the array that a network is fed, and the digest that identifies how.

The default is ImageNet evaluation: shorter side to 256, centre crop 224, bicubic, ImageNet mean and deviation.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Literal

import msgspec

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

LARGEST_SIDE = 8192
"""Pixels: an aspect ratio that would resize beyond this is refused, since a 1×60000 strip would become gigabytes."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an RGB image becomes a (3, H, W) float32 array.

    Attributes:
        resize: length that the shorter side is brought to, in pixels.
        crop: height and width of the centre crop, in pixels; an image that would be smaller is enlarged to fill it.
        interpolation: Pillow's filter, anti-aliased when shrinking.
        mean, std: per channel, in units of the 0–1 range, in the order of ``channels``.
        channels: order of the channels in the array.
    """

    resize: int = 256
    crop: tuple[int, int] = (224, 224)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if min(self.crop) < 1 or max(*self.crop, self.resize) > LARGEST_SIDE:
            raise InputError(f"preprocessing: resize {self.resize} and crop {self.crop} must be from 1 to {LARGEST_SIDE} pixels")
        if self.resize < min(self.crop):
            raise InputError(
                f"preprocessing: the shorter side is resized to {self.resize}, which is less than the crop {self.crop}",
                remedy="make resize at least the crop's shorter side",
            )
        # Written so that NaN, which TOML has a word for, is refused as well.
        if not all(0 < deviation < math.inf for deviation in self.std) or not all(map(math.isfinite, self.mean)):
            raise InputError(
                f"preprocessing: mean {self.mean} must be finite, and every standard deviation of {self.std} positive and finite",
                remedy="give both per channel, in units of the 0–1 range",
            )

    @classmethod
    def for_input(cls, height: int, width: int) -> Preprocessing:
        """ImageNet evaluation for another input size: the crop takes the same 224/256 of the resized image."""
        return cls(resize=max(round(min(height, width) * 256 / 224), 1), crop=(height, width))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical description."""
        typed = msgspec.convert(msgspec.to_builtins(self), type(self))  # a mean given as 0 is the mean 0.0
        return hashlib.sha256(msgspec.json.encode(typed, order="sorted")).hexdigest()

    def apply(self, image: Image) -> NDArray[np.float32]:
        """(3, H, W) float32 array of an RGB image.

        Raises:
            InputError: the resized image would be absurdly long.
        """
        import numpy as np
        from PIL import Image as Images

        size = self._resized(image.width, image.height)
        height, width = self.crop
        resample = Images.Resampling[self.interpolation.upper()]
        resized = image if image.size == size else image.resize(size, resample)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        pixels = np.asarray(resized.crop((left, top, left + width, top + height)), np.float32) / np.float32(255)
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        normalised = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def pixels(self, array: NDArray[np.float32]) -> NDArray[np.uint8]:
        """What `apply` made a (3, H, W) array of, cropped and resized, as (H, W, 3) RGB: the image as the network sees it."""
        import numpy as np

        values = array.transpose(1, 2, 0) * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)
        if self.channels == "bgr":
            values = values[:, :, ::-1]
        pixels: NDArray[np.uint8] = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
        return pixels

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to resize to: the shorter side to ``resize``, or more where the crop would not fit."""
        scale = self.resize / min(width, height)
        size = max(round(width * scale), self.resize), max(round(height * scale), self.resize)
        crop_height, crop_width = self.crop
        if size[0] < crop_width or size[1] < crop_height:
            # A landscape crop of a portrait image: scale up until the crop fits, as a viewer's "fill" does.
            scale = max(crop_width / width, crop_height / height)
            size = max(round(width * scale), crop_width), max(round(height * scale), crop_height)
        if max(size) > LARGEST_SIDE:
            raise InputError(
                f"an image of {width}×{height} pixels would be resized to {size[0]}×{size[1]}; at most {LARGEST_SIDE} a side are made",
                remedy="take it out, or crop it first",
            )
        return size

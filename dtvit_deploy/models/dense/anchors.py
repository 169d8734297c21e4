"""Anchors of a detector as constants, and boxes from what it says relative to them. Boxes are x₁, y₁, x₂, y₂ in pixels of the input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONGEST = math.log(1000 / 16)
"""Greatest logarithm of a side over its anchor's: what the exponential of a trained head never needs, and FP16 still holds."""


def anchors_of(grid: tuple[int, int], stride: int, scales: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """(H·W·A, 4) anchors of a level, position by position, for each ratio (height over width) every scale (sides in strides).

    As MMDetection makes them: the centre of the anchors of position (x, y) is (x·stride, y·stride).
    """
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()[:, None]
    scale = torch.tensor(scales, dtype=torch.float64)[None] * stride
    half = torch.stack([(scale / root).flatten(), (scale * root).flatten()], -1) / 2
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) * stride for side in grid), indexing="ij")
    centre = torch.stack([x, y], -1).reshape(-1, 1, 2)
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4).float()


def centred(boxes: Tensor) -> Tensor:
    """Corners → (…, 4) centre x, centre y, width, height."""
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.cat([boxes[..., :2] + size / 2, size], -1)


def decoded(deltas: Tensor, anchors: Tensor, size: tuple[int, int], stds: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Boxes (…, 4), within the image.

    Args:
        deltas: (…, 4) shifts of the centre in sides of the anchor, and logarithms of the sides over the anchor's.
        anchors: (…, 4) centre x, centre y, width, height.
        size: height and width of the image.
        stds: that shifts and logarithms are divided by in training.
    """
    centre = anchors[..., :2] + deltas[..., :2] * stds[0] * anchors[..., 2:]
    half = (deltas[..., 2:] * stds[1]).clamp(-LONGEST, LONGEST).exp() * anchors[..., 2:] / 2
    low, high = centre - half, centre + half
    height, width = size
    corners = [low[..., :1].clamp(0, width), low[..., 1:].clamp(0, height), high[..., :1].clamp(0, width), high[..., 1:].clamp(0, height)]
    return torch.cat(corners, -1)

"""What dense heads are made of, with the names that MMDetection and MMSegmentation give it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.layers import bilinear_rows


class Conv(nn.Module):
    """A convolution of its own size, then nothing, ReLU, or BatchNorm and ReLU; ``conv`` and ``bn`` are its parts.

    A tap of a dilated kernel that lies outside the map wherever the kernel stands reads zeros alone. Where all taps but the middle ones
    of an axis do, they are left out, exactly: at 512×512, of the branches with dilation 24 and 36 a single tap is left.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, stride: int = 1, norm: bool = False, relu: bool = True
    ) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        conv, weight = self.conv, self.conv.weight
        middle = conv.kernel_size[0] // 2
        padding = [middle * conv.dilation[0]] * 2
        for axis in (0, 1):
            if conv.dilation[0] > 1 and x.shape[2 + axis] <= conv.dilation[0]:
                weight, padding[axis] = weight.narrow(2 + axis, middle, 1), 0
        x = F.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation)
        if self.bn is not None:
            x = self.bn(x)
        return F.relu(x) if self.relu else x


class Resample(nn.Module):
    """A fixed linear map of each side of a (B, C, H, W) map: rows · x · columnsᵀ, two products with constants.

    So no runtime's own convention of resizing or pooling has a say.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ (x @ self.columns)


def bilinear(source: tuple[int, int], target: tuple[int, int]) -> Resample:
    """Half-pixel bilinear resizing without anti-aliasing, as ``F.interpolate(mode="bilinear", align_corners=False)``."""
    return Resample(bilinear_rows(source[0], target[0]), bilinear_rows(source[1], target[1]))


def pooling(source: tuple[int, int], bins: int) -> Resample:
    """Adaptive average pooling to ``bins`` × ``bins``, as ``F.adaptive_avg_pool2d``."""
    return Resample(_bins(source[0], bins), _bins(source[1], bins))


def _bins(side: int, bins: int) -> Tensor:
    """(bins, side): each row averages the positions from ⌊i·side/bins⌋ to ⌈(i+1)·side/bins⌉."""
    rows = torch.zeros(bins, side)
    for index in range(bins):
        start, stop = index * side // bins, -(-(index + 1) * side // bins)
        rows[index, start:stop] = 1 / (stop - start)
    return rows

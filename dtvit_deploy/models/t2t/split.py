"""The soft split: overlapping windows of a map, each laid out as the channels of one token."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SoftSplit(nn.Module):
    """(B, C, H, W) map → (B, H′·W′, C·k²) tokens, windows row by row, the channels of a token by (channel, row, column).

    Equal to ``nn.Unfold``, bit by bit, as a grouped convolution whose kernels are one-hot: translators write Unfold with gathers over
    index tensors (ONNX) or as a dense convolution that multiplies by zero C − 1 times out of C (Core ML, 393 million
    multiply–accumulates in T2T-ViT-7). The kernels are no weights: they are in no checkpoint, and cost counts a copy as nothing.
    """

    taps: Tensor

    def __init__(self, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.channels, self.stride, self.padding = channels, stride, padding
        one_hot = torch.eye(kernel**2).reshape(kernel**2, 1, kernel, kernel)
        self.register_buffer("taps", one_hot.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.conv2d(x, self.taps, stride=self.stride, padding=self.padding, groups=self.channels)
        return windows.flatten(2).transpose(1, 2)


class SplitProjection(nn.Linear):
    """A soft split of 3×3 windows at stride 2 and the linear layer after it, which together are one convolution.

    (B, C, H, W) map → (B, H/2·W/2, out) tokens. The weight is the linear layer's, (out, 9·C) as checkpoints have it.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels * 9, out)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.reshape(self.out_features, self.channels, 3, 3)
        return F.conv2d(x, weight, self.bias, stride=2, padding=1).flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H·W, C) tokens, row by row → (B, C, H, W) map."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


class Tokens(nn.Module):
    """(B, 3, H, W) image → (B, H/16·W/16, dim) tokens: two soft splits with a layer after each, and a projected third."""

    def __init__(self, first: nn.Module, second: nn.Module, grids: tuple[tuple[int, int], tuple[int, int]], width: int, dim: int) -> None:
        super().__init__()
        self.grids = grids
        self.soft_split0 = SoftSplit(3, 7, 4, 2)
        self.attention1 = first
        self.soft_split1 = SoftSplit(width, 3, 2, 1)
        self.attention2 = second
        self.project = SplitProjection(width, dim)

    def forward(self, image: Tensor) -> Tensor:
        x = to_map(self.attention1(self.soft_split0(image)), self.grids[0])
        x = to_map(self.attention2(self.soft_split1(x)), self.grids[1])
        return cast(Tensor, self.project(x))


class ConvolutionTokens(nn.Module):
    """The same shapes by three convolutions with nothing between them, as the paper describes its ablation ``c``."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.soft_split0 = nn.Conv2d(3, width, 7, 4, 2)
        self.soft_split1 = nn.Conv2d(width, width, 3, 2, 1)
        self.project = nn.Conv2d(width, dim, 3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.project(self.soft_split1(self.soft_split0(image)))
        return x.flatten(2).transpose(1, 2)

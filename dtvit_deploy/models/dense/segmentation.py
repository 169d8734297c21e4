"""DeepLabv3 and PSPNet on the last map of a backbone, as MMSegmentation has them; logits at that map's resolution.

Pooling and resizing are products with constants, since the input size is fixed. The auxiliary head is for the training: it is a part of the
checkpoint, and of nothing that is exported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtvit_deploy.models.dense.backbone import Maps
from dtvit_deploy.models.dense.config import DenseConfig
from dtvit_deploy.models.dense.layers import Conv, bilinear, pooling

_DILATIONS = (1, 12, 24, 36)
_BINS = (1, 2, 3, 6)


class PyramidPart(nn.Sequential):
    """A map pooled to few bins, convolved, and brought back to the map's size."""

    def __init__(self, inputs: int, width: int, grid: tuple[int, int], bins: int) -> None:
        super().__init__(pooling(grid, bins), Conv(inputs, width, 1, norm=True), bilinear((bins, bins), grid))


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling."""

    def __init__(self, inputs: int, width: int, classes: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.image_pool = PyramidPart(inputs, width, grid, 1)
        self.aspp_modules = nn.ModuleList(Conv(inputs, width, 1 if rate == 1 else 3, dilation=rate, norm=True) for rate in _DILATIONS)
        self.bottleneck = Conv((1 + len(_DILATIONS)) * width, width, 3, norm=True)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, classes, H, W)."""
        logits: Tensor = self.conv_seg(self.bottleneck(torch.cat([self.image_pool(x), *(one(x) for one in self.aspp_modules)], 1)))
        return logits


class PspHead(nn.Module):
    """Pyramid pooling: the map beside what it is at four coarser resolutions."""

    def __init__(self, inputs: int, width: int, classes: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(PyramidPart(inputs, width, grid, bins) for bins in _BINS)
        self.bottleneck = Conv(inputs + len(_BINS) * width, width, 3, norm=True)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, classes, H, W)."""
        logits: Tensor = self.conv_seg(self.bottleneck(torch.cat([x, *(one(x) for one in self.psp_modules)], 1)))
        return logits


class AuxiliaryHead(nn.Module):
    """The training's second opinion, on the map before the last."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Conv(inputs, 256, 3, norm=True)])
        self.conv_seg = nn.Conv2d(256, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_seg(self.convs[0](x))
        return logits


class Segmenter(nn.Module):
    """(B, 3, H, W) image → (B, classes, H/stride, W/stride) logits; in training the auxiliary head's beside them, where there is one."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        maps = config.backbone.maps[-2:]
        (channels, stride), head = maps[-1], DeepLabHead if config.task == "deeplabv3" else PspHead
        grid = (config.input_size[0] // stride, config.input_size[1] // stride)
        self.backbone = Maps(config, tuple(one for _, one in maps))
        self.decode_head = head(channels, config.width, config.num_classes, grid)
        self.auxiliary_head = AuxiliaryHead(maps[0][0], config.num_classes) if len(maps) > 1 else None

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        maps = self.backbone(image)
        logits: Tensor = self.decode_head(maps[-1])
        if self.training and self.auxiliary_head is not None:
            return logits, self.auxiliary_head(maps[0])
        return logits

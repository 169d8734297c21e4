"""The feature pyramid of RetinaNet and Mask R-CNN: maps of one width at every level, convolutions with bias, no norms, no activations.

As MMDetection's, with LightViT's extra level: a transposed convolution on the summed lateral of the finest map, and a convolution after it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dense.layers import Conv


class Pyramid(nn.Module):
    """Maps (B, Cᵢ, Hᵢ, Wᵢ), finest first, each half as large as the one before → levels of ``width`` channels, finest first.

    Attributes:
        extra_levels: levels beyond the coarsest by convolutions of stride 2, the first of them on the coarsest map itself; with none, the
            coarsest level is subsampled once, as Mask R-CNN has it.
    """

    def __init__(self, channels: tuple[int, ...], width: int, *, finer: bool, extra_levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Conv(dim, width, 1, relu=False) for dim in channels)
        self.fpn_convs = nn.ModuleList(Conv(width, width, 3, relu=False) for _ in channels)
        self.finer = nn.ConvTranspose2d(width, width, 2, 2) if finer else None
        self.finer_conv = Conv(width, width, 3, relu=False) if finer else None
        inputs = (channels[-1], *[width] * extra_levels)
        self.extra_convs = nn.ModuleList(Conv(inputs[place], width, 3, stride=2, relu=False) for place in range(extra_levels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        laterals = [lateral(one) for lateral, one in zip(self.lateral_convs, maps, strict=True)]
        for place in range(len(laterals) - 1, 0, -1):
            laterals[place - 1] = laterals[place - 1] + F.interpolate(laterals[place], scale_factor=2.0, mode="nearest")
        levels = [conv(one) for conv, one in zip(self.fpn_convs, laterals, strict=True)]
        coarsest = maps[-1]
        if self.extra_convs:
            for conv in self.extra_convs:
                coarsest = conv(coarsest)
                levels.append(coarsest)
        else:
            levels.append(F.max_pool2d(levels[-1], 1, 2))
        if self.finer is not None and self.finer_conv is not None:
            levels.insert(0, self.finer_conv(self.finer(laterals[0])))
        return levels

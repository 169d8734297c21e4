"""RetinaNet as one static graph: sigmoid scores and decoded boxes of the best anchors of every level; suppression comes after it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dtvit_deploy.models.dense.anchors import anchors_of, centred, decoded
from dtvit_deploy.models.dense.backbone import Maps
from dtvit_deploy.models.dense.config import DenseConfig
from dtvit_deploy.models.dense.layers import Conv
from dtvit_deploy.models.dense.pyramid import Pyramid

MOST = 1000
"""Anchors of a level that come through, those with the highest score of any class."""
_SCALES = tuple(4 * 2 ** (third / 3) for third in range(3))
_RATIOS = (0.5, 1.0, 2.0)
_ANCHORS = len(_SCALES) * len(_RATIOS)
_RARE = 0.01
"""Share of anchors that are objects, at the start of a training."""


class Head(nn.Module):
    """Two towers over every level: (B, C, H, W) → (B, H·W·9, classes) logits and (B, H·W·9, 4) deltas."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.cls_convs = nn.ModuleList(Conv(width, width, 3) for _ in range(4))
        self.reg_convs = nn.ModuleList(Conv(width, width, 3) for _ in range(4))
        self.retina_cls = nn.Conv2d(width, _ANCHORS * classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(width, _ANCHORS * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.retina_cls.bias is not None
        nn.init.constant_(self.retina_cls.bias, -math.log(1 / _RARE - 1))

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        classes = boxes = level
        for one, other in zip(self.cls_convs, self.reg_convs, strict=True):
            classes, boxes = one(classes), other(boxes)
        return _by_anchor(self.retina_cls(classes)), _by_anchor(self.retina_reg(boxes))


class RetinaNet(nn.Module):
    """(B, 3, H, W) image → boxes (B, N, 4) in pixels and scores (B, N, classes), level by level, best first in each."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        strides = (16, 32) if config.coarse else (8, 16, 32)
        channels = {stride: dim for dim, stride in config.backbone.maps}
        self.backbone = Maps(config, strides)
        self.neck = Pyramid(tuple(channels[one] for one in strides), config.width, finer=config.coarse, extra_levels=2)
        self.bbox_head = Head(config.width, config.num_classes)
        for level, stride in enumerate((8, 16, 32, 64, 128)):
            grid = (-(-config.input_size[0] // stride), -(-config.input_size[1] // stride))
            self.register_buffer(f"anchors_{level}", centred(anchors_of(grid, stride, _SCALES, _RATIOS)), persistent=False)

    def raw(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits and deltas of all anchors of each level: what a training compares."""
        return [self.bbox_head(level) for level in self.neck(self.backbone(image))]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for level, (logits, deltas) in enumerate(self.raw(image)):
            anchors: Tensor = getattr(self, f"anchors_{level}")
            best = logits.amax(-1).topk(min(MOST, anchors.shape[0]), 1).indices[..., None]
            chosen = deltas.gather(1, best.expand(-1, -1, 4)), anchors.expand(image.shape[0], -1, -1).gather(1, best.expand(-1, -1, 4))
            boxes.append(decoded(*chosen, self.config.input_size))
            scores.append(logits.gather(1, best.expand(-1, -1, logits.shape[2])).sigmoid())
        return torch.cat(boxes, 1), torch.cat(scores, 1)


def _by_anchor(x: Tensor) -> Tensor:
    """(B, 9·K, H, W) → (B, H·W·9, K)."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height * width * _ANCHORS, channels // _ANCHORS)

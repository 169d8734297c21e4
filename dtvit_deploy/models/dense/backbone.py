"""The maps of a backbone without its classifier, each through a norm of its own, as LightViT's detectors have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn

from dtvit_deploy.models.classifiers import classifier
from dtvit_deploy.models.dense.config import DenseConfig

_CLASSIFIER = ("norm", "neck", "head")
"""What of a classifier reads the last map; a backbone has none of it, nor its weights."""


class Maps(nn.Module):
    """(B, 3, H, W) image → the maps (B, C, H/stride, W/stride) of those strides, finest first.

    Modules have the classifier's names, so that its weights are the backbone's.
    """

    def __init__(self, config: DenseConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        network = classifier(dataclasses.replace(config.backbone, input_size=config.input_size, num_classes=1))
        for name in _CLASSIFIER:
            if hasattr(network, name):
                delattr(network, name)
        self.body = network
        self.strides = strides
        self.norms = nn.ModuleDict({str(stride): nn.LayerNorm(dim, eps=1e-6) for dim, stride in config.backbone.maps if stride in strides})
        self._places = {stride: place for place, (_, stride) in enumerate(config.backbone.maps)}

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: Callable[[Tensor], tuple[list[Tensor], Tensor]] = self.body.maps  # type: ignore[assignment]
        found = maps(image)[0]
        return [self.norms[str(stride)](found[self._places[stride]]).permute(0, 3, 1, 2) for stride in self.strides]


class Features(nn.Module):
    """The bare maps, for a head of somebody else's."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.backbone = Maps(config, tuple(stride for _, stride in config.backbone.maps))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image))

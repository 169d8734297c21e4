"""From the configuration of a classifier to its network."""

from __future__ import annotations

from torch import nn

from dtvit_deploy.models.backbones import Backbone
from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.dualtoken.network import DualTokenViT
from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.lightvit.network import LightViT
from dtvit_deploy.models.t2t.network import T2TViT


def classifier(config: Backbone) -> nn.Module:
    """The network of that configuration, with fresh weights."""
    if isinstance(config, DualTokenConfig):
        return DualTokenViT(config)
    return LightViT(config) if isinstance(config, LightViTConfig) else T2TViT(config)

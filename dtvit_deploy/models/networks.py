"""From a configuration to its network."""

from __future__ import annotations

from torch import nn

from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.dualtoken.network import DualTokenViT
from dtvit_deploy.models.t2t.network import T2TViT
from dtvit_deploy.models.variant import Config


def network_from_config(config: Config) -> nn.Module:
    """The network of that configuration, with fresh weights."""
    return DualTokenViT(config) if isinstance(config, DualTokenConfig) else T2TViT(config)

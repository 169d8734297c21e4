"""T2T-ViT as a static network.

Every module has the name that the published checkpoints give it, so that their state dicts load as they are. Tokens are (batch, tokens,
channels) with the class token first. Every shape follows from the configuration.
"""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.layers import DropPath
from dtvit_deploy.models.t2t.attention import Attention, ChannelScale, GatedAttention, GhostAttention, GhostMlp, Mlp
from dtvit_deploy.models.t2t.config import STRIDE, T2TConfig
from dtvit_deploy.models.t2t.split import ConvolutionTokens, Tokens
from dtvit_deploy.models.t2t.token_layers import PerformerLayer, TransformerLayer


class Block(nn.Module):
    """One transformer block with its norms before its branches: (B, N, C) → (B, N, C)."""

    def __init__(self, config: T2TConfig, dim: int, drop_path: float) -> None:
        super().__init__()
        attention = {"ghost": GhostAttention, "channel-attention": GatedAttention}.get(config.backbone, Attention)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention(dim, config.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp: nn.Module = GhostMlp(dim) if config.backbone == "ghost" else Mlp(dim, config.mlp_ratio * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class DenseBlock(Block):
    """A block whose answer, brought to ``growth`` channels, is appended to its input: (B, N, C) → (B, N, C + growth)."""

    def __init__(self, config: T2TConfig, dim: int, drop_path: float) -> None:
        super().__init__(config, dim, drop_path)
        self.dense_linear = nn.Linear(dim, config.growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.dense_linear(super().forward(x))], -1)


class Transition(nn.Module):
    """Between groups of dense blocks: (B, N, C) → (B, N, C/2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.linear(x))


class T2TViT(nn.Module):
    """The classifier: (B, 3, H, W) normalised image → (B, classes) logits. See :class:`T2TConfig` for the sizes."""

    def __init__(self, config: T2TConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens_to_token = _tokens(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(sinusoids(config.token_count + 1, config.dim)[None], requires_grad=False)
        self.blocks = nn.Sequential(*(_dense_blocks(config) if config.backbone == "dense" else _blocks(config)))
        self.norm = nn.LayerNorm(config.last_width)
        self.head = nn.Linear(config.last_width, config.num_classes)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def maps(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The (B, H, W, C) map of the tokens after the last block, and all of them, the class token first."""
        x = self.tokens_to_token(image)
        x = self.blocks(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed)
        return [x[:, 1:].reshape(x.shape[0], *self.config.grid(STRIDE), x.shape[2])], x

    def forward(self, image: Tensor) -> Tensor:
        # A norm acts on each token alone: that of the class token suffices. A slice, as an index would be a gather in some formats.
        return cast(Tensor, self.head(self.norm(self.maps(image)[1][:, :1].flatten(1))))


def _tokens(config: T2TConfig) -> nn.Module:
    width = config.token_dim
    if config.tokens == "convolution":
        return ConvolutionTokens(width, config.dim)
    grids = config.grid(4), config.grid(8)
    inputs = 3 * 7**2, width * 3**2
    layers: list[nn.Module]
    if config.tokens == "performer":
        layers = [PerformerLayer(size, width, height * length) for size, (height, length) in zip(inputs, grids, strict=True)]
    else:
        layers = [TransformerLayer(size, width) for size in inputs]
    return Tokens(layers[0], layers[1], grids, width, config.dim)


def _blocks(config: T2TConfig) -> list[nn.Module]:
    rates = torch.linspace(0, config.drop_path, len(config.widths), device="cpu").tolist()
    return [Block(config, dim, rate) for dim, rate in zip(config.widths, rates, strict=True)]


def _dense_blocks(config: T2TConfig) -> list[nn.Module]:
    """Groups with transitions between. Each group has one rate, the one of as many first steps as the published network takes: of 12."""
    rates = torch.linspace(0, config.drop_path, 12, device="cpu").tolist()
    widths, found = iter(config.widths), list[nn.Module]()
    for group, depth in enumerate(config.depths):
        blocks = [DenseBlock(config, dim, rates[group]) for dim in itertools.islice(widths, depth)]
        found += blocks
        if group < len(config.depths) - 1:
            found.append(Transition(blocks[-1].dense_linear.in_features + config.growth))
    return found


def sinusoids(positions: int, dim: int) -> Tensor:
    """The frozen table of positions, (positions, dim): sine and cosine by turns, computed in FP64."""
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def _initialise(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers; convolutions as torch begins them; ones and zeros for norms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, PerformerLayer | ChannelScale):
        module.reset()

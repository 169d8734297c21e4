"""DualToken-ViT, the reference network (arXiv 2309.12424), as a plain torch module.

The paper has neither public code nor weights and leaves many sizes open. The structure here is the one that reproduces 24 of
the 26 parameter and FLOP figures of its tables at once. What those figures cannot decide is a choice, kept as written here:
the form of the step-wise convolution, the presence and place of ``norm1``, the source of the queries in global broadcast
(``norm1``'s output), the interpolation mode (bilinear, half-pixel), and that the output projection acts on X_global alone.

Feature maps are (batch, height, width, channels) between blocks, so that every linear layer and LayerNorm acts on the last
axis; only depth-wise convolutions and pooling see channels first. Tokens are (batch, tokens, channels). Every shape follows
from the configuration, so an exported program has nothing left to compute about shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.dualtoken.layers import (
    AttendedFusion,
    BiDimAttention,
    ConvResidual,
    DropPath,
    PositionAwareFusion,
    WindowAttention,
    attend,
    pool,
)


class DualTokenBlock(nn.Module):
    """One Dual Token Block: a (B, H, W, C) map and (B, T, C) tokens in, the same out."""

    def __init__(self, config: DualTokenConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim, self.heads = config.dims[stage], config.heads[stage]
        self.local: nn.Module
        if stage == 2:
            self.local = nn.Identity()
        elif config.local == "conv":
            self.local = ConvResidual(dim, (5, 7)[stage], 4, drop_path)
        else:
            self.local = WindowAttention(dim, self.heads)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.pool_factor = (4, 2, 1)[stage]
        self.between = ConvResidual(dim, 3, 8) if stage == 0 and config.downsample == "step-wise" else None
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.fusion: nn.Module | None = None
        if config.tokens:
            attended = config.fusion != "position-aware"
            self.fusion = AttendedFusion(config, dim, self.heads) if attended else PositionAwareFusion(config, dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        hidden = dim * config.ffn_ratios[stage]
        self.ffn = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), BiDimAttention(dim))
        self.drop_path = DropPath(drop_path)

    def downsample(self, y: Tensor) -> Tensor:
        if self.between is not None:
            return pool(self.between(pool(y, 2)), 2)
        return y if self.pool_factor == 1 else pool(y, self.pool_factor)

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.local(x)
        y = self.norm1(x)
        query, key, value = self.qkv(self.downsample(y).flatten(1, 2)).chunk(3, -1)
        new = attend(query, key, value, self.heads)
        if self.fusion is not None and tokens is not None:
            new = self.fusion(tokens, new)
            tokens = tokens + new
        key, value = self.key_value(new).chunk(2, -1)
        broadcast = self.project(attend(self.query(y).flatten(1, 2), key, value, self.heads))
        flat = x.flatten(1, 2) + self.drop_path(broadcast)
        flat = flat + self.drop_path(self.ffn(self.norm2(flat)))
        return flat.reshape(x.shape), tokens


class Merge(nn.Module):
    """Patch merging between stages: (B, H, W, C) → (B, H/2, W/2, C′), and the tokens C → C′."""

    def __init__(self, dim: int, new_dim: int, with_tokens: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, new_dim, bias=False)
        self.shortcut = nn.Linear(dim, new_dim, bias=False)
        self.tokens = nn.Linear(dim, new_dim) if with_tokens else None

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        batch, height, width, channels = x.shape
        # Five axes, not six: Core ML has no more. The last transpose leaves each patch as (column, row, channel).
        patches = x.reshape(batch * height // 2, 2, width // 2, 2, channels).permute(0, 2, 3, 1, 4)
        patches = patches.reshape(batch, height // 2, width // 2, 4 * channels)
        # The stride is given although it equals the window: coremltools refuses the node without it.
        largest = F.max_pool2d(x.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1)
        merged = self.reduce(self.norm(patches)) + self.shortcut(largest)
        return merged, tokens if self.tokens is None else self.tokens(tokens)


class Stem(nn.Module):
    """(B, 3, H, W) image → (B, H/8, W/8, C) map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2

        def conv(inputs: int, stride: int, groups: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, half, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(half), nn.GELU()]

        depthwise = [*conv(half, 1, half), *conv(half, 1, half), *conv(half, 2, half)]
        self.convolutions = nn.Sequential(*conv(3, 2, 1), *depthwise, nn.Conv2d(half, dim, 3, 2, 1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.norm(self.convolutions(image).permute(0, 2, 3, 1))
        return x


class DualTokenViT(nn.Module):
    """The classifier: (B, 3, H, W) normalised image → (B, classes) logits. See :class:`DualTokenConfig` for the sizes."""

    def __init__(self, config: DualTokenConfig) -> None:
        super().__init__()
        self.config = config
        dims = config.dims
        self.stem = Stem(dims[0])
        self.tokens = nn.Parameter(torch.zeros(1, config.token_count, dims[0])) if config.tokens else None
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        self.merges = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            if stage:
                self.merges.append(Merge(dims[stage - 1], dims[stage], bool(config.tokens)))
            first = sum(config.depths[:stage])
            blocks = [DualTokenBlock(config, stage, rates[first + i]) for i in range(depth)]
            self.stages.append(nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(dims[2], eps=1e-6)
        self.neck = nn.Sequential(nn.Linear(dims[2], 1280), nn.LayerNorm(1280), nn.GELU())
        self.head = nn.Linear(1280, config.num_classes)
        self.apply(_initialise)
        if self.tokens is not None:
            nn.init.trunc_normal_(self.tokens, std=0.02)

    def maps(self, image: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The (B, H, W, C) map at the end of each stage, and the tokens of the last."""
        x, found = self.stem(image), []
        tokens = None if self.tokens is None else self.tokens.expand(x.shape[0], -1, -1)
        for stage, blocks in enumerate(self.stages):
            if stage:
                x, tokens = self.merges[stage - 1](x, tokens)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x, tokens = block(x, tokens)
            found.append(x)
        return found, tokens

    def forward(self, image: Tensor) -> Tensor:
        found, tokens = self.maps(image)
        features = found[-1].flatten(1, 2)
        if tokens is not None:
            features = torch.cat([tokens, features], 1)
        logits: Tensor = self.head(self.neck(self.norm(features)).mean(1))
        return logits


def _initialise(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers, fan-out normal for convolutions, ones and zeros for norms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

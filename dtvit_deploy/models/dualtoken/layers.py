"""The layers that a DualToken-ViT block is made of (:mod:`dtvit_deploy.models.dualtoken.network` says what the shapes are)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.config import DualTokenConfig


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Multi-head attention without projections.

    Args:
        query: (B, N, C).
        key, value: (B, M, C).
        heads: C divides by it; the scale is (C / heads)^-0.5, applied to the query, which keeps the scores small in FP16.
        bias: (heads, N, M), added to the scores.

    Returns:
        (B, N, C).
    """
    batch, length, channels = query.shape
    width = channels // heads

    def split(tokens: Tensor) -> Tensor:
        return tokens.reshape(batch, tokens.shape[1], heads, width).transpose(1, 2)

    scores = split(query * width**-0.5) @ split(key).transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(-1) @ split(value)).transpose(1, 2).reshape(batch, length, channels)


def pool(x: Tensor, factor: int) -> Tensor:
    """Average-pool a (B, H, W, C) map by ``factor`` on both sides."""
    return F.avg_pool2d(x.permute(0, 3, 1, 2), factor, factor).permute(0, 2, 3, 1)


class DropPath(nn.Module):
    """Stochastic depth: in training, drops the whole branch of a sample with probability ``rate``; otherwise nothing."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep) / keep


class GridInterpolation(nn.Module):
    """Bilinear resize (half-pixel, no anti-aliasing) between two fixed grids, as one constant matrix on each axis.

    Equal to ``F.interpolate(mode="bilinear", align_corners=False)``; written as matmuls so that no runtime's own resize
    convention has a say.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.register_buffer("rows", bilinear_rows(source[0], target[0]), persistent=False)
        self.register_buffer("columns", bilinear_rows(source[1], target[1]), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H·W, C) on the source grid → (B, H′·W′, C) on the target grid."""
        batch, _, channels = tokens.shape
        (height, width), (new_height, new_width) = self.source, self.target
        x = self.rows @ tokens.reshape(batch, height, width * channels)
        x = self.columns @ x.reshape(batch, new_height, width, channels)
        return x.reshape(batch, new_height * new_width, channels)


def bilinear_rows(source: int, target: int) -> Tensor:
    centre = ((torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5).clamp(min=0)
    low = centre.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = (centre - low)[:, None]
    eye = torch.eye(source, dtype=torch.float64)
    return (eye[low] * (1 - weight) + eye[high] * weight).float()


class ConvResidual(nn.Module):
    """x + PW(GELU(PW(LN(DW(x))))): the Conv Encoder (expansion 4) and the convolution of step-wise down-sampling (8)."""

    def __init__(self, dim: int, kernel: int, expansion: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, dim * expansion)
        self.project = nn.Linear(dim * expansion, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        residual: Tensor = self.drop_path(self.project(F.gelu(self.expand(self.norm(y)))))
        return x + residual


def relative_index(window: int) -> Tensor:
    """(window², window²): for query i and key j of a window the row of a table of biases, one for each of their (2·window − 1)² offsets."""
    place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    offset = place[:, :, None] - place[:, None, :] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


class WindowAttention(nn.Module):
    """x + W-MSA(x) over 7×7 windows with a relative position bias: the ablation that replaces the Conv Encoder."""

    index: Tensor

    def __init__(self, dim: int, heads: int, window: int = 7) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("index", relative_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        w = self.window
        windows = x.reshape(batch * height // w, w, width // w, w, channels).transpose(1, 2).reshape(-1, w * w, channels)
        query, key, value = self.qkv(windows).chunk(3, -1)
        y = attend(query, key, value, self.heads, self.position_bias[self.index].permute(2, 0, 1))
        y = y.reshape(batch * height // w, width // w, w, w, channels).transpose(1, 2)
        return x + y.reshape(batch, height, width, channels)


class MixMlp(nn.Module):
    """The mixing MLP of the tokens: across channels, then across tokens, without activation."""

    def __init__(self, dim: int, tokens: int) -> None:
        super().__init__()
        self.channels = nn.Linear(dim, dim)
        self.tokens = nn.Linear(tokens, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.tokens(self.channels(tokens).transpose(1, 2))
        return mixed.transpose(1, 2)


def token_mlp(config: DualTokenConfig, dim: int) -> nn.Module:
    """MLP(G) of the configuration: (B, tokens, dim) → the same shape."""
    if config.token_mlp == "mix":
        return MixMlp(dim, config.token_count)
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


class PositionAwareFusion(nn.Module):
    """G_new = α·MLP(G) + (1−α)·X_ga, with X_ga brought to the tokens' grid."""

    def __init__(self, config: DualTokenConfig, dim: int) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.mlp = token_mlp(config, dim)
        grid = (config.tokens, config.tokens)
        same = config.aggregated_grid == grid
        self.interpolate = nn.Identity() if same else GridInterpolation(config.aggregated_grid, grid)

    def forward(self, tokens: Tensor, aggregated: Tensor) -> Tensor:
        fused: Tensor = self.alpha * self.mlp(tokens) + (1 - self.alpha) * self.interpolate(aggregated)
        return fused


class AttendedFusion(nn.Module):
    """The ablations "Normal*" and "Normal": one-dimensional tokens that attend to X_ga, without bias but for "Normal"'s projection."""

    def __init__(self, config: DualTokenConfig, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        with_mlp = config.fusion == "attended-mlp"
        self.mlp = token_mlp(config, dim) if with_mlp else nn.Identity()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.project = nn.Identity() if with_mlp else nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, aggregated: Tensor) -> Tensor:
        key, value = self.key_value(aggregated).chunk(2, -1)
        attended: Tensor = self.project(attend(self.query(self.mlp(tokens)), key, value, self.heads))
        return attended


def gated(
    x: Tensor, norm: nn.Module, global_reduce: nn.Module, local_reduce: nn.Module, channel_gate: nn.Module, spatial_gate: nn.Module
) -> Tensor:
    """LightViT's two gates over (B, N, C): of each channel, from all tokens' mean, and of each token, from itself beside that mean."""
    u = norm(x)
    pooled = F.gelu(global_reduce(u.mean(1, keepdim=True)))
    local = F.gelu(local_reduce(u))
    channel: Tensor = channel_gate(pooled).sigmoid()
    spatial: Tensor = spatial_gate(torch.cat([local, pooled.expand(-1, x.shape[1], -1)], -1)).sigmoid()
    return x * channel * spatial


class BiDimAttention(nn.Module):
    """LightViT's bi-dimensional attention over an FFN's output: a channel gate and a spatial gate, C → C/4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        reduced = dim // 4
        self.norm = nn.LayerNorm(dim)
        self.global_reduce = nn.Linear(dim, reduced)
        self.local_reduce = nn.Linear(dim, reduced)
        self.channel_gate = nn.Linear(reduced, dim)
        self.spatial_gate = nn.Linear(2 * reduced, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        return gated(x, self.norm, self.global_reduce, self.local_reduce, self.channel_gate, self.spatial_gate)

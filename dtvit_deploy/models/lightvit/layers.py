"""The layers of LightViT's blocks: attention within windows and through global tokens, and an MLP with two gates.

Tokens are (batch, tokens, channels), the global ones first; those of the image are in the order of their windows, row by row of windows and
row by row within each, which only :class:`Attention` looks at. Names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.layers import DropPath, attend, gated, relative_index
from dtvit_deploy.models.lightvit.config import WINDOW


class Attention(nn.Module):
    """Image tokens attend within their window; global tokens attend to the image, and the image to what they have gathered."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.tokens = heads, tokens
        self.qkv = nn.Linear(dim, 3 * dim)
        self.kv_global = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        # The published checkpoints hold it, under this name; ours need not (models/fitting.py takes both).
        self.register_buffer("relative_position_index", relative_index(WINDOW).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T + N, C), the image in window order → the same."""
        batch, _, channels = x.shape
        query, key, value = self.qkv(x).chunk(3, -1)
        image, key, value = query[:, self.tokens :], key[:, self.tokens :], value[:, self.tokens :]
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.reshape(WINDOW * WINDOW, WINDOW * WINDOW, self.heads).permute(2, 0, 1)
        query_in, key_in, value_in = (one.reshape(-1, WINDOW * WINDOW, channels) for one in (image, key, value))
        local = attend(query_in, key_in, value_in, self.heads, bias).reshape(batch, -1, channels)
        gathered = attend(query[:, : self.tokens], key, value, self.heads)
        key, value = self.kv_global(gathered).chunk(2, -1)
        broadcast = attend(image, key, value, self.heads)
        projected: Tensor = self.proj(torch.cat([gathered, local + broadcast], 1))
        return projected


class Gates(nn.Module):
    """The gates over an MLP's output, by their published names."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        reduced = dim // 4
        self.norm = nn.LayerNorm(dim)
        self.global_reduce = nn.Linear(dim, reduced)
        self.local_reduce = nn.Linear(dim, reduced)
        self.channel_select = nn.Linear(reduced, dim)
        self.spatial_select = nn.Linear(2 * reduced, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        return gated(x, self.norm, self.global_reduce, self.local_reduce, self.channel_select, self.spatial_select)


class Mlp(nn.Module):
    """The bi-dimensional MLP."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.attn = Gates(dim)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.attn(self.fc2(F.gelu(self.fc1(x))))
        return gated


class Block(nn.Module):
    """Attention and MLP, each a residual branch."""

    def __init__(self, dim: int, heads: int, tokens: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, tokens)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        gated: Tensor = self.drop_path(self.mlp(self.norm2(x)))
        return x + gated


class Merge(nn.Module):
    """Between stages: a map of half the size and other channels, by a norm and a linear layer, and by the maximum of each patch."""

    def __init__(self, dim: int, new_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, new_dim, bias=False)
        self.res_proj = nn.Linear(dim, new_dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, new_dim, bias=False)

    def forward(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C) and (B, H, W, C) → (B, T, C′) and (B, H/2, W/2, C′)."""
        batch, height, width, channels = image.shape
        # A row and the one below it side by side, then a column and the one beside it: three axes, and no strided slice.
        upper, lower = image.reshape(batch * height // 2, 2 * width * channels).chunk(2, -1)
        pairs = (row.reshape(batch * height // 2, width // 2, 2 * channels) for row in (upper, lower))
        (left, right), (lower_left, lower_right) = (pair.chunk(2, -1) for pair in pairs)
        patches = torch.cat([left, lower_left, right, lower_right], -1)
        largest = torch.maximum(torch.maximum(left, right), torch.maximum(lower_left, lower_right))
        merged = self.reduction(self.norm(patches)) + self.res_proj(largest)
        return self.proj(self.norm2(tokens)), merged.reshape(batch, height // 2, width // 2, -1)

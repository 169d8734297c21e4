"""The attention and the MLP of a backbone's block, and what the studied backbones put in their place."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.dualtoken.layers import attend
from dtvit_deploy.models.t2t.config import SQUEEZE


class Mlp(nn.Module):
    """Two linear layers with GELU between: (B, N, C) → (B, N, C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, C) → (B, N, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        return cast(Tensor, self.proj(attend(query, key, value, self.heads)))


class ChannelGate(nn.Module):
    """Squeeze and excitation over the mean of all tokens: (B, N, C) → (B, N, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(dim, dim // SQUEEZE, bias=False), nn.ReLU(), nn.Linear(dim // SQUEEZE, dim, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * cast(Tensor, self.fc(x.mean(1, keepdim=True)))


class GatedAttention(Attention):
    """Self-attention whose projected output passes a channel gate."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.se_layer = ChannelGate(dim)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.se_layer(super().forward(x)))


class ChannelScale(nn.Module):
    """A factor for each of the last axis' channels.

    Published as a grouped convolution of width 1 over transposed tokens, whose weight (C, 1, 1) this is; a product needs no transpose.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))

    def reset(self) -> None:
        """As a convolution of one input and width 1 begins: uniform from −1 to 1."""
        nn.init.uniform_(self.weight, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.reshape(-1)


class GhostAttention(nn.Module):
    """Self-attention of which half of the channels of query, key and value are the other half, scaled."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, half = heads, dim // 2
        self.q, self.k, self.v = (nn.Linear(dim, half, bias=False) for _ in range(3))
        self.cheap_operation_q, self.cheap_operation_k, self.cheap_operation_v = (ChannelScale(half) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.q(x), self.k(x), self.v(x)
        query = torch.cat([query, self.cheap_operation_q(query)], -1)
        key = torch.cat([key, self.cheap_operation_k(key)], -1)
        value = torch.cat([value, self.cheap_operation_v(value)], -1)
        return cast(Tensor, self.proj(attend(query, key, value, self.heads)))


class GhostMlp(nn.Module):
    """An MLP with a hidden layer of 3·C, of which the second and third part are the first, scaled and activated again."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.cheap_operation2, self.cheap_operation3 = ChannelScale(dim), ChannelScale(dim)
        self.fc2 = nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        first = F.gelu(self.fc1(x))
        parts = [first, F.gelu(self.cheap_operation2(first)), F.gelu(self.cheap_operation3(first))]
        return cast(Tensor, self.fc2(torch.cat(parts, -1)))

"""The layers between soft splits: attention of one head that brings its tokens to another width, and an MLP.

The residual of the attention is its **value**, not its input, which has another width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.models.t2t.attention import Mlp

EPSILON = 1e-8
"""What the Performer's denominator is kept above zero by: where similarities are small it decides, so it belongs to the function."""
TOKEN_DROPOUT = 0.1
"""Of the published Performer layers in training, whatever the rate of the network."""


class PerformerLayer(nn.Module):
    """Attention by positive random features, linear in the number of tokens: (B, N, inputs) → (B, N, width).

    With φ(z)ᵢ = exp(wᵢ·z − |z|²/2) / √m the published layer answers φ(q)·Σφ(k)v / (φ(q)·Σφ(k) + ε). In FP16 each φ of large
    inputs underflows, ε is zero, and the answer is 0/0. Here numerator and denominator are divided by one number for each query,
    which changes nothing but the size of what is computed: keys are shifted by each feature's greatest exponent, and queries by the
    greatest among their features and ε itself. Every exponential is at most 1, and the denominator at least 1/N, for inputs
    whose |z|² the type can hold. What scales a query alone, |q|²/2, cancels everywhere but beside ε.
    """

    def __init__(self, inputs: int, width: int, tokens: int) -> None:
        super().__init__()
        features = width // 2
        self.norm1 = nn.LayerNorm(inputs)
        self.kqv = nn.Linear(inputs, 3 * width)
        self.proj = nn.Linear(width, width)
        self.w = nn.Parameter(torch.empty(features, width), requires_grad=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.Dropout(TOKEN_DROPOUT))
        self.dropout = nn.Dropout(TOKEN_DROPOUT)
        # From the configuration, not from a shape: nothing about shapes is left to compute in an exported program.
        self.share = tokens**-0.5
        self.floor = math.log(EPSILON * features / tokens)

    def reset(self) -> None:
        """Draw the features: orthogonal rows of length √m. They are not trained."""
        nn.init.orthogonal_(self.w, gain=self.w.shape[0] ** 0.5)

    def attend(self, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
        """(B, N, width) each → (B, N, width)."""
        by_key = F.linear(key, self.w) - (key * key).sum(-1, keepdim=True) * 0.5
        by_query = F.linear(query, self.w)
        greatest = by_key.amax(1, keepdim=True)
        keys = (by_key - greatest).exp()
        by_query = by_query + greatest
        floor = (query * query).sum(-1, keepdim=True) * 0.5 + self.floor
        shift = torch.maximum(by_query.amax(-1, keepdim=True), floor)
        queries = (by_query - shift).exp()
        # The mean over tokens, half of it on either side of the product: neither a sum of thousands nor a subnormal number in FP16.
        summed = (keys * self.share).transpose(1, 2) @ (value * self.share)
        denominator = queries @ keys.mean(1, keepdim=True).transpose(1, 2) + (floor - shift).exp()
        answer: Tensor = (queries @ summed) / denominator
        return answer

    def forward(self, x: Tensor) -> Tensor:
        key, query, value = self.kqv(self.norm1(x)).chunk(3, -1)
        y = value + self.dropout(self.proj(self.attend(key, query, value)))
        out: Tensor = y + self.mlp(self.norm2(y))
        return out


class SplitAttention(nn.Module):
    """Attention of one head, (B, N, inputs) → (B, N, width), its value added; the scale is that of its **inputs**, inputs^-0.5."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.scale = inputs**-0.5
        self.qkv = nn.Linear(inputs, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        scores = (query * self.scale) @ key.transpose(1, 2)
        attended: Tensor = self.proj(scores.softmax(-1) @ value)
        out: Tensor = value + attended
        return out


class TransformerLayer(nn.Module):
    """Softmax attention and an MLP, (B, N, inputs) → (B, N, width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.attn = SplitAttention(inputs, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(self.norm1(x))
        out: Tensor = y + self.mlp(self.norm2(y))
        return out

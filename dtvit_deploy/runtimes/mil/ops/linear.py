"""Products of matrices, attention, and Einstein's sums."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor


@op("linear")
def linear(call: Call) -> Bound:
    return call.on(F.linear, "x", "weight", optional=("bias",))


@op("matmul")
def matmul(call: Call) -> Bound:
    first, second = call.value("transpose_x", False), call.value("transpose_y", False)
    if not first and not second:
        return call.on(torch.matmul, "x", "y")
    return call.on(lambda x, y: torch.matmul(x.mT if first else x, y.mT if second else y), "x", "y")


@op("einsum")
def einsum(call: Call) -> Bound:
    equation = call.value("equation")
    return Bound(lambda *values: torch.einsum(equation, *values), call.several("values"))


@op("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Bound:
    """By its documented formula, a tensor after another: torch's own treats a row that masks everything in another way."""
    scale = 1 / math.sqrt(call.shape("query")[-1])

    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = torch.matmul(query, key.mT) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        return torch.matmul(torch.softmax(scores, -1), value)

    return call.on(attention, "query", "key", "value", optional=("attn_mask",))

"""ATen's products with sums in FP16: the operators of an exported program that add up terms, each as `half_sums` adds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dtvit_deploy.runtimes.arm64.half_sums import convolution, product

aten = torch.ops.aten


def summed(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What an operator answers whose terms are added in FP16; None of one that adds no products, or is not known here.

    Args:
        target: an overload of ATen, or anything.
        args, kwargs: floating-point tensors are FP32 and hold FP16 values.

    Returns:
        FP32, its last rounding left to the caller; infinite where a sum overflowed on the way.
    """
    known = KNOWN.get(target)
    return None if known is None else known(*args, **kwargs)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made = product(x, weight.t())
    return made if bias is None else made + bias


def _addmm(bias: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return product(one, other) * alpha + bias * beta


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int | str = 0,
    dilation: Sequence[int] | int = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.ndim - 2
    if x.ndim == axes + 1:  # without a batch
        return _convolution(x[None], weight, bias, stride, padding, dilation, groups)[0]
    steps, apart = _each(stride, axes), _each(dilation, axes)
    if isinstance(padding, str):
        totals = [step * (side - 1) if padding == "same" else 0 for step, side in zip(apart, weight.shape[2:], strict=True)]
        pads = [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
    else:
        pads = [*_each(padding, axes)] * 2
    return convolution(x, weight, bias, steps, pads, apart, groups)


def _any_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    if transposed:  # there is no such FP16 kernel: it is computed in FP32
        made: Tensor = aten.convolution.default(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
        return made
    return _convolution(x, weight, bias, stride, padding, dilation, groups)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As it is written out in ONNX: both factors take the root of the scale before the product."""
    if enable_gqa:
        repeated = query.shape[-3] // key.shape[-3]
        key, value = (one.repeat_interleave(repeated, -3) for one in (key, value))
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = _half(product(_half(query * root), _half(key * root).transpose(-1, -2)))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else _half(scores + attn_mask)
    # A row that may look at nothing answers 0, as torch has it.
    return product(_half(F.softmax(scores, -1).nan_to_num(0.0)), value)


def _half(value: Tensor) -> Tensor:
    return value.half().float()


def _each(value: Sequence[int] | int, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


KNOWN: dict[Any, Callable[..., Tensor]] = {
    aten.linear.default: _linear,
    aten.matmul.default: product,
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.mv.default: product,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.conv1d.default: _convolution,
    aten.conv2d.default: _convolution,
    aten.conv3d.default: _convolution,
    aten.conv1d.padding: _convolution,
    aten.conv2d.padding: _convolution,
    aten.conv3d.padding: _convolution,
    aten.convolution.default: _any_convolution,
    aten.scaled_dot_product_attention.default: _attention,
}
"""Not einsum and transposed convolutions, which ONNX Runtime computes in FP32 there."""

"""Convolution and its transpose, over one, two, or three spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op
from dtvit_deploy.runtimes.mil.ops.padding import for_torch, spatial, symmetric, window_pads

Tensor = torch.Tensor

FORWARD: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _extent(kernel: tuple[int, ...], dilations: list[int]) -> list[int]:
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _spatial_axes(call: Call, functions: dict[int, Any]) -> int:
    axes = len(call.shape("x")) - 2
    if axes not in functions or len(call.shape("weight")) != axes + 2:
        raise call.error(f"its input has {axes} spatial axes, its weight {len(call.shape('weight')) - 2}")
    return axes


@op("conv")
def conv(call: Call) -> Bound:
    axes = _spatial_axes(call, FORWARD)
    strides, dilations, groups = spatial(call, "strides", axes, 1), spatial(call, "dilations", axes, 1), call.value("groups", 1)
    pads = window_pads(call, call.shape("x")[2:], _extent(call.shape("weight")[2:], dilations), strides)
    convolve = FORWARD[axes]
    if symmetric(pads):
        padding = [before for before, _ in pads]
        return call.on(lambda x, w, b: convolve(x, w, b, strides, padding, dilations, groups), "x", "weight", optional=("bias",))
    around = for_torch(pads)
    return call.on(lambda x, w, b: convolve(F.pad(x, around), w, b, strides, 0, dilations, groups), "x", "weight", optional=("bias",))


@op("conv_transpose")
def conv_transpose(call: Call) -> Bound:
    """The whole product, of which padding cuts off the edges; where ``output_shape`` asks for more, there is nothing but the bias.

    ``same`` cuts to size · stride, the odd one after, as the gradient of a convolution that pads ``same`` does in TensorFlow.
    """
    axes = _spatial_axes(call, TRANSPOSED)
    strides, dilations, groups = spatial(call, "strides", axes, 1), spatial(call, "dilations", axes, 1), call.value("groups", 1)
    sizes = call.shape("x")[2:]
    extent = _extent(call.shape("weight")[2:], dilations)
    whole = [(size - 1) * stride + reach for size, stride, reach in zip(sizes, strides, extent, strict=True)]
    kind = call.one_of("pad_type", ("valid", "same", "custom"), "valid")
    shape = call.value("output_shape", None)
    wanted = None if shape is None else shape[2:]
    if kind == "same":
        wanted = wanted or [size * stride for size, stride in zip(sizes, strides, strict=True)]
        starts = [max(0, full - size) // 2 for full, size in zip(whole, wanted, strict=True)]
    else:
        pad = call.value("pad", [0] * (2 * axes)) if kind == "custom" else [0] * (2 * axes)
        if len(pad) != 2 * axes:
            raise call.error(f"its pad is {pad} for {axes} spatial axes")
        starts = pad[::2]
        wanted = wanted or [full - before - after for full, before, after in zip(whole, pad[::2], pad[1::2], strict=True)]
    cut = for_torch([(-start, size - full + start) for start, size, full in zip(starts, wanted, whole, strict=True)])
    transposed = TRANSPOSED[axes]

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = F.pad(transposed(x, weight, None, strides, 0, 0, groups, dilations), cut)
        return product if bias is None else product + bias.reshape(-1, *(1 for _ in sizes))

    return call.on(convolve, "x", "weight", optional=("bias",))

"""Quantisation of activations, and constants that are stored compressed.

The formulas are the reference's; that a tie goes to the even integer is in its value inference alone (``np.around`` in
``coremltools/optimize/_utils.py``, function ``quantize_by_scale_and_zp``). The quotient that is rounded is taken in FP32 here, of FP16
inputs too.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from dtvit_deploy.runtimes.mil.blob import unpacked
from dtvit_deploy.runtimes.mil.call import REQUIRED, Bound, Call, op
from dtvit_deploy.runtimes.mil.program import HELD

Tensor = torch.Tensor

LIMITS = {"int8": (-128.0, 127.0), "uint8": (0.0, 255.0)}


def _scale_and_zero(call: Call, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Scalars, or vectors along ``axis`` shaped to be broadcast over the data, in FP32; a zero point that is not given is 0."""
    scale, zero = call.tensor("scale"), call.tensor("zero_point")
    if scale is None:
        raise call.error("it has no scale")
    return _along(call, scale, shape, "scale"), torch.zeros(()) if zero is None else _along(call, zero, shape, "zero point")


def _along(call: Call, given: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    values = given.float()
    if values.ndim == 0:
        return values
    axis = call.axis(len(shape), REQUIRED)
    if values.ndim != 1 or values.shape[0] not in (1, shape[axis]):
        raise call.error(f"its {what} has the shape {tuple(values.shape)}, axis {axis} of the data has {shape[axis]}")
    return values.reshape(-1, *(1 for _ in shape[axis + 1 :]))


@op("quantize", exact=True)
def quantize(call: Call) -> Bound:
    shape = call.shape("input")
    scale, zero = _scale_and_zero(call, shape)
    low, high = LIMITS[call.one_of("output_dtype", LIMITS)]
    held = call.held

    return call.on(lambda x: torch.clamp(torch.round(x / scale) + zero, low, high).to(held), "input")


@op("dequantize", "constexpr_affine_dequantize")
def dequantize(call: Call) -> Bound:
    data = "input" if call.type == "dequantize" else "quantized_data"
    scale, zero = _scale_and_zero(call, call.shape(data))
    return call.on(lambda x: (x.float() - zero) * scale, data)


@op("constexpr_cast")
def constexpr_cast(call: Call) -> Bound:
    held = HELD[call.one_of("output_dtype", ("fp32",))].torch
    return call.on(lambda x: x.to(held), "source_val")


def _repeated(call: Call, small: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """Blocks of equal values: each axis repeated to the size that is wanted."""
    if small.ndim != len(shape) or any(not have or size % have for have, size in zip(small.shape, shape, strict=True)):
        raise call.error(f"its {what} of shape {tuple(small.shape)} does not divide the data of {shape}")
    for axis, size in enumerate(shape):
        if size != small.shape[axis]:
            small = small.repeat_interleave(size // small.shape[axis], axis)
    return small


@op("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(call: Call) -> Bound:
    shape = call.shape("data")

    def dequantised(data: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
        values = data.float()
        if offset is not None:
            values = values - _repeated(call, offset.float(), shape, "offset")
        return values * _repeated(call, scale, shape, "scale")

    return call.on(dequantised, "data", "scale", optional=("offset",))


@op("constexpr_lut_to_dense", exact=True, by_values=True)
def constexpr_lut_to_dense(call: Call) -> Bound:
    """In iOS 16 one table, and indices packed into bytes; in iOS 18 a table for each block, of vectors where ``vector_axis`` says so."""
    if call.operand("shape") is None:
        return _palettes(call)
    shape, lut = call.require_declared(call.value("shape")), call.tensor("lut")
    if lut is None or lut.ndim != 1 or lut.numel() not in (2, 4, 16, 64, 256):
        raise call.error("its lut is no table of 2, 4, 16, 64 or 256 values")
    bits = lut.numel().bit_length() - 1

    def looked_up(packed: Tensor) -> Tensor:
        indices = unpacked(packed.numpy(), bits, math.prod(shape))
        return lut[torch.from_numpy(indices).long()].reshape(shape)

    return call.on(looked_up, "indices")


def _palettes(call: Call) -> Bound:
    """Every value's place in the tables laid one after another: its block's first, and its index from there."""
    shape, tables = call.shape("indices"), call.shape("lut")
    rank = len(shape)
    if len(tables) != rank + 2 or (tables[-1] > 1 and call.operand("vector_axis") is None):
        raise call.error(f"its lut of shape {tables} does not fit indices of {shape}")
    if any(not count or size % count for size, count in zip(shape, tables[:rank], strict=True)):
        raise call.error(f"its lut of shape {tables} does not divide indices of {shape}")
    entries, width = tables[-2:]
    axis = call.axis(rank, parameter="vector_axis") if width > 1 else 0
    call.require_declared(size * width if width > 1 and at == axis else size for at, size in enumerate(shape))

    def looked_up(indices: Tensor, lut: Tensor) -> Tensor:
        where = indices.long()
        if where.numel() and not 0 <= int(where.min()) <= int(where.max()) < entries:
            raise IndexError(f"its indices reach {int(where.max())} in tables of {entries}")
        following = entries
        for at in reversed(range(rank)):
            if tables[at] > 1:
                block = torch.arange(shape[at]).div(shape[at] // tables[at], rounding_mode="floor")
                where = where + following * block.reshape(-1, *(1 for _ in shape[at + 1 :]))
            following *= tables[at]
        values = lut.reshape(-1, width)[where]
        return values.squeeze(-1) if width == 1 else values.movedim(-1, axis + 1).flatten(axis, axis + 1)

    return call.on(looked_up, "indices", "lut")


def _scattered(call: Call, values: Tensor, mask: Tensor) -> Tensor:
    """Values in the places where a mask is set, zero elsewhere."""
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    if int(mask.sum()) != values.numel():
        raise call.error(f"its mask has {int(mask.sum())} places for {values.numel()} values")
    dense[mask] = values.flatten()
    return dense


@op("constexpr_sparse_to_dense", exact=True, by_values=True)
def constexpr_sparse_to_dense(call: Call) -> Bound:
    """In iOS 16 a mask packed into bytes, and ``shape``; in iOS 18 a mask of the shape."""
    if call.operand("shape") is None:
        return call.on(lambda values, mask: _scattered(call, values, mask != 0), "nonzero_data", "mask")
    shape = call.require_declared(call.value("shape"))

    def dense(values: Tensor, packed: Tensor) -> Tensor:
        mask = np.unpackbits(packed.numpy(), bitorder="little")[: math.prod(shape)]
        return _scattered(call, values, torch.from_numpy(mask).reshape(shape) != 0)

    return call.on(dense, "nonzero_data", "mask")


@op("constexpr_sparse_blockwise_shift_scale", by_values=True)
def constexpr_sparse_blockwise_shift_scale(call: Call) -> Bound:
    """The mask as it is, and the values in its places, scaled as if they lay in a dense tensor."""
    shape = call.shape("data_mask")

    def dequantised(mask: Tensor, values: Tensor, scale: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
        dense = _scattered(call, values, mask != 0).float()
        if offset is not None:
            dense = dense - _repeated(call, offset.float(), shape, "offset")
        return mask, (dense * _repeated(call, scale, shape, "scale"))[mask != 0]

    return call.on(dequantised, "data_mask", "nonzero_data", "scale", optional=("offset",))

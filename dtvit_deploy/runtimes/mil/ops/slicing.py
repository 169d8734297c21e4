"""Parts of a tensor by position, parts that are kept by a band, and edges that are added."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor

PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
"""MIL's words and numpy's."""


def _per_axis(call: Call, parameter: str, rank: int, default: int | bool) -> list[int]:
    values = call.value(parameter, [default] * rank)
    if not isinstance(values, list) or len(values) != rank:
        raise call.error(f"its {parameter} is {values} for {rank} axes")
    return values


@op("slice_by_index", exact=True)
def slice_by_index(call: Call) -> Bound:
    """Python's slices; a mask stands for a bound left out, and where ``squeeze_mask`` is set, ``begin`` is an index."""
    shape = call.shape("x")
    rank = len(shape)
    begin, end, stride = _per_axis(call, "begin", rank, 0), _per_axis(call, "end", rank, 0), _per_axis(call, "stride", rank, 1)
    open_begin, open_end = _per_axis(call, "begin_mask", rank, False), _per_axis(call, "end_mask", rank, False)
    squeezed = _per_axis(call, "squeeze_mask", rank, False)
    slices: list[slice | int] = []
    flips = []
    for axis, size in enumerate(shape):
        first = None if open_begin[axis] else begin[axis]
        if squeezed[axis]:
            if not -size <= (first or 0) < size:
                raise call.error(f"index {first} is beyond axis {axis} of size {size}")
            slices.append(first or 0)
            continue
        if stride[axis] == 0:
            raise call.error(f"the stride of axis {axis} is 0")
        chosen = range(size)[slice(first, None if open_end[axis] else end[axis], stride[axis])]
        if stride[axis] < 0:  # torch has no negative step: the same elements forwards, then turned round
            flips.append(axis - sum(map(bool, squeezed[:axis])))
            chosen = chosen[::-1]
        slices.append(slice(chosen.start, chosen.stop, chosen.step) if chosen else slice(0, 0))
    where = tuple(slices)
    if flips:
        return call.on(lambda x: torch.flip(x[where], flips), "x")
    return call.on(lambda x: x[where], "x")


@op("slice_by_size", exact=True)
def slice_by_size(call: Call) -> Bound:
    """A size of -1 takes all that is left."""
    shape = call.shape("x")
    begin, sizes = _per_axis(call, "begin", len(shape), 0), _per_axis(call, "size", len(shape), -1)
    slices = []
    for axis, (whole, first, size) in enumerate(zip(shape, begin, sizes, strict=True)):
        start = first + whole if first < 0 else first
        stop = whole if size == -1 else start + size
        if not 0 <= start <= stop <= whole:
            raise call.error(f"{size} from {first} is beyond axis {axis} of size {whole}")
        slices.append(slice(start, stop))
    where = tuple(slices)
    return call.on(lambda x: x[where], "x")


@op("crop", exact=True)
def crop(call: Call) -> Bound:
    """What is cut off the last two axes, before and after."""
    shape = call.shape("x")
    edges = (call.value("crop_height"), call.value("crop_width"))
    if len(shape) < 2 or any(len(pair) != 2 or min(pair) < 0 or sum(pair) > size for pair, size in zip(edges, shape[-2:], strict=True)):
        raise call.error(f"it cuts {edges} off a shape of {shape}")
    where = (..., *(slice(before, size - after) for (before, after), size in zip(edges, shape[-2:], strict=True)))
    return call.on(lambda x: x[where], "x")


@op("pad", exact=True)
def pad(call: Call) -> Bound:
    """The last axes that ``pad`` has pairs for; reflection does not repeat the edge."""
    shape, around = call.shape("x"), call.value("pad")
    mode = call.one_of("mode", PAD_MODES, "constant")
    if len(around) % 2 or len(around) > 2 * len(shape) or min(around, default=0) < 0:
        raise call.error(f"its pad is {around} for {len(shape)} axes")
    pairs = [(0, 0)] * (len(shape) - len(around) // 2) + list(zip(around[::2], around[1::2], strict=True))
    call.require_declared(size + before + after for size, (before, after) in zip(shape, pairs, strict=True))
    if mode == "constant":
        value = call.value("constant_val", 0.0)
        last_first = [number for pair in reversed(pairs) for number in pair]
        return call.on(lambda x: F.pad(x, last_first, value=value), "x")
    if any(max(pair) > (size - 1 if mode == "reflect" else size) for size, pair in zip(shape, pairs, strict=True)):
        raise call.error(f"its pad {around} is more than it can {mode}")
    indices = [
        (axis, torch.from_numpy(np.pad(np.arange(size), pair, mode=PAD_MODES[mode])))  # type: ignore[call-overload]
        for axis, (size, pair) in enumerate(zip(shape, pairs, strict=True))
        if any(pair)
    ]

    def extended(x: Tensor) -> Tensor:
        for axis, index in indices:
            x = x.index_select(axis, index)
        return x

    return call.on(extended, "x")


@op("band_part", exact=True)
def band_part(call: Call) -> Bound:
    """Zero beyond the band, also where the input is not finite."""
    lower, upper = call.value("lower", -1), call.value("upper", -1)
    rows, columns = call.shape("x")[-2:]
    below = torch.arange(rows)[:, None] - torch.arange(columns)
    outside = (below > lower) & (lower >= 0) | (-below > upper) & (upper >= 0)
    return call.on(lambda x: x.masked_fill(outside, 0), "x")

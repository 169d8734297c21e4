"""Operators that give the same values in another shape or order."""

from __future__ import annotations

import math

import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor


@op("reshape", exact=True)
def reshape(call: Call) -> Bound:
    """A 0 takes the input's size, counted from the last axis as iOS 17 says; before it, input and answer had as many axes."""
    given, wanted = call.shape("x"), call.value("shape")
    from_the_end = dict(enumerate(reversed(given), 1))
    sizes = [from_the_end.get(len(wanted) - at, 1) if size == 0 and math.prod(given) else size for at, size in enumerate(wanted)]
    return call.on(lambda x: x.reshape(sizes), "x")


@op("flatten2d", exact=True)
def flatten2d(call: Call) -> Bound:
    shape = call.shape("x")
    axis = call.value("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise call.error(f"its axis is {axis}, its input has {len(shape)} axes")
    sizes = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return call.on(lambda x: x.reshape(sizes), "x")


@op("expand_dims", exact=True)
def expand_dims(call: Call) -> Bound:
    shape, axes = list(call.shape("x")), call.value("axes")
    rank = len(shape) + len(axes)
    places = sorted({axis % rank for axis in axes if -rank <= axis < rank})
    if len(places) != len(axes):
        raise call.error(f"its axes are {axes}, the answer has {rank}")
    for axis in places:
        shape.insert(axis, 1)
    return call.on(lambda x: x.reshape(shape), "x")


@op("squeeze", exact=True)
def squeeze(call: Call) -> Bound:
    """Axes of another size than 1 stay, as in torch."""
    shape = call.shape("x")
    axes = call.axes(len(shape), list(range(len(shape))))
    sizes = [size for axis, size in enumerate(shape) if axis not in axes or size != 1]
    return call.on(lambda x: x.reshape(sizes), "x")


@op("transpose", exact=True)
def transpose(call: Call) -> Bound:
    rank = len(call.required("x").type.shape)
    perm = call.listed_axes("perm", rank)
    if sorted(perm) != list(range(rank)):
        raise call.error(f"its perm is {perm}, its input has {rank} axes")
    return call.on(lambda x: x.permute(perm), "x")


@op("reverse", exact=True)
def reverse(call: Call) -> Bound:
    rank = len(call.required("x").type.shape)
    axes = call.axes(rank, list(range(rank)))
    return call.on(lambda x: torch.flip(x, axes), "x")


@op("tile", exact=True)
def tile(call: Call) -> Bound:
    shape, reps = call.shape("x"), call.value("reps")
    if len(reps) != len(shape) or min(reps, default=1) < 0:
        raise call.error(f"its reps are {reps} for {len(shape)} axes")
    return call.on(lambda x: x.repeat(reps), "x")


@op("concat", exact=True)
def concat(call: Call) -> Bound:
    values = call.several("values")
    rank = len(values[0].type.shape)
    if rank == 0:  # scalars make a vector
        return Bound(lambda *tensors: torch.stack(tensors), values)
    axis = call.axis(rank)
    if not call.value("interleave", False):
        return Bound(lambda *tensors: torch.cat(tensors, axis), values)
    return Bound(lambda *tensors: torch.stack(tensors, axis + 1).flatten(axis, axis + 1), values)


@op("stack", exact=True)
def stack(call: Call) -> Bound:
    values = call.several("values")
    axis = call.axis(len(values[0].type.shape) + 1)
    return Bound(lambda *tensors: torch.stack(tensors, axis), values)


@op("split", exact=True)
def split(call: Call) -> Bound:
    shape = call.shape("x")
    axis = call.axis(len(shape))
    sizes = call.value("split_sizes", None)
    if sizes is None:
        parts = call.value("num_splits")
        if parts < 1 or shape[axis] % parts:
            raise call.error(f"{shape[axis]} cannot be split into {parts} equal parts")
        sizes = [shape[axis] // parts] * parts
    if len(sizes) != len(call.outputs):
        raise call.error(f"it splits into {len(sizes)} and makes {len(call.outputs)}")
    if len(sizes) == 1:
        return call.on(lambda x: torch.split(x, sizes, axis)[0], "x")
    return call.on(lambda x: torch.split(x, sizes, axis), "x")


@op("pixel_shuffle", exact=True)
def pixel_shuffle(call: Call) -> Bound:
    """As torch's: channels outermost among those that become pixels."""
    factor = call.value("upscale_factor")
    return call.on(lambda x: torch.pixel_shuffle(x, factor), "x")


@op("pixel_unshuffle", exact=True)
def pixel_unshuffle(call: Call) -> Bound:
    factor = call.value("downscale_factor")
    return call.on(lambda x: torch.pixel_unshuffle(x, factor), "x")


def _blocks(call: Call) -> tuple[int, int, int, int, int]:
    shape, block = call.shape("x"), call.value("block_size")
    if len(shape) != 4 or block < 1:
        raise call.error(f"its input has {len(shape)} axes, its blocks {block} pixels")
    n, c, h, w = shape
    return n, c, h, w, block


@op("depth_to_space", exact=True)
def depth_to_space(call: Call) -> Bound:
    """Channels innermost, as TensorFlow's, which coremltools translates to it as it is."""
    n, c, h, w, b = _blocks(call)
    inner = c // b**2
    return call.on(lambda x: x.reshape(n, b, b, inner, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, inner, h * b, w * b), "x")


@op("space_to_depth", exact=True)
def space_to_depth(call: Call) -> Bound:
    """The inverse of ``depth_to_space``."""
    n, c, h, w, b = _blocks(call)
    return call.on(
        lambda x: x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b),
        "x",
    )

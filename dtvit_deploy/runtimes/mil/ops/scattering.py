"""Elements that are written where other tensors point, or added to what stands there. A negative index counts from the end.

Where several updates meet at one place, those that overwrite each other have no order that anything promises: here the last stays, as in
torch on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op
from dtvit_deploy.runtimes.mil.ops.gathering import from_front

Tensor = torch.Tensor
_REDUCED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
_MODES = ("add", "div", "max", "min", "mul", "sub", "update")


def _combined(call: Call, mode: str) -> Callable[[Tensor, int, Tensor, Tensor], Tensor]:
    """The function of data, an axis, indices and updates of one shape."""
    if mode == "div" and not call.held.is_floating_point:
        raise call.error("it divides whole numbers, and nothing says how they are rounded")
    if mode == "update":
        return lambda data, axis, index, updates: data.scatter(axis, index, updates)
    if mode == "sub":
        return lambda data, axis, index, updates: data.scatter_reduce(axis, index, -updates, "sum")
    if mode == "div":
        return lambda data, axis, index, updates: data / torch.ones_like(data).scatter_reduce(axis, index, updates, "prod")
    return lambda data, axis, index, updates: data.scatter_reduce(axis, index, updates, _REDUCED[mode])


@op("scatter")
def scatter(call: Call) -> Bound:
    """Slices along an axis; what an absent ``mode`` means, the reference says in two ways."""
    shape, pointed, given = call.shape("data"), call.shape("indices"), call.shape("updates")
    axis = call.axis(len(shape), 0)
    if len(pointed) != 1 or given != (*shape[:axis], *pointed, *shape[axis + 1 :]):
        raise call.error(f"its updates of {given} do not fit {shape} along axis {axis} at indices of {pointed}")
    combine = _combined(call, call.one_of("mode", _MODES))
    row = [-1 if at == axis else 1 for at in range(len(shape))]

    def scattered(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        return combine(data, axis, from_front(indices, shape[axis]).reshape(row).expand(given), updates)

    return call.on(scattered, "data", "indices", "updates")


@op("scatter_along_axis")
def scatter_along_axis(call: Call) -> Bound:
    shape, pointed, given = call.shape("data"), call.shape("indices"), call.shape("updates")
    axis = call.axis(len(shape), 0)
    fits = len(pointed) == len(shape) and all(pointed[at] == size or at == axis for at, size in enumerate(shape))
    if pointed != given or not fits:
        raise call.error(f"its updates of {given} do not fit {shape} along axis {axis} at indices of {pointed}")
    combine = _combined(call, call.one_of("mode", _MODES, "add"))
    return call.on(
        lambda data, indices, updates: combine(data, axis, from_front(indices, shape[axis]), updates), "data", "indices", "updates"
    )


@op("scatter_nd")
def scatter_nd(call: Call) -> Bound:
    """The last axis of the indices is a position in the first axes of ``data``."""
    shape, pointed, given = call.shape("data"), call.shape("indices"), call.shape("updates")
    depth = pointed[-1] if pointed else 0
    if not 0 < depth <= len(shape) or given != (*pointed[:-1], *shape[depth:]):
        raise call.error(f"its updates of {given} do not fit {shape} at indices of {pointed}")
    combine = _combined(call, call.one_of("mode", _MODES, "add"))
    places, behind, count = math.prod(shape[:depth]), math.prod(shape[depth:]), math.prod(pointed[:-1])
    strides = [math.prod(shape[at + 1 : depth]) for at in range(depth)]

    def scattered(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        each = [from_front(indices[..., at], shape[at]) for at in range(depth)]
        beyond = torch.stack([index >= shape[at] for at, index in enumerate(each)]).any(0)
        place = sum((index * stride for index, stride in zip(each, strides, strict=True)), torch.zeros_like(each[0]))
        where = torch.where(beyond, places, place).reshape(count, 1).expand(count, behind)
        return combine(data.reshape(places, behind), 0, where, updates.reshape(count, behind)).reshape(shape)

    return call.on(scattered, "data", "indices", "updates")

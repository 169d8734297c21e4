"""Elements that other tensors point at. A negative index counts from the end."""

from __future__ import annotations

import math

import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op

Tensor = torch.Tensor


def from_front(indices: Tensor, size: int) -> Tensor:
    """What is before the first becomes what is beyond the last, which torch refuses: it would count from the end once more."""
    front = indices.long()
    front = torch.where(front < 0, front + size, front)
    return torch.where(front < 0, size, front)


@op("gather", exact=True)
def gather(call: Call) -> Bound:
    """Slices along an axis; the first ``batch_dims`` axes of both are walked together."""
    shape, pointed = call.shape("x"), call.shape("indices")
    axis, batch = call.axis(len(shape), 0), call.value("batch_dims", 0)
    if not 0 <= batch <= min(axis, len(pointed)) or shape[:batch] != pointed[:batch]:
        raise call.error(f"its batch_dims are {batch} with axis {axis} of {shape} and indices of {pointed}")
    size = shape[axis]
    made = (*shape[:axis], *pointed[batch:], *shape[axis + 1 :])
    if not batch:
        return call.on(lambda x, indices: x.index_select(axis, from_front(indices, size).flatten()).reshape(made), "x", "indices")
    rows = math.prod(shape[:batch])
    middle, behind = shape[batch:axis], shape[axis + 1 :]
    count = math.prod(pointed[batch:])

    def gathered(x: Tensor, indices: Tensor) -> Tensor:
        each = x.reshape(rows, math.prod(middle), size, math.prod(behind))
        where = from_front(indices, size).reshape(rows, 1, count, 1).expand(rows, each.shape[1], count, each.shape[3])
        return each.gather(2, where).reshape(made)

    return call.on(gathered, "x", "indices")


@op("gather_along_axis", exact=True)
def gather_along_axis(call: Call) -> Bound:
    shape = call.shape("x")
    axis = call.axis(len(shape), 0)
    return call.on(lambda x, indices: torch.gather(x, axis, from_front(indices, shape[axis])), "x", "indices")


@op("gather_nd", exact=True)
def gather_nd(call: Call) -> Bound:
    """The last axis of the indices is a position in the first axes of ``x``, after those walked together."""
    shape, pointed = call.shape("x"), call.shape("indices")
    batch = call.value("batch_dims", 0)
    depth = pointed[-1] if pointed else 0
    if not 0 <= batch < len(pointed) or batch + depth > len(shape) or shape[:batch] != pointed[:batch]:
        raise call.error(f"its indices of {pointed} do not point into {shape} with batch_dims {batch}")
    grid = [
        torch.arange(size).reshape([-1 if at == axis else 1 for at in range(len(pointed) - 1)]) for axis, size in enumerate(pointed[:batch])
    ]

    def gathered(x: Tensor, indices: Tensor) -> Tensor:
        places = [from_front(indices[..., at], shape[batch + at]) for at in range(depth)]
        return x[tuple(grid + places)]

    return call.on(gathered, "x", "indices")

"""Tensors made of little: filled, counted, or one-hot."""

from __future__ import annotations

import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, Operand, op

Tensor = torch.Tensor


@op("fill", exact=True)
def fill(call: Call) -> Bound:
    shape = call.value("shape")
    value, held = call.value("value", 0.0), call.held
    return Bound(lambda: torch.full(shape, value, dtype=held), ())


@op("fill_like", exact=True)
def fill_like(call: Call) -> Bound:
    shape = call.shape("ref_tensor")
    value, held = call.value("value", 0.0), call.held
    return Bound(lambda: torch.full(shape, value, dtype=held), ())


@op("shape")
def shape(call: Call) -> Bound:
    """Known before the run, as every shape here is."""
    sizes = torch.tensor(call.shape("x"), dtype=call.held)
    return Bound(lambda made: made, (Operand(call.output, call.name, sizes),))


@op("range_1d")
def range_1d(call: Call) -> Bound:
    """Each element is computed from its place, not from the one before it."""
    start, end, step = call.value("start"), call.value("end"), call.value("step")
    if step == 0:
        raise call.error("its step is 0")
    count = max(0, -int((end - start) // -step))
    held = call.held
    return Bound(lambda: (start + step * torch.arange(count, dtype=torch.float64)).to(held), ())


@op("one_hot", exact=True)
def one_hot(call: Call) -> Bound:
    """An index beyond the vector sets nothing."""
    pointed, size = call.shape("indices"), call.value("one_hot_vector_size")
    axis = call.axis(len(pointed) + 1, -1)
    call.require_declared((*pointed[:axis], size, *pointed[axis:]))
    on, off = (torch.tensor(call.value(name, value), dtype=call.held) for name, value in (("on_value", 1), ("off_value", 0)))
    places = torch.arange(size).reshape(-1, *(1 for _ in pointed[axis:]))
    return call.on(lambda indices: torch.where(indices.unsqueeze(axis) == places, on, off), "indices")

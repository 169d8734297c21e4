"""Reductions over axes, positions of extremes, sums along an axis, order."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op
from dtvit_deploy.runtimes.mil.program import FLOATS, HELD

Tensor = torch.Tensor
Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in reversed(axes):  # torch's takes one axis
        x = torch.prod(x, axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Reduction] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "reduce_max": lambda x, axes, keep: torch.amax(x, axes, keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keep),
    "reduce_min": lambda x, axes, keep: torch.amin(x, axes, keep),
    "reduce_prod": _product,
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
}
INTEGRAL = frozenset({"reduce_l1_norm", "reduce_max", "reduce_min", "reduce_prod", "reduce_sum", "reduce_sum_square"})
"""Those whose answer on integers is one."""


@op(*REDUCTIONS)
def reduce(call: Call) -> Bound:
    """Of integers, a mean, a logarithm or a root loses its fraction, as the reference's value inference casts it back."""
    rank = len(call.required("x").type.shape)
    axes, keep = call.axes(rank, list(range(rank))), call.value("keep_dims", False)
    reduction, held = REDUCTIONS[call.type], call.held
    if call.output.dtype in FLOATS:
        return call.on(lambda x: reduction(x, axes, keep), "x")
    if call.type in INTEGRAL:
        return call.on(lambda x: reduction(x, axes, keep).to(held), "x")
    return call.on(lambda x: reduction(x.double(), axes, keep).to(held), "x")


@op("reduce_argmax", "reduce_argmin")
def position(call: Call) -> Bound:
    """The first of several equal ones; the reference leaves that open."""
    axis = call.axis(len(call.required("x").type.shape), -1)
    keep, held = call.value("keep_dims", False), call.held
    find = torch.argmax if call.type == "reduce_argmax" else torch.argmin
    return call.on(lambda x: find(x, axis, keepdim=keep).to(held), "x")


@op("cumsum")
def cumsum(call: Call) -> Bound:
    axis = call.axis(len(call.required("x").type.shape), 0)
    exclusive, reverse, held = call.value("exclusive", False), call.value("reverse", False), call.held

    def accumulate(x: Tensor) -> Tensor:
        x = x.flip(axis) if reverse else x
        total = torch.cumsum(x, axis, dtype=held)
        if exclusive:
            before = torch.zeros_like(total.narrow(axis, 0, min(1, total.shape[axis])))
            total = torch.cat((before, total.narrow(axis, 0, max(0, total.shape[axis] - 1))), axis)
        return total.flip(axis) if reverse else total

    return call.on(accumulate, "x")


@op("argsort")
def argsort(call: Call) -> Bound:
    axis = call.axis(len(call.required("x").type.shape), -1)
    ascending, held = call.value("ascending", False), call.held
    return call.on(lambda x: torch.argsort(x, dim=axis, descending=not ascending, stable=True).to(held), "x")


@op("topk", exact=True)
def topk(call: Call) -> Bound:
    """Sorted, which ``sort=False`` allows too; of equal ones the first."""
    shape = call.shape("x")
    axis, k = call.axis(len(shape), -1), call.value("k", 1)
    ascending = call.value("ascending", False)
    if not 0 <= k <= shape[axis]:
        raise call.error(f"it wants {k} of {shape[axis]}")
    held = HELD[call.outputs[-1].type.dtype].torch

    def first(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
        return values.narrow(axis, 0, k), indices.narrow(axis, 0, k).to(held)

    if len(call.outputs) == 1:
        return call.on(lambda x: first(x)[0], "x")
    return call.on(first, "x")


@op("classify")
def classify(call: Call) -> Bound:
    """The index of the most probable class in place of its label, and all probabilities in the order of the classes.

    Core ML gives the label itself and a dictionary, which are no tensors; the classes' names are in the artefact's manifest.
    """
    return call.on(lambda x: (x.flatten().argmax(), x.flatten()), "probabilities")

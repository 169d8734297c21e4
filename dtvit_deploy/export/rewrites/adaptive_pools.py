"""Adaptive pools whose sizes do not divide: an average is a product with a constant matrix, a maximum that of slices.

Matches adaptive pools of one to three axes where an output's side does not divide the input's. Where it does, the pool is an ordinary one,
which translators write by themselves for averages over one and two axes. Exact: torch's window i of o over n values begins at ⌊i·n/o⌋
and ends before ⌈(i + 1)·n/o⌉, an average weighs each of its values alike, and averages and maxima over a rectangle are those over its
rows of those over its columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments, shape_of

aten: Any = torch.ops.aten
AVERAGES = {
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten._adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
    aten._adaptive_avg_pool3d.default: 3,
}
MAXIMA = {aten.adaptive_max_pool1d.default: 1, aten.adaptive_max_pool2d.default: 2, aten.adaptive_max_pool3d.default: 3}
POOLS = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default, 3: aten.max_pool3d.default}


def average_by_matrix(edit: Editor, node: Node) -> Node | None:
    """The answer of an adaptive average in other operators, or None where it is left alone."""
    given, axes = arguments(node), AVERAGES[node.target]
    source: Node = given["self"]
    sizes = list(zip(range(-axes, 0), shape_of(source)[-axes:], given["output_size"], strict=True))
    if all(size % wanted == 0 for _, size, wanted in sizes):
        sides = [size // wanted for _, size, wanted in sizes]
        return edit.call(aten.avg_pool3d.default, source, sides, sides) if axes == 3 else None
    for axis, size, wanted in sizes:
        if wanted == 1:
            source = edit.call(aten.mean.dim, source, [axis], True)
        elif wanted != size:
            source = times(edit, averages(size, wanted), source, axis)
    return source


def averages(size: int, wanted: int) -> torch.Tensor:
    """Matrix (wanted, size), of which row i averages window i."""
    matrix = torch.zeros(wanted, size, dtype=torch.float64)
    for row, (first, end) in enumerate(windows(size, wanted)):
        matrix[row, first:end] = 1 / (end - first)
    return matrix


def windows(size: int, wanted: int) -> list[tuple[int, int]]:
    """First value and end of each window."""
    return [(index * size // wanted, math.ceil((index + 1) * size / wanted)) for index in range(wanted)]


def times(edit: Editor, matrix: torch.Tensor, source: Node, axis: int) -> Node:
    """The product of a matrix and an axis, in the type of what is multiplied."""
    matrix = matrix.to(source.meta["val"].dtype)
    shape = shape_of(source)
    if axis == -1:
        return edit.call(aten.matmul.default, source, edit.constant(matrix.T.contiguous(), "pool"))
    constant = edit.constant(matrix, "pool")
    if axis == -2:
        return edit.call(aten.matmul.default, constant, source)
    lead, rest = shape[:axis], shape[axis + 1 :]
    flat = edit.call(aten.reshape.default, source, [*lead, shape[axis], math.prod(rest)])
    return edit.call(aten.reshape.default, edit.call(aten.matmul.default, constant, flat), [*lead, matrix.shape[0], *rest])


def maximum_of_slices(edit: Editor, node: Node) -> Node | None:
    """The values of an adaptive maximum in other operators, or None where it is left alone: where the places of the maxima are read."""
    given, axes = arguments(node), MAXIMA[node.target]
    source: Node = given["self"]
    if any(user.args[1] != 0 and user.users for user in node.users):
        return None
    sizes = list(zip(range(-axes, 0), shape_of(source)[-axes:], given["output_size"], strict=True))
    if all(size % wanted == 0 for _, size, wanted in sizes):
        sides = [size // wanted for _, size, wanted in sizes]
        return edit.call(POOLS[axes], source, sides, sides)
    for axis, size, wanted in sizes:
        if wanted == 1:
            source = edit.call(aten.amax.default, source, [axis], True)
        elif wanted != size:
            parts = [
                edit.call(aten.amax.default, edit.call(aten.slice.Tensor, source, axis, first, end), [axis], True)
                for first, end in windows(size, wanted)
            ]
            source = edit.call(aten.cat.default, parts, axis)
    return source

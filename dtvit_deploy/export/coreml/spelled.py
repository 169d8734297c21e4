"""Operators whose arguments coremltools would ignore, written with others that it translates as they are.

Each function is given a node and what it was called with, and returns the node that stands in its place; all are torch's documented
definitions. When one is needed, :mod:`dtvit_deploy.export.coreml.arguments` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, shape_of

aten: Any = torch.ops.aten
Given = Mapping[str, Any]


def tanh_gelu(edit: Editor, node: Node, given: Given) -> Node:
    """½x·(1 + tanh(√(2/π)·(x + 0.044715x³))), in the order that coremltools' own pass makes one operator of again."""
    x = given["self"]
    cube = edit.call(aten.mul.Tensor, edit.call(aten.pow.Tensor_Scalar, x, 3), 0.044715)
    inner = edit.call(aten.mul.Tensor, edit.call(aten.add.Tensor, x, cube), math.sqrt(2 / math.pi))
    gate = edit.call(aten.add.Tensor, edit.call(aten.tanh.default, inner), 1.0)
    return edit.call(aten.mul.Tensor, edit.call(aten.mul.Tensor, x, 0.5), gate)


def scaled_sum(edit: Editor, node: Node, given: Given) -> Node:
    """``add`` or ``sub`` of what was multiplied before."""
    return edit.call(node.target, given["self"], edit.call(aten.mul.Tensor, given["other"], given["alpha"]))


def mean_of_floats(edit: Editor, node: Node, given: Given) -> Node:
    floats = edit.call(aten._to_copy.default, given["self"], dtype=given["dtype"])
    if "dim" not in given:
        return edit.call(aten.mean.default, floats)
    return edit.call(aten.mean.dim, floats, given["dim"], given["keepdim"])


def best_of_all(edit: Editor, node: Node, given: Given) -> Node:
    """``argmax`` or ``argmin`` along the one axis that all values are laid along."""
    x = given["self"]
    found = edit.call(node.target, edit.call(aten.reshape.default, x, [-1]), 0, given["keepdim"])
    return edit.call(aten.reshape.default, found, [1] * len(shape_of(x))) if given["keepdim"] else found


def clamp_by_upper(edit: Editor, node: Node, given: Given) -> Node:
    """Where the bounds cross, the upper one is the answer."""
    return edit.call(aten.minimum.default, edit.call(aten.maximum.default, given["self"], given["min"]), given["max"])


def picked_diagonal(edit: Editor, node: Node, given: Given) -> Node:
    """Every (columns + 1)th value of the matrix laid out in one row, from where the diagonal begins."""
    x, offset = given["self"], int(given["offset"])
    rank = len(shape_of(x))
    first, second = int(given["dim1"]) % rank, int(given["dim2"]) % rank
    others = [axis for axis in range(rank) if axis not in (first, second)]
    rows, columns = shape_of(x)[first], shape_of(x)[second]
    length = int(node.meta["val"].shape[-1])
    flat = edit.call(aten.permute.default, x, [*others, first, second])
    flat = edit.call(aten.reshape.default, flat, [*(shape_of(x)[axis] for axis in others), rows * columns])
    begin = offset if offset >= 0 else -offset * columns
    return edit.call(aten.slice.Tensor, flat, -1, begin, begin + (length - 1) * (columns + 1) + 1, columns + 1)

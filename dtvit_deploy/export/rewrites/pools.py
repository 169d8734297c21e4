"""Pools with `ceil_mode` or a divisor of their own, as what all translators read alike.

Matches average pools with ``divisor_override``, which torch's exporter to ONNX drops without a word: an average is multiplied. And pools
with ``ceil_mode``: where torch leaves out a last window that would begin in the padding, that exporter or OpenVINO's reader keeps it, and
they divide a window that reaches beyond the padding by different numbers. Where rounding up adds no window it is switched off; an average
that it does add one to is a product with a constant matrix, and a maximum repeats the last row, which every such window holds already.
And maxima over dilated windows, which TensorRT and Core ML do not have: they are taken of the values that each window reads.
Exact: sums over a rectangle, the counts that they are divided by, and maxima are those over its rows of those over its columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.rewrites.adaptive_pools import times
from dtvit_deploy.export.rewrites.editor import Editor, arguments, module_path, shape_of

aten: Any = torch.ops.aten
AVERAGES = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}
MAXIMA = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
    aten.max_pool2d_with_indices.default: 2,
    aten.max_pool3d_with_indices.default: 3,
}
PADS = {1: aten.replication_pad1d.default, 2: aten.replication_pad2d.default, 3: aten.replication_pad3d.default}


@dataclass(frozen=True)
class Axis:
    """The windows of a pool along one axis: ``wanted`` of them over ``size`` values."""

    axis: int
    size: int
    wanted: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def beyond(self) -> int:
        """How far the last window reaches beyond the padding; not above 0 where rounding up adds none."""
        reach = (self.wanted - 1) * self.stride + self.dilation * (self.kernel - 1) + 1
        return reach - self.size - 2 * self.padding

    @property
    def one_too_many(self) -> bool:
        """Whether rounding up alone would give a window that torch leaves out."""
        rest = self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        return math.ceil(rest / self.stride) + 1 > self.wanted

    def places(self) -> list[list[int]]:
        """What each window reads: ``wanted`` rows of ``kernel`` places, those outside replaced by the last one inside."""
        found = []
        for row in range(self.wanted):
            start = row * self.stride - self.padding
            inside = [place for index in range(self.kernel) if 0 <= (place := start + index * self.dilation) < self.size]
            found.append(inside + inside[-1:] * (self.kernel - len(inside)))
        return found

    def matrix(self, *, padded: bool, divided: bool) -> torch.Tensor:
        """Matrix (wanted, size), of which row i sums window i, divided by how many values it has, those of the padding counted or not."""
        matrix = torch.zeros(self.wanted, self.size, dtype=torch.float64)
        for row in range(self.wanted):
            start = row * self.stride - self.padding
            first, end = max(start, 0), min(start + self.kernel, self.size)
            count = min(start + self.kernel, self.size + self.padding) - start if padded else end - first
            matrix[row, first:end] = 1 / count if divided else 1.0
        return matrix


def average_in_full(edit: Editor, node: Node) -> Node | None:
    """The answer of an average pool in other operators, or None where it is left alone."""
    given = arguments(node)
    axes = _axes(node, given, AVERAGES[node.target])
    divisor, source = given.get("divisor_override"), given["self"]
    if any(axis.beyond > 0 for axis in axes):
        for axis in axes:
            matrix = axis.matrix(padded=given["count_include_pad"], divided=divisor is None)
            source = times(edit, matrix, source, axis.axis)
        return source if divisor is None else edit.call(aten.mul.Scalar, source, 1 / divisor)
    if divisor is None:
        _round_down(node, given)
        return None
    kernel, stride, padding = ([getattr(axis, name) for axis in axes] for name in ("kernel", "stride", "padding"))
    average = edit.call(node.target, source, kernel, stride, padding, False, True)
    return edit.call(aten.mul.Scalar, average, math.prod(kernel) / divisor)


def maximum_in_full(edit: Editor, node: Node) -> Node | None:
    """The answer of a maximum pool in other operators, or None where it is left alone, or was changed as it stands."""
    given = arguments(node)
    axes = _axes(node, given, MAXIMA[node.target])
    read_places = any(user.args[1] != 0 and user.users for user in node.users) if isinstance(node.meta["val"], tuple) else False
    if not read_places and any(axis.dilation > 1 for axis in axes):
        return _maximum_of_places(edit, given["self"], axes)
    if all(axis.beyond <= 0 for axis in axes):
        _round_down(node, given)
        return None
    if not any(axis.one_too_many for axis in axes):
        return None
    if read_places:
        where = module_path(node) or "the network itself"
        raise InputError(
            f"a maximum pool with ceil_mode whose indices are read, in {where}, leaves out a window along one axis and adds one along"
            " another, which no format says",
            remedy="pad its input by as much as the last windows lack, and leave ceil_mode out",
        )
    pads = [side for axis in reversed(axes) for side in (0, max(axis.beyond, 0))]
    longer = edit.call(PADS[len(axes)], given["self"], pads)
    lists = ([getattr(axis, name) for axis in axes] for name in ("kernel", "stride", "padding"))
    pool = next(target for target, count in MAXIMA.items() if count == len(axes))
    return edit.call(pool, longer, *lists)


def _maximum_of_places(edit: Editor, source: Node, axes: list[Axis]) -> Node:
    """Along one axis after the other, the values of every window side by side: those outside are replaced by others of the same window."""
    for axis in axes:
        places = edit.constant(torch.tensor(axis.places()).flatten(), "places")
        shape = list(shape_of(source))
        shape[axis.axis :] = [axis.wanted, axis.kernel, *shape[axis.axis :][1:]]
        windows = edit.call(aten.reshape.default, edit.call(aten.index_select.default, source, axis.axis, places), shape)
        source = edit.call(aten.amax.default, windows, [axis.axis])
    return source


def _round_down(node: Node, given: dict[str, Any]) -> None:
    """Have a pool stand as it is, without rounding up."""
    if given["ceil_mode"]:
        target: Any = node.target
        node.args = tuple(False if one.name == "ceil_mode" else given[one.name] for one in target._schema.arguments)
        node.kwargs = {}


def _axes(node: Node, given: dict[str, Any], count: int) -> list[Axis]:
    value = node.meta["val"]
    sizes = shape_of(given["self"])[-count:]
    wanted = tuple(map(int, (value[0] if isinstance(value, tuple) else value).shape))[-count:]
    kernel = _each(given["kernel_size"], count)
    stride = _each(given["stride"], count) if given["stride"] else kernel
    padding, dilation = _each(given["padding"], count), _each(given.get("dilation", 1), count)
    return [Axis(*one) for one in zip(range(-count, 0), sizes, wanted, kernel, stride, padding, dilation, strict=True)]


def _each(value: int | Sequence[int], count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values

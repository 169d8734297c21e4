"""Tensors of a translated program get the names of the exported program's nodes back, by which they are found in every artefact.

Only where the operator was made for that node, its name says so, and the shape is the node's: passes move operators about, and a tensor
under a wrong name would be blamed for what it is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from dtvit_deploy.export.coreml.order import Orders
from dtvit_deploy.export.coreml.origin import number_of
from dtvit_deploy.formats.mlpackage.options import HeldAs
from dtvit_deploy.formats.mlpackage.views import HALF, TURNED

if TYPE_CHECKING:
    import torch


def restore_names(program: Any, made: Sequence[torch.fx.Node], orders: Orders) -> dict[str, HeldAs]:
    """Name the variables of a MIL program after the nodes that they are; the program is changed.

    Args:
        program: whose operators still know the number of the node that they were made for.
        made: the nodes by number.
        orders: the tensors that coremltools left in another order of axes.

    Returns:
        By node, those that are the node's in another order of axes; a variable that is has :data:`TURNED` behind the node's name.
    """
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    PASS_REGISTRY["common::dedup_op_and_var_names"].apply(program)
    function = program.functions["main"]
    names, shapes = _Names(function), {node.name: shape for node in made if (shape := _shape_of(node)) is not None}
    views = _name_after_nodes(function, names, made, shapes, orders)
    _set_misnamed_aside(names, shapes)
    return views


class _Names:
    """The names in a function, each of which one variable has at a time."""

    def __init__(self, function: Any) -> None:
        self._outputs = function.outputs
        self._holders = {var.name: (var, op) for op in function.operations for var in op.outputs}
        self._holders |= dict.fromkeys(function.inputs, (None, None))
        self._operators = {op.name for op in function.operations}

    def __contains__(self, name: str) -> bool:
        return name in self._holders

    @property
    def inner(self) -> list[tuple[Any, Any]]:
        """The variables that are neither inputs nor outputs, each with its operator."""
        return [(var, op) for var, op in self._holders.values() if op is not None and var not in self._outputs]

    def inner_holder(self, name: str) -> tuple[Any, Any] | None:
        """The variable of a name and its operator; None where there is none, and of an input or output, whose name is not ours to take."""
        var, op = self._holders.get(name, (None, None))
        return None if var is None or var in self._outputs else (var, op)

    def give(self, var: Any, op: Any, name: str) -> None:
        """Rename a variable, and its operator where it has no other and none has that name."""
        del self._holders[var.name]
        var.name = name
        self._holders[name] = (var, op)
        if len(op.outputs) == 1 and name not in self._operators:
            self._operators.add(name)
            op.name = name

    def set_aside(self, var: Any, op: Any) -> None:
        """Take from a variable a name that is another's, or that it has no right to."""
        name = var.name
        self.give(var, op, next(free for index in count() if (free := f"{name}_inner{index or ''}") not in self))


def _name_after_nodes(
    function: Any, names: _Names, made: Sequence[torch.fx.Node], shapes: Mapping[str, tuple[int, ...]], orders: Orders
) -> dict[str, HeldAs]:
    """Give every variable that is a node's the node's name; what a pass made, and named like that node by counting, steps aside.

    Returns:
        As :func:`restore_names`.
    """
    # A batch norm's answer is the first of three, and a convolution that it was merged into has the name of the three.
    several = {node.name: parts[0] for node in made if isinstance(node.meta.get("val"), (tuple, list)) and (parts := _parts(node, 0))}
    views: dict[str, HeldAs] = {}
    for op in list(function.operations):
        number = number_of(op)
        if op.op_type.startswith("const") or number is None:
            continue
        node = made[number]
        for place, var in enumerate(op.outputs):
            order = _order_of(var, node, orders)
            lone = several.get(str(var.name).removesuffix(HALF)) if len(op.outputs) == 1 else None
            name = lone or _name_of(op, var, place, node, order)
            if var in function.outputs or name is None or (name == var.name and order is None):
                continue
            if order is not None and shapes.get(name) == _turned(var.shape, order):
                views[name] = HeldAs(tuple(map(int, var.shape)), order, shapes[name])
                name += TURNED
            other = names.inner_holder(name) if name == node.name else None
            if other is not None and number_of(other[1]) != number:
                names.set_aside(*other)
            if name not in names:
                names.give(var, op, name)
    return views


def _set_misnamed_aside(names: _Names, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Take a node's name from the variables that kept it and have not the node's shape."""
    for var, op in names.inner:
        node = var.name if var.name in shapes else re.sub(r"_\d+$", "", var.name)  # as a reader takes it
        if shapes.get(node, tuple(var.shape)) != tuple(var.shape):
            names.set_aside(var, op)


def _order_of(var: Any, node: torch.fx.Node, orders: Orders) -> tuple[int, ...] | None:
    """The order of axes that a variable was left in; None where that is the node's."""
    own = var.name.replace(HALF, "")
    return orders.get(own, orders.get(node.name) if _is_numbered(own, node.name) else None)


def _is_numbered(name: str, node: str) -> bool:
    """Whether a name is a node's, or one that coremltools made of it to have it once only."""
    return re.fullmatch(rf"{re.escape(node)}(_\d+)?", name) is not None


def _shape_of(node: torch.fx.Node) -> tuple[int, ...] | None:
    shape = getattr(node.meta.get("val"), "shape", None)
    return None if shape is None else tuple(map(int, shape))


def _turned(shape: Sequence[int], order: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order) if order else tuple(shape)


def _name_of(op: Any, var: Any, place: int, node: torch.fx.Node, order: Sequence[int] | None) -> str | None:
    own = str(var.name).removesuffix(HALF)
    if len(op.outputs) > 1:
        parts = _parts(node, place)
        return parts[0] if parts and re.sub(r"\d+$", "", op.name.removesuffix(HALF)) == re.sub(r"\d+$", "", node.name) else None
    if _is_numbered(own, node.name) and _shape_of(node) == _turned(var.shape, order):
        return node.name
    return own if own != var.name else None


def _parts(node: torch.fx.Node, place: int) -> list[str]:
    """Names of the nodes that take one of a node's several answers."""
    return [user.name for user in node.users if user.op == "call_function" and "getitem" in str(user.target) and user.args[1] == place]

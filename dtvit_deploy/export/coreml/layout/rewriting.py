"""One program written anew, each tensor held as its operator gave it; what an operator makes of its inputs, the rules say.

A rule is given the :class:`Rewriting` and an operator of the old program, asks it for the inputs as they are held now, and has it emit
operators of the new program. Which rules there are is for the caller to say (:mod:`dtvit_deploy.export.coreml.layout.relay`), so that
this module knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import HeldAs
from dtvit_deploy.formats.mlpackage.views import MOVED, MOVES, TURNED, Atom, Groups, View, flat, moves, node_of, sizes

Rule = Callable[["Rewriting", Any], Sequence[View]]
"""The views of an operator's outputs, from the rewriting and the old program's operator."""
MOST_AXES = 5
"""Of a Core ML tensor."""


def fixed(var: Any) -> tuple[int, ...]:
    """The sizes of a tensor; none of what is no tensor.

    Raises:
        InputError: one of them is known at run time alone.
    """
    from coremltools.converters.mil.mil import types

    if not types.is_tensor(var.sym_type):  # a number, or a class label and the probabilities of all
        return ()
    shape = tuple(var.shape)
    if not all(isinstance(size, (int, np.integer)) for size in shape):
        raise InputError(f"the shape of {var.name} is not fixed")
    return tuple(int(size) for size in shape)


class Rewriting:
    """One program, and the one that is written of it.

    Attributes:
        grids: by their number, tokens of images that stay (height, width) where they become channels first; others are one axis, the last.
        images: numbers of tokens that were met, of which either could be.
        views: of what was written, tensors that are held in another order than the node's whose name they have.
    """

    def __init__(self, function: Any, grids: frozenset[int], before: Mapping[str, HeldAs]) -> None:
        from coremltools.converters.mil.mil import Builder

        self.mb, self._function, self.grids = Builder, function, grids
        self.images: set[int] = set()
        self.views = dict(before)
        self._before = before
        self._known: dict[Any, View] = {}
        self._constants: dict[Any, Any] = {}
        self._moved: dict[tuple[Any, Groups], Any] = {}
        self._numbers = 0
        self._kernels: dict[Any, Any] = {}

    def run(self, rules: Mapping[str, Rule], otherwise: Rule) -> tuple[int, Any]:
        """Write the program.

        Args:
            rules: by the type of the operator.
            otherwise: for types that have none.

        Returns:
            How many of its operators only move data, and the program.

        Raises:
            InputError: its shapes are not fixed, or it decides at run time what is computed.
        """
        from coremltools.converters.mil.mil import Function, Program

        program, old = Program(), self._function
        inputs = {name: self.mb.placeholder(var.shape, dtype=var.dtype, name=name) for name, var in old.inputs.items()}
        with Function(inputs, opset_version=old.opset_version) as function:
            for name, var in old.inputs.items():
                self._learn(var, View.plain(function.inputs[name], fixed(var)))
            for op in old.operations:
                if op.op_type == "const":
                    continue
                if op.blocks:
                    raise InputError(f"{op.name} decides at run time what is computed")
                found = rules.get(op.op_type, otherwise)(self, op)
                for var, view in zip(op.outputs, found, strict=True):
                    self._learn(var, view)
            function.set_outputs([self._output(var) for var in old.outputs])
        program.add_function("main", function)
        return sum(op.op_type in MOVES for op in function.operations), program

    def _learn(self, var: Any, view: View) -> None:
        assert view.shape == fixed(var), f"{var.name}: {view.shape} in place of {var.shape}"
        self._known[var] = view

    def of(self, var: Any) -> View:
        """What a tensor of the old program is in the new one."""
        if var not in self._known:
            self._known[var] = View.plain(self.constant(var), fixed(var))
        return self._known[var]

    def constant(self, var: Any) -> Any:
        if var not in self._constants:
            from coremltools.converters.mil.mil import mil_list

            value = mil_list(var.val) if isinstance(var.val, list) else var.val
            self._constants[var] = self.mb.const(val=value, name=var.name)
        return self._constants[var]

    def kernel(self, weight: Any) -> Any:
        """A linear's weights as those of a convolution of size 1, once for all that share them."""
        if weight not in self._kernels:
            self._kernels[weight] = self.mb.const(val=weight.val[:, :, None, None], name=f"{weight.name}_1x1")
        return self._kernels[weight]

    def emit(self, kind: str, like: Any, *, suffix: str = "", **arguments: Any) -> Any:
        """A new operator with an old one's name, or one derived from it."""
        given = {name: value for name, value in arguments.items() if value is not None}
        return getattr(self.mb, kind)(**given, name=f"{like.name}{suffix}")

    def result(self, op: Any, kind: str, held: Groups, shown: Groups, **arguments: Any) -> View:
        """The view that a new operator makes of the one output of an old one; named after it, and marked if its order is another."""
        (old,) = op.outputs
        var = self.emit(kind, old, **arguments)
        assert tuple(var.shape) == sizes(held), f"{op.name}: {var.shape} in place of {sizes(held)}"
        view = self.named(old, View(var, held, shown))
        var.op.name = var.name
        return view

    def named(self, old: Any, view: View) -> View:
        """Call what a tensor became after it, and remember by what view it is the node's."""
        node = view
        if old.name.endswith(TURNED):  # it was in another order before
            node = view.transposed(self._before[node_of(old.name)].order)
        view.value.name = node_of(old.name) + ("" if node.is_plain else TURNED)
        if not node.is_plain and not node.repeated:
            order = flat(node.held)
            turn = tuple(order.index(atom) for atom in flat(node.shown))
            self.views[node_of(old.name)] = HeldAs(tuple(atom.size for atom in order), turn, node.shape)
        return view

    def hold(self, view: View, wanted: Groups) -> View:
        """The same tensor held as wanted; what is repeated and wanted is written out."""
        repeated = view.repeated.intersection(flat(wanted))
        if repeated:
            apart: list[tuple[Atom, ...]] = []
            for group in wanted:
                mixed = repeated.intersection(group) and not repeated.issuperset(group)
                apart += [(atom,) for atom in group] if mixed else [group]
            bare: Groups = tuple(() if repeated.intersection(group) else group for group in apart)
            view = self.hold(view, bare)
            reps = [size if repeated.intersection(group) else 1 for group, size in zip(apart, sizes(apart), strict=True)]
            view = View(self.mb.tile(x=view.value, reps=reps, name=self._derived(view.value)), tuple(apart), view.shown)
        for move in moves(view.held, wanted):
            view = View(self._move(view.value, move), move.groups, view.shown)
        return view

    def channels_first(self, x: View) -> Groups:
        """How to hold a tensor whose last axis are its channels."""
        batch, channels = x.shown[0], x.shown[-1]
        if len(x.held) == 4 and x.held[1] == channels and not set(channels).intersection(x.held[0] + x.held[2] + x.held[3]):
            return x.held
        rest = tuple(atom for atom in flat(x.held) if atom not in channels and atom not in batch)
        if len(rest) == 2:
            self.images.add(tokens := rest[0].size * rest[1].size)
            if tokens in self.grids:
                return batch, channels, rest[:1], rest[1:]
        return batch, channels, (), rest

    def cost(self, view: View, wanted: Groups) -> int:
        return sum(1 for _ in moves(view.held, wanted))

    def plain(self, view: View) -> View:
        """Held as it is shown."""
        return self.hold(view, view.shown)

    def _move(self, value: Any, move: Any, name: str | None = None) -> Any:
        key = value, move.groups
        if name is not None or key not in self._moved:
            if len(move.groups) > MOST_AXES:
                raise InputError(f"{value.name} would be moved by a tensor of {len(move.groups)} axes, and Core ML has at most {MOST_AXES}")
            name = name or self._derived(value)
            if move.kind == "reshape":
                made = self.mb.reshape(x=value, shape=list(move.arguments), name=name)
            else:
                made = self.mb.transpose(x=value, perm=list(move.arguments), name=name)
            self._moved[key] = made
        return self._moved[key]

    def _derived(self, value: Any) -> str:
        """A name that no node has, for what is only moved; coremltools would call it ``transpose_1``, as a node may be called."""
        self._numbers += 1
        return f"{value.name.partition(MOVED)[0]}{MOVED}{self._numbers}"

    def _output(self, var: Any) -> Any:
        view = self.of(var)
        if view.repeated:
            view = self.plain(view)
        steps = list(moves(view.held, view.shown))
        for move in steps[:-1]:
            view = View(self._move(view.value, move), move.groups, view.shown)
        if steps:
            return self._move(view.value, steps[-1], var.name)
        return view.value if view.value.name == var.name else self.mb.identity(x=view.value, name=var.name)

"""A Core ML package for the Neural Engine: channels first, linears as 1×1 convolutions, and data moved only where an operator needs it.

The Neural Engine's tensors are (batch, channels, height, width), or (batch, channels, 1, tokens); a transformer that is written for
(batch, tokens, channels) goes to and fro between the two. Here the program is written anew, operator by operator. Each of its tensors is
held in whatever order its operator gave it (see :mod:`dtvit_deploy.formats.mlpackage.views`), reshapes and transposes only change what is
believed of it, and each operator computes on what is held, with axes and constants to match, or asks for the order that it needs. The
principles are Apple's (https://machinelearning.apple.com/research/neural-engine-transformers); the heads of an attention are an axis of
one product here and not a product each: one reshape that leaves the last axis alone, in place of as many operators again for every head.
That this costs less is inferred, not measured; Apple splits the heads.

What no rule is known for is computed as it was, in its own order. Nothing is assumed of a network; whether the answers are the same is for
the caller to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.coreml.interface import model_of_mil
from dtvit_deploy.export.coreml.layout.ops import RULES, as_it_was, fixed
from dtvit_deploy.export.coreml.layout.parts import PARTS
from dtvit_deploy.export.coreml.layout.products import PRODUCTS
from dtvit_deploy.export.coreml.saved import coremltools, mil_of, read_mlpackage, write_mlpackage
from dtvit_deploy.formats.mlpackage.options import HeldAs
from dtvit_deploy.formats.mlpackage.views import MOVED, MOVES, TURNED, Atom, Groups, View, flat, moves, node_of, sizes
from dtvit_deploy.process.quiet import quiet

"""Operators that only reorder or regroup."""
MOST_AXES = 5
"""Of a Core ML tensor."""


@dataclass(frozen=True)
class Relaid:
    """What became of a package.

    Attributes:
        before, after: operators that only move data, in the package given and in the one written.
        views: tensors that are held in another order than the node's whose name they have.
    """

    before: int
    after: int
    views: Mapping[str, HeldAs]

    @property
    def note(self) -> str:
        share = f" ({self.after / self.before:.0%})" if self.before else ""
        return f"layout for the Neural Engine: transposes + reshapes: {self.before} → {self.after}{share}"


def relay_mlpackage(source: Path, path: Path, ios: int, views: Mapping[str, HeldAs] | None = None) -> Relaid:
    """Package → the same network in the Neural Engine's order, with images of tokens in whichever form takes fewer moves.

    Args:
        source, path: read, and written.
        ios: least release that loads it.
        views: tensors of ``source`` that are held in another order than their node's.

    Raises:
        InputError: its shapes are not fixed, or it decides at run time what is computed.
    """
    ct = coremltools()
    model = read_mlpackage(source)
    with quiet():
        program = mil_of(model)
        function = program.functions["main"]
        rewriting = Rewriting(ct, function, frozenset(), views or {})
        best, written = rewriting.run()
        for tokens in sorted(rewriting.images):
            other = Rewriting(ct, function, rewriting.grids | {tokens}, views or {})
            fewer, program = other.run()
            if fewer < best:
                best, written, rewriting = fewer, program, other
        made = model_of_mil(written, ios, description=model.get_spec().description)
        write_mlpackage(made, path)
    return Relaid(moved(model.get_spec()), moved(made.get_spec()), rewriting.views)


def moved(spec: Any) -> int:
    """Operators of a saved program that only move data."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    counts = Counter(operation.type for operation in block.operations)
    return sum(counts[kind] for kind in MOVES)


class Rewriting:
    """One program, and the one that is written of it.

    Attributes:
        grids: by their number, tokens of images that stay (height, width) where they become channels first; others are one axis, the last.
        images: numbers of tokens that were met, of which either could be.
        views: of what was written, as in :class:`Relaid`.
    """

    def __init__(self, ct: Any, function: Any, grids: frozenset[int], before: Mapping[str, HeldAs]) -> None:
        from coremltools.converters.mil.mil import Builder

        self.mb, self._ct, self._function, self.grids = Builder, ct, function, grids
        self.images: set[int] = set()
        self.views = dict(before)
        self._before = before
        self._known: dict[Any, View] = {}
        self._constants: dict[Any, Any] = {}
        self._moved: dict[tuple[Any, Groups], Any] = {}
        self._numbers = 0
        self._kernels: dict[Any, Any] = {}

    def run(self) -> tuple[int, Any]:
        """Operators that only move data, and the program."""
        from coremltools.converters.mil.mil import Function, Program

        rules = RULES | PARTS | PRODUCTS

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
                found = rules.get(op.op_type, as_it_was)(self, op)
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

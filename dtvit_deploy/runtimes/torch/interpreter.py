"""A program evaluated node by node, in an arithmetic: what is tapped is kept, rankings may be given, and a run may go on from another."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Interpreter

from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.torch.rankings import Ranking
from dtvit_deploy.runtimes.torch.sums import summed


class Arithmetic(enum.Enum):
    """In what numbers a program is evaluated."""

    FP32 = "fp32"
    FP64 = "fp64"
    FP16 = "fp16 tensors, fp32 inside operators"
    BF16 = "bf16 tensors, fp32 inside operators"
    FP16_SUMS = "fp16 tensors, sums of products in fp16, fp32 inside other operators"


ROUNDED_TO = {Arithmetic.FP16: torch.float16, Arithmetic.BF16: torch.bfloat16, Arithmetic.FP16_SUMS: torch.float16}
"""The type that tensors are rounded to."""
ROUNDS_TO_0 = 2.0**-25
"""Half of FP16's smallest number: this and less becomes 0."""
GUARDING = frozenset({"add", "clamp", "clamp_min", "rsub", "sub"})
"""Operators that keep a divisor from 0 by a number of their own, which is a constant of the graph in an artefact."""

NEAR_ONE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.log1p.default: lambda x, rounded: rounded(1 + x).log(),
    torch.ops.aten.expm1.default: lambda x, rounded: rounded(x.exp()) - 1,
}
"""Operators that ONNX does not have: a typed artefact spells them by a sum with 1, and has that sum as a tensor of its own."""


class ArithmeticInterpreter(Interpreter):
    """Runs the graph node by node, in an arithmetic, and keeps what is tapped."""

    def __init__(
        self, module: torch.fx.GraphModule, taps: tuple[str, ...], arithmetic: Arithmetic, unrounded: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(module)
        self._unrounded = unrounded
        self._taps = frozenset(taps)
        self._arithmetic = arithmetic
        self._raising = False
        """Whether the node at hand has its constants in FP16."""
        self.tapped: dict[str, torch.Tensor] = {}
        self.chosen: dict[str, tuple[Ranking, torch.Tensor]] = {}
        """Indices for nodes that would rank, by the node."""
        self.keep: frozenset[torch.fx.Node] = frozenset()
        """Nodes whose values a later run goes on from, where a node that is none of them reads one."""
        self.kept: dict[torch.fx.Node, Any] = {}
        self._originals: dict[torch.fx.Node, Any] = {}
        """What nodes computed of which rounding made nothing of some value, before it was rounded."""
        unknown = self._taps - {node.name for node in module.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)}
        if unknown:
            raise InputError(f"the program has no tensor {', '.join(sorted(unknown)[:5])}", remedy="ask `tensors` for what it has")

    def answer(self, tensors: list[torch.Tensor]) -> Any:
        self.tapped.clear()
        self._originals.clear()
        return self.run(*(self._cast(tensor) for tensor in tensors))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if self._arithmetic is Arithmetic.FP64:
            return value.double()
        return rounded(value, ROUNDED_TO[self._arithmetic]) if self._arithmetic in ROUNDED_TO else value

    def run_node(self, n: torch.fx.Node) -> Any:
        self._raising = ROUNDED_TO.get(self._arithmetic) is torch.float16 and n.name not in self._unrounded
        value = self._as_chosen(n, *self.chosen[n.name]) if n.name in self.chosen else super().run_node(n)
        if n.op == "call_function" and n.name not in self._unrounded:
            if self._arithmetic is Arithmetic.FP16_SUMS:
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                added = summed(n.target, args, kwargs)
                if added is not None and torch.equal(added.isfinite(), value.isfinite()):  # else an artefact keeps it in FP32
                    value = added
            if ROUNDED_TO.get(self._arithmetic) is torch.float16:
                value = self._guarded(n, value)
            value = type(value)(map(self._cast, value)) if isinstance(value, (tuple, list)) else self._cast(value)
        if n.name in self._taps and isinstance(value, torch.Tensor):
            self.tapped[n.name] = value
        for source in self.user_to_last_uses.get(n, ()):
            self._originals.pop(source, None)
        if n in self.keep:
            self.kept[n] = value if any(user not in self.keep for user in n.users) else None  # not even looked at then
        return value

    def _guarded(self, n: torch.fx.Node, value: Any) -> Any:
        """A result that is not finite, from what its operands were before rounding made 0 of them, where that is finite.

        What keeps a division from 0 does not fit FP16 if it becomes 0, as little as what would become infinite: neither is rounded here. An
        artefact that does round it away answers with what is not finite, and fails for that.
        """
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        exact = value
        if any(source in self._originals for source in n.all_input_nodes):
            args, kwargs = torch.fx.map_arg((n.args, n.kwargs), lambda source: self._originals.get(source, self.env[source]))
            exact = self.call_function(n.target, args, kwargs)
            if not value.isfinite().all() and exact.isfinite().all():
                value = exact
        if ((exact != 0) & (value.abs() <= ROUNDS_TO_0)).any():
            self._originals[n] = exact
        return value

    def _as_chosen(self, n: torch.fx.Node, ranking: Ranking, indices: torch.Tensor) -> Any:
        """What a node that ranks returns where the indices are given."""
        if isinstance(n.meta["val"], torch.Tensor):
            return indices
        scores, axis = self.fetch_args_kwargs_from_env(n)[0][0], ranking.axis or 0
        kept = indices.ndim == scores.ndim
        values = scores.gather(axis, indices if kept else indices.unsqueeze(axis))
        return values if kept else values.squeeze(axis), indices

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._raising and getattr(target, "__name__", "").partition(".")[0] in GUARDING:
            args, kwargs = tuple(map(_raised, args)), {name: _raised(value) for name, value in kwargs.items()}
        if self._arithmetic is Arithmetic.FP64 and kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            kwargs = kwargs | {"dtype": torch.float64}
        if self._raising and target in NEAR_ONE:
            return NEAR_ONE[target](*args, self._cast)
        return super().call_function(target, args, kwargs)


def following(graph: torch.fx.Graph, name: str) -> set[torch.fx.Node]:
    """A node, and all that depend on it."""
    found: set[torch.fx.Node] = set()
    for node in graph.nodes:
        if node.name == name or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _raised(value: Any) -> Any:
    """A number that FP16 would make 0, as the smallest that it has: so an artefact has it (:mod:`dtvit_deploy.export.onnx.float16`)."""
    return math.copysign(max(abs(value), 2 * ROUNDS_TO_0), value) if isinstance(value, float) and value else value


def rounded(value: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    rounded = value.to(kind).float()
    return rounded if torch.equal(rounded.isfinite(), value.isfinite()) else value

"""The exported program in torch: the reference is a session like any other.

The arithmetics of one program make the noise floor that tolerances come from: FP32 as users run it, FP64 as the exact answer, and FP16
and BF16 as the best that any runtime can do in them (every tensor rounded, every operator computed in FP32 on rounded inputs; what FP16
cannot hold stays as it is, as it does in an artefact: see :mod:`dtvit_deploy.export.onnx.float16`). FP16 with sums in FP16 is the best
that a runtime can do which adds so, as ONNX Runtime does on ARM64 (:mod:`dtvit_deploy.runtimes.arm64.half_sums`).
"""

from __future__ import annotations

import copy
import enum
import math
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Interpreter

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.torch.rankings import Ranking
from dtvit_deploy.runtimes.torch.sums import summed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs


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


class TorchRuntime:
    """Loads ``program`` artefacts."""

    name = "torch"
    rung = Rung.EXECUTED

    def available(self, artifact: Artifact | None = None) -> Availability:
        return Availability(version=torch.__version__)

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        program = read_program(artifact)
        outputs = set(program.graph_signature.user_outputs)
        # What nobody reads (the statistics of a batch norm) is gone by the time the program runs.
        values = ((node.name, node.meta.get("val")) for node in program.graph.nodes if node.op == "call_function" and node.users)
        return tuple(n for n, value in values if isinstance(value, torch.Tensor) and value.is_floating_point() and n not in outputs)

    def load(self, artifact: Artifact, options: SessionOptions) -> TorchSession:
        return TorchSession(read_program(artifact), artifact.manifest.signature, options)


def read_program(artifact: Artifact) -> ExportedProgram:
    """Load a program that this machine's cache holds.

    ``torch.export.load`` may unpickle, which runs code: it is called on files of the user's own cache only, never on a file that came
    from elsewhere (docs/adr/0004).
    """
    try:
        with quiet():  # what is wrong with it is in the exception
            return torch.export.load(artifact.path)
    except Exception as error:  # zip, JSON and schema errors of four libraries
        raise InputError(f"{artifact.path} is not an exported program: {error}", remedy="export again with --no-cache") from error


class TorchSession:
    """One program, evaluated in FP32 by torch's own graph module, or node by node where taps or another arithmetic are asked for."""

    def __init__(
        self,
        program: ExportedProgram,
        signature: Signature,
        options: SessionOptions,
        arithmetic: Arithmetic = Arithmetic.FP32,
        unrounded: Collection[str] = (),
    ) -> None:
        """Open.

        Args:
            unrounded: names of nodes that stay FP32 where ``arithmetic`` rounds, and with them the constants that only they read.
        """
        ends = program.graph_signature
        if (len(ends.user_inputs), len(ends.user_outputs)) != (len(signature.inputs), len(signature.outputs)):
            raise InputError("the program is not the one that its manifest describes", remedy="export again with --no-cache")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch copies its own deprecated classes
            module = program.module(check_guards=False)
            if arithmetic is not Arithmetic.FP32:
                module = copy.deepcopy(module)  # its parameters are the program's own, and other sessions run those
        if arithmetic is not Arithmetic.FP32:
            if arithmetic is Arithmetic.FP64:
                module = module.double()
            exact = {
                node.target for node in module.graph.nodes if node.op == "get_attr" and all(user.name in unrounded for user in node.users)
            }
            for name, tensor in (*module.named_parameters(), *module.named_buffers()) if arithmetic in ROUNDED_TO else ():
                if name not in exact:
                    tensor.data = _rounded(tensor.data, ROUNDED_TO[arithmetic])
        self._call: Any = module
        self._interpreter = _Interpreter(module, options.taps, arithmetic, frozenset(unrounded))
        self._plain = arithmetic is Arithmetic.FP32 and not options.taps
        self._taps = options.taps
        self._threads = options.threads
        self.signature = signature
        self.conditions = {"runtime": f"torch {torch.__version__}", "threads": str(options.threads), "precision": arithmetic.value}

    def run(self, feeds: Feeds) -> Outputs:
        if torch.get_num_threads() != self._threads:  # a setting of the process, and other sessions set theirs
            torch.set_num_threads(self._threads)
        if self._call is None:
            raise RuntimeError("the session was left; it cannot run")
        # Copies: a network may work in place on its inputs, or hand them through, and the caller's arrays are fed to others too.
        tensors = [torch.from_numpy(np.array(feeds[spec.name], order="C")) for spec in self.signature.inputs]
        with torch.inference_mode():
            answer = self._call(*tensors) if self._plain else self._interpreter.answer(tensors)
        values = [answer] if isinstance(answer, torch.Tensor) else list(answer.values() if isinstance(answer, dict) else answer)
        outputs = {spec.name: value.detach().numpy() for spec, value in zip(self.signature.outputs, values, strict=True)}
        return outputs | {name: self._interpreter.tapped[name].detach().numpy() for name in self._taps}

    def run_with(self, feeds: Feeds, chosen: Iterable[tuple[Ranking, NDArray[Any]]]) -> Outputs:
        """The same with the indices of some rankings given: what the network says of just those, in that order."""
        self._interpreter.chosen = {one.node: (one, torch.from_numpy(np.array(indices, np.int64))) for one, indices in chosen}
        plain, self._plain = self._plain, False
        try:
            return self.run(feeds)
        finally:
            self._interpreter.chosen, self._plain = {}, plain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._call = None
        self._interpreter.tapped.clear()


class _Interpreter(Interpreter):
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
        return _rounded(value, ROUNDED_TO[self._arithmetic]) if self._arithmetic in ROUNDED_TO else value

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


def _raised(value: Any) -> Any:
    """A number that FP16 would make 0, as the smallest that it has: so an artefact has it (:mod:`dtvit_deploy.export.onnx.float16`)."""
    return math.copysign(max(abs(value), 2 * ROUNDS_TO_0), value) if isinstance(value, float) and value else value


def _rounded(value: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    rounded = value.to(kind).float()
    return rounded if torch.equal(rounded.isfinite(), value.isfinite()) else value

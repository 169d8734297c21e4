"""The exported program in torch: the reference is a session like any other.

The arithmetics of one program make the noise floor that tolerances come from: FP32 as users run it, FP64 as the exact answer, and FP16
and BF16 as the best that any runtime can do in them (every tensor rounded, every operator computed in FP32 on rounded inputs; what FP16
cannot hold stays as it is, as it does in an artefact: see :mod:`dtvit_deploy.export.onnx.float16`). FP16 with sums in FP16 is the best
that a runtime can do which adds so, as ONNX Runtime does on ARM64 (:mod:`dtvit_deploy.runtimes.arm64.half_sums`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import Availability, SessionOptions
from dtvit_deploy.runtimes.torch.interpreter import ROUNDED_TO, Arithmetic, ArithmeticInterpreter, following, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.runtimes.torch.rankings import Ranking


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
                    tensor.data = rounded(tensor.data, ROUNDED_TO[arithmetic])
        self._call: Any = module
        self._interpreter = ArithmeticInterpreter(module, options.taps, arithmetic, frozenset(unrounded))
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
        return self._named(answer) | {name: self._interpreter.tapped[name].detach().numpy() for name in self._taps}

    def run_with(self, feeds: Feeds, chosen: Iterable[tuple[Ranking, NDArray[Any]]]) -> Outputs:
        """The same with the indices of some rankings given: what the network says of just those, in that order."""
        self._interpreter.chosen = {one.node: (one, torch.from_numpy(np.array(indices, np.int64))) for one, indices in chosen}
        plain, self._plain = self._plain, False
        try:
            return self.run(feeds)
        finally:
            self._interpreter.chosen, self._plain = {}, plain

    def from_there(self, feeds: Feeds, ranking: Ranking) -> Callable[[NDArray[Any]], Outputs]:
        """What the network says of other indices of one ranking, all before it evaluated once.

        Returns:
            from indices of that ranking to the outputs, without taps.
        """
        follows = following(self._interpreter.graph, ranking.node)
        self._interpreter.keep = frozenset(node for node in self._interpreter.graph.nodes if node not in follows)
        try:
            self.run_with(feeds, ())
            before = self._interpreter.kept
        finally:
            self._interpreter.keep, self._interpreter.kept = frozenset(), {}

        def again(indices: NDArray[Any]) -> Outputs:
            self._interpreter.chosen = {ranking.node: (ranking, torch.from_numpy(np.array(indices, np.int64)))}
            try:
                with torch.inference_mode():
                    answer = self._interpreter.run(initial_env=dict(before), enable_io_processing=False)
            finally:
                self._interpreter.chosen = {}
            return self._named(answer)

        return again

    def _named(self, answer: Any) -> Outputs:
        values = [answer] if isinstance(answer, torch.Tensor) else list(answer.values() if isinstance(answer, dict) else answer)
        return {spec.name: value.detach().numpy() for spec, value in zip(self.signature.outputs, values, strict=True)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._call = None
        self._interpreter.tapped.clear()

"""Whether what coremltools made of a program is still that network, asked before a package is kept.

The table of ignored arguments (:mod:`dtvit_deploy.export.coreml.arguments`) names what is known. This finds the rest: the translation in
FP32 is evaluated beside torch, on real feeds where there are any. It is no parity check, which `verify` is, with tolerances from a noise
floor: what is refused here is another function, and no rounding of the same one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.stages import GuardFeeds
from dtvit_deploy.runtimes.base import SessionOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Feeds, Outputs

LEAST_SQNR = 40.0
"""dB of torch's answer over what the translation moves: 1 % of it. FP32 in another order leaves more than 100 as a rule."""
OVER_FLOOR = 100.0
"""A network that FP32 itself moves this far off its FP64 answer, to this part, is no evidence against a translation."""
NOTHING = 1e-5
"""Root mean square of a change that is none, whatever the answer: torch's zeros may be exact by luck."""


def require_same_network(package: Path, program: Artifact, nodes: NodeMap, guard: GuardFeeds) -> None:
    """Refuse a translation that answers real feeds otherwise than torch by far; integers, which ties decide, are not compared.

    Args:
        package: of the program in FP32, whose inputs are plain tensors.
        program: the exported program.
        nodes: of it.
        guard: feeds; the adversarial ones among them are left to `verify`.

    Raises:
        InputError: names the output, and the first module whose tensors moved.
    """
    try:
        answers = _Answers(package, program)
        found = next(((feed, *moved) for feed in guard.feeds[: guard.real] if (moved := answers.moved(feed))), None)
    except InputError:
        return  # what the evaluator lacks or cannot compute is a note of the package, which says that it cannot be verified here
    if found is not None:
        feed, name, decibels = found
        raise InputError(
            f"what coremltools makes of {program.manifest.model} is another network: output {name!r} moved, {decibels},"
            f" at least {LEAST_SQNR:.0f} are required{answers.origin(feed, nodes)}",
            remedy="replace that operator in your network by others, or export another target: --target onnx",
        )


class _Answers:
    def __init__(self, package: Path, program: Artifact) -> None:
        import torch

        from dtvit_deploy.runtimes.mil.evaluate import Evaluator
        from dtvit_deploy.runtimes.mil.load import load_program
        from dtvit_deploy.runtimes.torch.session import TorchRuntime

        self._program, self._artifact = load_program(package), program
        self._outputs = [spec.name for spec in program.manifest.signature.outputs if spec.dtype.startswith("float")]
        self._evaluator = Evaluator(self._program, tuple(self._outputs))
        self._torch = TorchRuntime().load(program, SessionOptions())
        torch.set_num_threads(SessionOptions().threads)  # another number sums in another order

    def moved(self, feed: Feeds) -> tuple[str, str] | None:
        """The first output that moved too far, and by how much; None where none did."""
        expected, found = self._torch.run(feed), self._evaluated(feed, tuple(self._outputs))
        for name in self._outputs:
            if (decibels := _moved(expected[name], found[name])) and not self._is_unstable(feed, name, expected[name], found[name]):
                return name, decibels
        return None

    def origin(self, feed: Feeds, nodes: NodeMap) -> str:
        """The first tensor under a node's name that moved, in words; nothing where none is shared."""
        from dtvit_deploy.runtimes.mil.program import FLOATS
        from dtvit_deploy.runtimes.torch.session import TorchRuntime

        made = [out for operation in self._program.operations for out in operation.outputs if out.type.dtype in FLOATS]
        there = set(TorchRuntime().tensors(self._artifact))
        shared = tuple(out.name for out in made if out.name in there)
        with TorchRuntime().load(self._artifact, SessionOptions(taps=shared)) as session:
            expected, found = session.run(feed), self._evaluated(feed, shared)
        for name in shared:
            if expected[name].shape == found[name].shape and _moved(expected[name], found[name]):
                node = nodes.get(name)
                return f"; it begins in {nodes.module_of(name)}, at {name}" + (f" ({node.op})" if node else "")
        return ""

    def _is_unstable(self, feed: Feeds, name: str, expected: NDArray[np.generic], found: NDArray[np.generic]) -> bool:
        from dtvit_deploy.runtimes.torch.interpreter import Arithmetic
        from dtvit_deploy.runtimes.torch.session import TorchSession, read_program

        signature = self._artifact.manifest.signature
        with TorchSession(read_program(self._artifact), signature, SessionOptions(), Arithmetic.FP64) as session:
            exact = session.run(feed)[name].astype(np.float64)
        floor, change = (float(np.square(one.astype(np.float64) - exact).sum()) for one in (expected, found))
        return change <= OVER_FLOOR**2 * floor  # NaN is above everything

    def _evaluated(self, feed: Feeds, names: tuple[str, ...]) -> Outputs:
        import torch

        from dtvit_deploy.runtimes.mil.evaluate import Evaluator

        evaluator = self._evaluator if names == tuple(self._outputs) else Evaluator(self._program, names)
        values = evaluator.run({name: torch.tensor(np.ascontiguousarray(array)) for name, array in feed.items()})
        return {name: values[name].numpy() for name in names}


def _moved(expected: NDArray[np.generic], found: NDArray[np.generic]) -> str:
    """By how much an answer is another one; empty where it is the same."""
    if expected.shape != found.shape:
        return f"from shape {expected.shape} to {found.shape}"
    was, now = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(was)
    if not np.array_equal(finite, np.isfinite(now)):
        return "to what is not finite where it was, or the other way round"
    noise, signal = float(np.square(was - now)[finite].sum()), float(np.square(was)[finite].sum())
    if noise <= was.size * NOTHING**2 or noise * 10 ** (LEAST_SQNR / 10) <= signal:
        return ""
    return f"{10 * np.log10(signal / noise) if signal else -np.inf:.1f} dB of it over the change"

"""How far a rounded graph's answers are from those of the FP32 graph, as a search asks many times: one number, and no verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Outputs

_INDICES = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}
"""Operators that rank, and which of their results holds indices."""


def ranked_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Outputs that hold the indices of a ranking, or what those chose: two scores that tie change their order."""
    chosen: set[str] = set()
    for node in model.graph.node:
        if chosen.intersection(node.input):
            chosen.update(node.output)
        elif node.op_type in _INDICES:
            chosen.update(node.output[_INDICES[node.op_type] :][:1])
    return frozenset(chosen.intersection(output.name for output in model.graph.output))


class Judge:
    """What the FP32 graph answers, and how far another graph is from it."""

    def __init__(self, expected: Sequence[Outputs], real: int | None, ranked: Collection[str]) -> None:
        """Prepare.

        Args:
            expected: answers to real feeds, then to adversarial ones.
            real: how many are real; None means all.
            ranked: outputs whose values may change places; see :func:`ranked_outputs`.
        """
        self._ranked = frozenset(ranked)
        self._real = len(expected) if real is None else real
        floating = [name for name, array in expected[0].items() if np.issubdtype(array.dtype, np.floating)] if expected else []
        self._expected = [{name: self._values(name, run) for name in floating} for run in expected]
        sizes = {name: [_size(run[name]) for run in self._expected] for name in floating}
        # An adversarial feed may have an answer next to 0, of which every rounding is a large part.
        usual = {name: float(np.median(found)) for name, found in sizes.items()}
        self._scales = [{name: max(sizes[name][index], usual[name]) for name in floating} for index in range(len(expected))]

    def errors(self, answers: Sequence[Outputs], which: Sequence[int] | None = None) -> list[float]:
        """Of each answer, the greatest of its outputs'; infinite where one is not finite and should be."""
        return [
            self._error(index, answer) for index, answer in zip(which if which is not None else range(len(answers)), answers, strict=True)
        ]

    def error(self, answers: Sequence[Outputs]) -> float:
        return max(self.errors(answers), default=0.0)

    def _values(self, name: str, answer: Outputs) -> NDArray[Any]:
        """Those of a ranked output by size: a tie changes their order and nothing else."""
        values = answer[name].astype(np.float64)
        return np.sort(values, axis=None) if name in self._ranked else values

    def _error(self, index: int, answer: Outputs) -> float:
        worst = 0.0
        for name, expected in self._expected[index].items():
            if not np.isfinite(expected).all():
                continue  # the network itself has no answer to this feed
            noise = _size(self._values(name, answer) - expected)
            worst = max(worst, math.inf if math.isnan(noise) else noise / max(self._scales[index][name], float(np.finfo(np.float32).tiny)))
        return worst if index < self._real or math.isinf(worst) else 0.0


def _size(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.square(values).mean())) if values.size else 0.0

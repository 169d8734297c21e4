"""What has to stay FP32 for FP16 not to break: the typed graph is rounded for real on the guard feeds, and held to what FP32 answers.

Two things go wrong in FP16. A tensor that is too large becomes infinite: its magnitude is measured, and the nodes that make or read it stay
FP32. Or a tensor is large beside what matters in it, a residual that swallows its small addends, say, and the answer is finite and wrong:
that shows at the outputs alone. What modules are to blame for it is looked for by evaluating the graph with nothing but a part of them in
FP16; parts that do no harm are never looked into.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.target import Cpu
from dtvit_deploy.harness.parity import LARGEST_FLOOR
from dtvit_deploy.pipeline.judge import Judge, ranked_outputs
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds, Outputs, Signature
    from dtvit_deploy.export.onnx.float16 import Float16

LARGEST_ERROR = LARGEST_FLOOR / 10
"""Root mean square of an output's error over that of the output, on real feeds. A sound network in FP16 has 0.001, two roundings' worth;
one with more than 0.01, which is 40 dB, is as noisy as INT8 and has lost what FP16 is for. `verify` gives up at ten times as much.

To adversarial feeds the answer has to be finite and no more: an image of zeros leaves normalisations nothing but rounding errors, which
they enlarge in any precision (DualToken-ViT S with seeded weights: 0.18 there, 0.0008 elsewhere)."""
MOST_PARTS, MOST_TRIALS = 40, 56
"""Evaluations before parts are no longer split, and before the best set so far is taken, at 0.3 seconds each for a network of 300 modules.
One module of 300 is found in about 14, and each that is far from it in 12 more."""
LARGEST_SHARE = 0.7
"""Of a part's error, that of its first half up to which the second half is not evaluated: it has most of the noise then."""
FEW_FEEDS = 2
"""Guard feeds that parts of the network are judged on, those on which FP16 errs most; sets are judged on all real ones."""

IMPRECISE, FOUND, DOUBTFUL = "imprecise", "found", "doubtful"
"""Keys of a link's options: modules that stay FP32 for precision with the reason, what the search for them came to, and modules in FP16
that would overflow where a CPU adds in FP16."""


@dataclass(frozen=True)
class Mixed:
    """A typed graph, and how it was found.

    Attributes:
        typed: the graph.
        imprecise: modules that stay FP32 for what they do to the outputs, with the reason.
        error: of its outputs, see :data:`LARGEST_ERROR`.
        before: the error with nothing in FP32 but what would overflow, or was asked for.
        trials: graphs that were evaluated.
    """

    typed: Float16
    imprecise: Mapping[str, str]
    error: float
    before: float
    trials: int

    @property
    def notes(self) -> tuple[str, ...]:
        notes = self.typed.notes
        notes += self.found
        return (*notes, f"what stays FP32 costs {self.typed.cost}") if self.typed.kept else notes

    @property
    def found(self) -> tuple[str, ...]:
        """What the search came to, in sentences."""
        told: tuple[str, ...] = ()
        if self.imprecise:
            stay = "stays" if len(self.imprecise) == 1 else "stay"
            many = f"{counted(len(self.imprecise), 'module')} {stay}"
            gain = f"the outputs would be off by {_percent(self.before)}, and are by {_percent(self.error)}"
            told += (f"{many} FP32 for precision, the smallest set found in {counted(self.trials, 'evaluation')}: {gain}",)
        if not self.error <= LARGEST_ERROR:
            told += (f"the outputs are off by {_percent(self.error)} on the guard feeds, more than the {LARGEST_ERROR:.0%} looked for",)
        return told

    @property
    def options(self) -> dict[str, Any]:
        """The same for a program to read."""
        return {
            "fp32_modules": dict(self.typed.kept),
            IMPRECISE: dict(self.imprecise),
            FOUND: self.found,
            "error": self.error if math.isfinite(self.error) else None,
            "error_before": self.before if math.isfinite(self.before) else None,
            "trials": self.trials,
            "fp32_weights": self.typed.weights,
            "fp32_macs": self.typed.macs,
            "casts": self.typed.casts,
            DOUBTFUL: dict(self.typed.doubtful),
        }


def mixed_precision(
    model: onnx.ModelProto,
    signature: Signature,
    feeds: Sequence[Feeds],
    keep_fp32: Sequence[str] = (),
    real: int | None = None,
    cpu: Cpu = Cpu.X86_64,
) -> Mixed:
    """FP16 as far as it goes: what overflows stays FP32, and then what costs the outputs too much, as few modules as are found.

    Args:
        feeds, real: see :class:`dtvit_deploy.pipeline.stages.GuardFeeds`.
        cpu: with an ARM64 one products add in FP16, which overflows on the way and errs more.
    """
    from dtvit_deploy.export.onnx.float16 import float16_onnx
    from dtvit_deploy.export.onnx.modules import module_of
    from dtvit_deploy.runtimes.arm64.term_sums import term_sums
    from dtvit_deploy.runtimes.onnxruntime import magnitudes_and_outputs

    reached, expected = magnitudes_and_outputs(model, signature, feeds)
    sums = term_sums(model, signature, feeds)
    answered = added_answers if cpu is Cpu.ARM64 else rounded_answers
    outputs = Judge(expected, real, ranked_outputs(model))
    whole = float16_onnx(model, reached, keep_fp32, None, sums, cpu)
    errors = outputs.errors(answered(whole.model, signature, feeds))
    before = max(errors, default=0.0)
    if before <= LARGEST_ERROR:
        return Mixed(whole, {}, before, before, 1)
    every, few = range(len(feeds)), sorted(range(len(feeds)), key=lambda index: -errors[index])[:FEW_FEEDS]
    judged = every[:real] if math.isfinite(max(errors[real:], default=0.0)) and real else every

    def evaluate(imprecise: Mapping[str, str], some: Sequence[int]) -> tuple[Float16, float]:
        typed = float16_onnx(model, reached, keep_fp32, imprecise, sums, cpu)
        answers = answered(typed.model, signature, [feeds[index] for index in some])
        return typed, max(outputs.errors(answers, some), default=0.0)

    modules = list(dict.fromkeys(map(module_of, model.graph.node)))
    search = SmallestSet(
        modules=modules,
        whole=before,
        alone=lambda part: evaluate({module: "" for module in modules if module not in part}, few)[1],
        without=lambda kept: evaluate(dict.fromkeys(kept, ""), judged)[1],
    )
    found = search.found()
    largest = _largest(model, reached)
    imprecise = {module: _reason(found[module], largest.get(module)) for module in modules if module in found}
    typed, error = evaluate(imprecise, every)
    return Mixed(typed, imprecise, error, before, search.trials + 2)


@dataclass
class SmallestSet:
    """Which modules have to stay FP32.

    Roundings are many and independent, so the noise powers of disjoint parts of a network, each alone in FP16, add up to about that of
    the whole. The part with most of it is split until it is one module, which then is kept, and so on until what is left is little enough.

    Attributes:
        modules: in the order of execution.
        whole: the error with all of them in FP16.
        alone: the error with these modules in FP16 and nothing else.
        without: the error with these modules in FP32 and nothing else.
        trials: evaluations so far.
    """

    modules: Sequence[str]
    whole: float
    alone: Callable[[Sequence[str]], float]
    without: Callable[[Sequence[str]], float]
    trials: int = 0
    _noise: dict[str, float] = field(default_factory=dict)
    """Error of each module that is kept, alone in FP16, or of the part that it belongs to."""

    def found(self) -> dict[str, float]:
        """The modules, and the error that each makes alone. Every set that is returned was evaluated."""
        parts = [(-self.whole, 0, len(self.modules))]
        target = LARGEST_ERROR
        while parts:
            while parts and self._left(parts) > target:
                self._split(heapq.heappop(parts), parts)
            if self._holds(list(self._noise)):
                break
            target = min(target, self._left(parts)) / 2  # they add up to more than expected: in step, or through a tensor between two
        self._drop()
        return self._noise

    def _left(self, parts: Sequence[tuple[float, int, int]]) -> float:
        return math.sqrt(sum(noise * noise for noise, _, _ in parts))

    def _split(self, part: tuple[float, int, int], parts: list[tuple[float, int, int]]) -> None:
        noise, start, end = part
        if end - start == 1 or self.trials >= MOST_PARTS:
            self._noise |= dict.fromkeys(self.modules[start:end], -noise)
            return
        middle = (start + end) // 2
        one = self._alone(start, middle)
        rest = noise * noise - one * one
        # What the first half does not account for is the second's, unless that is a small difference of two large numbers.
        other = math.sqrt(rest) if one < LARGEST_SHARE * -noise and end - middle > 1 else self._alone(middle, end)
        heapq.heappush(parts, (-one, start, middle))
        heapq.heappush(parts, (-other, middle, end))

    def _alone(self, start: int, end: int) -> float:
        self.trials += 1
        return self.alone(self.modules[start:end])

    def _holds(self, kept: Sequence[str]) -> bool:
        self.trials += 1
        return self.without(kept) <= LARGEST_ERROR

    def _drop(self) -> None:
        """Leave out again what is not needed after all: halves first, then ever smaller groups, those of little noise before the others."""
        size = len(self._noise) // 2
        while size:
            order = sorted(self._noise, key=lambda module: self._noise[module])
            for start in range(0, len(order), size):
                group = order[start : start + size]
                rest = [module for module in self._noise if module not in group]
                if self.trials < MOST_TRIALS and self._holds(rest):
                    for module in group:
                        del self._noise[module]
            size //= 2


def added_answers(model: onnx.ModelProto, signature: Signature, feeds: Sequence[Feeds]) -> list[Outputs]:
    from dtvit_deploy.runtimes.arm64.session import arm64_answers

    return arm64_answers(model, signature, feeds)


def rounded_answers(model: onnx.ModelProto, signature: Signature, feeds: Sequence[Feeds]) -> list[Outputs]:
    from dtvit_deploy.runtimes.onnxruntime import run_graph
    from dtvit_deploy.runtimes.rounded import rounded_onnx

    return run_graph(rounded_onnx(model), signature, feeds)


def _largest(model: onnx.ModelProto, reached: Mapping[str, float]) -> dict[str, tuple[float, str]]:
    """The largest tensor that each module makes or reads, and its magnitude."""
    from dtvit_deploy.export.onnx.modules import module_of

    found: dict[str, tuple[float, str]] = {}
    for node in model.graph.node:
        sizes = [(reached[name], name) for name in (*node.input, *node.output) if name in reached]
        found[module_of(node)] = max([*sizes, found.get(module_of(node), (0.0, ""))])
    return found


def _reason(error: float, largest: tuple[float, str] | None) -> str:
    where = ""
    if largest is not None and largest[1] and math.isfinite(largest[0]):
        size, name = largest
        where = f"; |{name}| reaches {size:.3g}, where FP16 has steps of {float(np.spacing(np.float16(min(size, 65504.0)))):.3g}"
    return f"alone in FP16 it puts the outputs off by {_percent(error)}{where}"


def _percent(error: float) -> str:
    return f"{error:.2%}" if math.isfinite(error) else "without limit"

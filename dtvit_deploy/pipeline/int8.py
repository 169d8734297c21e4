"""INT8 from a range table: the Q/DQ graph, and the search for the modules that stay in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact, read_json, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import RangeTable
from dtvit_deploy.harness.search import ModuleFigures, Search, Trial, readable, search_modules
from dtvit_deploy.pipeline.material import Material, digest_of
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import load_onnx, made_here, versions, write_onnx
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.export.onnx.qdq import Layout

SENSITIVITY_SAMPLES = 8
"""Samples on which one module after the other is quantised."""
TRIAL_SAMPLES = 64
"""Samples on which a set of modules is judged, the first of those that a calibration draws from the same folder."""
GOAL = 0.99
"""Least top-1 agreement with the float network on those samples: MLPerf's 99 % of FP32 for edge systems."""
GOAL_SQNR = 20.0
"""dB, for a network without a row of scores."""
CEILING = 200.0
"""dB: stands for an infinite SQNR, which JSON has no word for."""


@dataclass(frozen=True)
class Quantiser:
    """Makes INT8 graphs of one simplified graph.

    Attributes:
        table: ranges of every tensor.
        method: which of the table's ranges are taken.
        layout: where Q and DQ stand, by the reader of the graph.
    """

    simplified: Artifact
    program: ProgramEntry
    table: RangeTable
    method: Method
    layout: Layout

    @cached_property
    def model(self) -> onnx.ModelProto:
        return load_onnx(self.simplified)

    @cached_property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return self.table.lookup(self.program.nodes, self.method, self.simplified.manifest.signature)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Torch modules that become INT8 when nothing is kept."""
        from dtvit_deploy.export.onnx.qdq import quantized_onnx

        return tuple(quantized_onnx(self.model, self.ranges, self.layout).modules)

    def own(self, wishes: Sequence[str]) -> tuple[str, ...]:
        """Those of the modules that one of the wishes names, itself or a parent.

        Raises:
            InputError: a wish names a module that made no node.
        """
        from dtvit_deploy.export.onnx.modules import nodes_of

        for wish in wishes:
            nodes_of(self.model, [wish])
        prefixes = tuple(wish.removesuffix(".") + "." for wish in wishes)
        return tuple(module for module in self.modules if (module + ".").startswith(prefixes))

    def quantised(self, in_float: Sequence[str]) -> onnx.ModelProto:
        from dtvit_deploy.export.onnx.qdq import quantized_onnx

        return quantized_onnx(self.model, self.ranges, self.layout, in_float=frozenset(in_float), exactly=True).model

    @property
    def key(self) -> dict[str, object]:
        return {
            "parent": self.simplified.manifest,
            "ranges": self.table.sha256,
            "method": self.method.value,
            "layout": self.layout.value,
            "tools": versions("onnx", "onnxruntime", "openvino"),
            "source": source_digest(__name__),
        }


def int8_stage(quantiser: Quantiser, in_float: Sequence[str], search: Search | None, cache: Cache) -> Artifact:
    """Simplified FP32 ONNX → ONNX with Q/DQ, the modules ``in_float`` left as they are."""
    table = quantiser.table

    def build(folder: Path) -> None:
        from dtvit_deploy.export.onnx.qdq import quantized_onnx

        made = quantized_onnx(quantiser.model, quantiser.ranges, quantiser.layout, in_float=frozenset(in_float), exactly=True)
        options = {
            "ranges": table.sha256,
            "method": quantiser.method.value,
            "layout": quantiser.layout.value,
            "in_float": sorted(in_float),
            "calibration": f"{counted(len(table.samples), 'sample')} of {table.source}",
            "synthetic": table.synthetic,
            "leaked": table.leaked,
            "products": sum(made.modules.values()),
        } | ({"search": msgspec.to_builtins(search)} if search else {})
        kept = readable(tuple(in_float), quantiser.modules)
        named = (f"in float: {', '.join(kept)}",) if kept else ()
        notes = (*table.notes, *((search.reason,) if search else ()), *named, *made.notes)
        write_onnx(folder, made.model, quantiser.simplified.manifest, Precision.INT8, "int8", versions("onnx"), options, notes)

    key = quantiser.key | {"in_float": sorted(in_float), "search": search}
    return made_here(cache.entry("int8", key, build) / "model.onnx")


def search_stage(
    quantiser: Quantiser,
    target: Target,
    material: Material,
    keep: Sequence[str],
    threads: int,
    cache: Cache,
    progress: Progress,
    called_scores: Sequence[str] | None = None,
) -> Search:
    """Sensitivity and gain of every module on this machine, and the set that is best left in float.

    Sensitivity is measured in ONNX Runtime, gains in the target's own runtime, and not at all for TensorRT.

    Args:
        material: real input that is no evaluation data, the calibration's own at best.
        keep: modules that stay in float by the user's wish.
        threads: that gains are measured with.
        called_scores: outputs that the user calls class scores; None says nothing.
    """
    feeds = list(material.feeds())
    scores = next(iter(material.class_scores(quantiser.simplified.manifest, called_scores)), None)
    digest = digest_of(feeds)

    def measure(folder: Path) -> None:
        judge = _Judge(quantiser, feeds, scores)
        every = progress.track(quantiser.modules, "sensitivity of each module", len(quantiser.modules))
        write_json(folder / "sensitivity.json", {module: judge.alone(module) for module in every})

    def search(folder: Path) -> None:
        # By itself, since it does not depend on the runtime: the next target finds it done.
        alone = read_json(cache.entry("sensitivity", quantiser.key | {"feeds": digest}, measure) / "sensitivity.json", dict[str, float])
        judge = _Judge(quantiser, feeds, scores)
        gains, latency = _gains(quantiser, target, feeds[0], threads)
        figures = [
            ModuleFigures(module=module, sqnr=sqnr, gain_ms=gains.get(module)) for module, sqnr in alone.items() if module not in keep
        ]

        def evaluate(in_float: tuple[str, ...]) -> Trial:
            progress.step(f"a trial with {len(in_float)} of {counted(len(quantiser.modules), 'module')} in float")
            return judge.trial(in_float)

        goal = GOAL if judge.scores is not None else GOAL_SQNR
        found = search_modules(figures, latency, evaluate, goal=goal, samples=len(feeds), keep=tuple(keep))
        write_json(folder / "search.json", found)

    key = quantiser.key | {"target": target.value, "keep": sorted(keep), "feeds": digest, "threads": threads, "scores": scores}
    result: Search = read_json(cache.entry("search", key, search) / "search.json", Search)
    return result


class _Judge:
    """Compares INT8 graphs with the float one on some feeds."""

    def __init__(self, quantiser: Quantiser, feeds: list[Feeds], scores: str | None) -> None:
        self._quantiser, self._feeds, self.scores = quantiser, feeds, scores
        self._expected = self._answers(quantiser.model, feeds)

    def _answers(self, model: onnx.ModelProto, feeds: Sequence[Feeds]) -> dict[str, NDArray[np.float64]]:
        from dtvit_deploy.runtimes.onnxruntime import run_graph

        runs = run_graph(model, self._quantiser.simplified.manifest.signature, feeds)
        return {name: np.stack([run[name] for run in runs]).astype(np.float64) for name in runs[0]}

    def alone(self, module: str) -> float:
        """SQNR in dB on a few feeds, the lowest of all outputs, when no other module is INT8."""
        others = [other for other in self._quantiser.modules if other != module]
        few = self._feeds[:SENSITIVITY_SAMPLES]
        return self._sqnr(self._answers(self._quantiser.quantised(others), few), len(few))

    def _sqnr(self, answers: Mapping[str, NDArray[np.float64]], count: int) -> float:
        from dtvit_deploy.harness.distance import sqnr

        worst = min(sqnr(self._expected[name][:count], found) for name, found in answers.items())
        return float(np.clip(worst, -CEILING, CEILING))

    def trial(self, in_float: tuple[str, ...]) -> Trial:
        answers = self._answers(self._quantiser.quantised(in_float), self._feeds)
        agreement = None
        if self.scores is not None:
            ours, theirs = (found[self.scores].reshape(len(self._feeds), -1).argmax(1) for found in (answers, self._expected))
            agreement = float((ours == theirs).mean())
        return Trial(in_float=in_float, agreement=agreement, sqnr=self._sqnr(answers, len(self._feeds)))


def _gains(quantiser: Quantiser, target: Target, feed: Feeds, threads: int) -> tuple[dict[str, float], float | None]:
    """Milliseconds that each module gains when everything is INT8, and those that the float network takes, by a profile of each.

    None are known for TensorRT, whose engines run on a GPU that most often is another machine's: accuracy alone decides there.
    """
    from dtvit_deploy.export.onnx.modules import module_of

    if target is Target.TRT:
        return {}, None
    times = _profiler(target, threads)
    gains: dict[str, float] = {}
    total = 0.0
    for model, sign in ((quantiser.model, 1.0), (quantiser.quantised(()), -1.0)):
        modules = {node.name: module_of(node) for node in model.graph.node}
        for name, taken in times(model, feed).items():
            module = modules.get(name, "")
            gains[module] = gains.get(module, 0.0) + sign * taken
            total += taken if sign > 0 else 0.0
    return gains, total


def _profiler(target: Target, threads: int) -> Callable[[onnx.ModelProto, Feeds], dict[str, float]]:
    from dtvit_deploy.runtimes.node_times import onnxruntime_times, openvino_times

    if target is Target.OPENVINO:
        return lambda model, feed: openvino_times(model, feed, threads, "f32")
    return lambda model, feed: onnxruntime_times(model, feed, threads)

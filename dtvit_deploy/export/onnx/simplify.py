"""onnxsim as a guarded pass: its result is kept only when real feeds give the same outputs and the graph did not grow.

Simplifiers have changed outputs before (onnxsim issues 50 and 79), and a wrong graph found here costs a second, found on a device a
day. Rolling back is no failure: the graph as translated is right, only longer, and the reason goes into the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.nodes import NodeMap
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

    Run = Callable[[onnx.ModelProto, Iterable[Feeds], tuple[str, ...]], list[Outputs]]
    """Evaluates a graph on feeds and gives its outputs and, of the first feed, the inner tensors asked for (of all feeds they would fill
    the memory); the caller brings the runtime, so that converters need none."""

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that move no data. onnxsim turns a MatMul and its Add into a Gemm between two reshapes: more nodes, less work."""
LARGEST_MERGED = 4096
"""Bytes: shapes and scalars repeat, weights do not, and comparing those takes time."""
LEAST_SQNR = 80.0
"""dB of signal over what simplification moved. Folding a batch norm into a convolution moves FP32 outputs by about -120 dB; a
dropped or misplaced operator by more than -40."""


@dataclass(frozen=True)
class Simplification:
    """What became of the pass.

    Attributes:
        model: the simplified graph, or the one given when it was rolled back.
        before, after: number of nodes that compute (views are not counted), given and kept.
        rolled_back: why the simplified graph was thrown away; empty when it was kept.
        sqnr: signal over moved outputs in dB, the least of all outputs and feeds; infinite when nothing moved.
    """

    model: onnx.ModelProto
    before: int
    after: int
    rolled_back: str = ""
    sqnr: float = np.inf

    @property
    def note(self) -> str:
        if self.rolled_back:
            return f"simplification rolled back: {self.rolled_back}"
        moved = "outputs identical" if np.isinf(self.sqnr) else f"outputs moved at {-self.sqnr:.0f} dB"
        return f"simplified: {self.before} → {self.after} computing nodes, {moved}"


def simplify_onnx(
    model: onnx.ModelProto,
    nodes: NodeMap,
    feeds: Iterable[Feeds],
    run: Run,
    simplify: Callable[[onnx.ModelProto], tuple[onnx.ModelProto, bool]] | None = None,
) -> Simplification:
    """Simplify with onnxsim, compare on ``feeds``, keep or roll back.

    Args:
        model: graph as translated.
        nodes: names the module of every node that is kept.
        feeds: real images where there are any; at least one.
        run: evaluates a graph on the feeds.
        simplify: another simplifier in place of onnxsim's.

    Raises:
        InputError: there are no feeds, so nothing could be compared.
    """
    from dtvit_deploy.export.onnx.modules import name_nodes
    from dtvit_deploy.export.onnx.names import renaming, restore_names

    feeds = list(feeds)
    if not feeds:
        raise InputError("a simplified graph is kept only after a comparison, and there are no feeds to compare on")
    before = _working(model)

    def roll_back(reason: str) -> Simplification:
        return Simplification(model, before, before, rolled_back=reason)

    if simplify is None:
        import onnxsim

        simplify = onnxsim.simplify
    try:
        simplified, _ = simplify(model)
        onnx.checker.check_model(simplified)
        simplified = _merge_equal_initializers(simplified)
        after = _working(simplified)
        if after > before:
            return roll_back(f"the graph grew from {before} to {after} computing nodes")
        if _interface(simplified) != _interface(model):
            return roll_back("its inputs or outputs changed")
        looked_at = renaming(model, simplified)
        expected, answers = run(model, feeds, looked_at.before), run(simplified, feeds, looked_at.after)
        sqnr = min(_sqnr(one, other, model) for one, other in zip(expected, answers, strict=True))
        restore_names(simplified, looked_at, expected[0], answers[0])
    except InputError:
        raise
    except Exception as error:  # a simplifier that fails, in whatever way, must not take the export with it
        return roll_back(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no message'}")
    if not sqnr >= LEAST_SQNR:
        return roll_back(f"outputs moved: {sqnr:.1f} dB of signal over the change, at least {LEAST_SQNR:.0f} is required")
    name_nodes(simplified, nodes)
    return Simplification(simplified, before, after, sqnr=sqnr)


def _working(model: onnx.ModelProto) -> int:
    return sum(node.op_type not in VIEWS for node in model.graph.node)


def _interface(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    return [(info.name, info.type.SerializeToString(deterministic=True)) for info in (*model.graph.input, *model.graph.output)]


def _merge_equal_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """One copy of each constant: translation writes one reshape target for each reshape."""
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > LARGEST_MERGED:
            kept.append(tensor)
            continue
        anonymous = onnx.TensorProto()
        anonymous.CopyFrom(tensor)
        anonymous.name = ""
        name = first.setdefault(anonymous.SerializeToString(deterministic=True), tensor.name)
        if name == tensor.name:
            kept.append(tensor)
        else:
            renamed[tensor.name] = name
    outputs = {info.name for info in model.graph.output}
    if renamed and not outputs & renamed.keys():
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return model


def _sqnr(reference: Outputs, other: Outputs, model: onnx.ModelProto) -> float:
    worst = np.inf
    for name in (info.name for info in model.graph.output):
        one, two = reference[name].astype(np.float64), other[name].astype(np.float64)
        noise, signal = float(np.square(one - two).sum()), float(np.square(one).sum())
        if not np.isfinite(noise):
            return -np.inf
        if noise > 0:
            worst = min(worst, 10 * np.log10(signal / noise) if signal > 0 else -np.inf)
    return worst

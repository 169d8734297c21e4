"""After a graph was rewritten, every tensor has the name of the original tensor whose values it holds, or a name of its own.

A simplifier that folds a batch norm into a convolution leaves the convolution's name on the batch norm's values; one that makes a Gemm
of a product and a sum gives it a name nobody knows. Names are how a tensor is found in every artefact, so they are set right by value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.graph import unused

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Outputs

FEW = 64
"""Values by which most pairs are told apart."""
CLOSE = 1e-4
"""Greatest root mean square of what two arrays of the same tensor differ by, in units of their own: an FP32 sum in another order."""


@dataclass(frozen=True)
class Renaming:
    """What :func:`restore_names` needs to see: inner tensors of the graph as it was, and of the graph as it is.

    Attributes:
        before: those whose name may be free for another, and those that other nodes make now.
        after: those that other nodes make now.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]


def renaming(original: onnx.ModelProto, rewritten: onnx.ModelProto) -> Renaming:
    """Which tensors must be looked at; none where every one is made as before."""
    was, now = _makers(original), _makers(rewritten)
    after = tuple(name for name, maker in now.items() if was.get(name) != maker)
    used = {name for node in rewritten.graph.node for name in (*node.input, *node.output)}
    return Renaming(tuple(name for name in was if name not in used or name in after) if after else (), after)


def restore_names(rewritten: onnx.ModelProto, seen: Renaming, before: Outputs, after: Outputs) -> None:
    """Rename the inner tensors of ``rewritten`` that other nodes make than before, by their values.

    Args:
        rewritten: changed in place.
        seen: what :func:`renaming` found.
        before, after: the values of those tensors on one feed.
    """
    known = {name: _Values(before[name]) for name in seen.before}
    used = {name for node in rewritten.graph.node for name in (*node.input, *node.output)}
    found = {name: _Values(after[name]) for name in seen.after}
    wrong = [name for name, values in found.items() if name not in known or not known[name].equal(values)]
    free = {name: values for name, values in known.items() if name not in used or name in wrong}
    taken = used.union(known)
    renamed: dict[str, str] = {}
    for name in wrong:
        same = next((other for other, values in free.items() if values.equal(found[name])), None)
        if same is not None:
            del free[same]
            renamed[name] = same
        elif name in known:
            renamed[name] = unused(f"{name}_changed", taken)
    _rename(rewritten, renamed)


def _makers(model: onnx.ModelProto) -> dict[str, tuple[object, ...]]:
    """Inner tensors, each with what makes it: operator, attributes, and inputs, of which constants count by their content."""
    from onnx import numpy_helper

    outputs = {info.name for info in model.graph.output}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants = {name: (array.shape, array.dtype.name, array.tobytes()) for name, array in arrays.items()}

    def maker(node: onnx.NodeProto, index: int) -> tuple[object, ...]:
        attributes = sorted((attribute.name, attribute.SerializeToString(deterministic=True)) for attribute in node.attribute)
        return node.op_type, index, *attributes, *(constants.get(name, name) for name in node.input)

    return {name: maker(node, index) for node in model.graph.node for index, name in enumerate(node.output) if name and name not in outputs}


class _Values:
    """The values of a tensor. Nearly all pairs differ in number, in size or in a few values, so that few are compared whole."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.flat = array.ravel()  # the shape may differ, since a simplifier moves reshapes
        self.few = self.flat[:: max(1, self.flat.size // FEW)]
        self.size = _length(self.flat)

    def equal(self, other: _Values) -> bool:
        """The same values in the same order."""
        one, two = self.flat, other.flat
        if one.dtype != two.dtype or one.size != two.size:
            return False
        if not np.issubdtype(one.dtype, np.floating):
            return np.array_equal(one, two)
        allowed = CLOSE * self.size
        # Two vectors are at least as far apart as their lengths differ, and as some of their values are. Lengths are rounded: twice.
        if abs(self.size - other.size) > 2 * allowed or _distance(self.few, other.few) > allowed:
            return False
        return _distance(one, two) <= allowed


def _length(values: NDArray[Any]) -> float:
    """Euclidean length of what is finite in an array; 0 for whole numbers."""
    if not np.issubdtype(values.dtype, np.floating):
        return 0.0
    length = math.sqrt(np.vdot(values, values))
    return length if math.isfinite(length) else float(np.linalg.norm(values[np.isfinite(values)].astype(np.float64)))


def _distance(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Euclidean distance; equal infinities are no distance apart."""
    with np.errstate(invalid="ignore", over="ignore"):
        moved = one - two
        distance = math.sqrt(np.vdot(moved, moved))
        if not math.isfinite(distance):
            distance = float(np.linalg.norm(np.where(one == two, 0.0, one.astype(np.float64) - two)))
    return distance


def _rename(model: onnx.ModelProto, renamed: Mapping[str, str]) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for info in model.graph.value_info:
        info.name = renamed.get(info.name, info.name)

"""After a graph was rewritten, every tensor has the name of the original tensor whose values it holds, or a name of its own.

A simplifier that folds a batch norm into a convolution leaves the convolution's name on the batch norm's values; one that makes a Gemm
of a product and a sum gives it a name nobody knows. Names are how a tensor is found in every artefact, so they are set right by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from dtvit_deploy.export.simplify import Run
    from dtvit_deploy.signature import Feeds

CLOSE = 1e-4
"""Greatest root mean square of what two arrays of the same tensor differ by, in units of their own: an FP32 sum in another order."""


def restore_names(original: onnx.ModelProto, rewritten: onnx.ModelProto, feed: Feeds, run: Run) -> None:
    """Rename the inner tensors of ``rewritten`` that other nodes make than before, by their values on ``feed``."""
    was, now = _makers(original), _makers(rewritten)
    used = {name for node in rewritten.graph.node for name in (*node.input, *node.output)}
    changed = tuple(name for name, maker in now.items() if was.get(name) != maker)
    if not changed:
        return
    wanted = tuple(name for name in was if name not in used or name in changed)
    before, after = run(original, [feed], wanted)[0], run(rewritten, [feed], changed)[0]
    wrong = [name for name in changed if name not in was or not _equal(before[name], after[name])]
    free = {name: before[name] for name in wanted if name not in used or name in wrong}
    taken = used.union(was)
    renamed: dict[str, str] = {}
    for name in wrong:
        same = next((other for other, values in free.items() if _equal(values, after[name])), None)
        if same is not None:
            del free[same]
            renamed[name] = same
        elif name in was:
            renamed[name] = _unused(name, taken)
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


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """The same values in the same order; the shape may differ, since a simplifier moves reshapes."""
    if one.dtype != other.dtype or one.size != other.size:
        return False
    if not np.issubdtype(one.dtype, np.floating):
        return np.array_equal(one.ravel(), other.ravel())
    first, second = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    with np.errstate(invalid="ignore"):
        moved = float(np.linalg.norm(np.where(first == second, 0.0, first - second)))
    return moved <= CLOSE * float(np.linalg.norm(first[np.isfinite(first)]))


def _unused(name: str, taken: set[str]) -> str:
    renamed = f"{name}_changed"
    while renamed in taken:
        renamed += "_"
    taken.add(renamed)
    return renamed


def _rename(model: onnx.ModelProto, renamed: Mapping[str, str]) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for info in model.graph.value_info:
        info.name = renamed.get(info.name, info.name)

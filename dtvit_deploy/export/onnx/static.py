"""The proof that a graph is static: every shape is a number, and nothing left in it computes or depends on one."""

from __future__ import annotations

import onnx

from dtvit_deploy.artifacts.graph import inferred
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.plural import some

DYNAMIC = frozenset({"Shape", "Size", "Range", "NonZero", "If", "Loop", "Scan", "Unique", "Compress", "NonMaxSuppression"})
"""Operators whose output's shape depends on data, that compute with shapes, or that run other nodes by data.

``Where`` chooses value by value, and a gather by an index that was computed takes as many values as ever: no shape depends on either.
"""
SHAPED_BY_INPUT = {
    "Reshape": 1,
    "Expand": 1,
    "Tile": 1,
    "Slice": 1,
    "Pad": 1,
    "Resize": 2,
    "ConstantOfShape": 0,
    "Unsqueeze": 1,
    "Squeeze": 1,
}
"""Operators that read a shape, and the first input that holds it: it must be a constant."""


def require_static(model: onnx.ModelProto) -> None:
    """Refuse a graph with anything dynamic left.

    Raises:
        InputError: names each offending node, its operator and its torch module.
    """
    found = [f"{node.op_type} {node.name or node.output[0]!r} in {module_of(node)}: {reason}" for node, reason in dynamic_nodes(model)]
    if found:
        raise InputError(
            f"the graph is not static: {some(found, separator='; ')}",
            remedy="give those modules fixed sizes, and choose by data with torch.where, which keeps every value",
        )


def dynamic_nodes(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """Every node that is not static, and why."""
    graph = inferred(model, strict=False, data_prop=True).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {output for node in graph.node if node.op_type == "Constant" for output in node.output}
    fixed = {info.name for info in (*graph.value_info, *graph.input, *graph.output) if _is_fixed(info.type.tensor_type)}
    offending: list[tuple[onnx.NodeProto, str]] = []
    for node in graph.node:
        first = SHAPED_BY_INPUT.get(node.op_type)
        if node.op_type in DYNAMIC:
            offending.append((node, "its result depends on data or shapes"))
        elif first is not None and any(name and name not in constants for name in node.input[first:]):
            offending.append((node, "it takes a shape that is computed while running"))
        elif any(name and name not in fixed for name in node.output):
            offending.append((node, "its output's shape is not known, or not in every dimension"))
    return offending


def _is_fixed(tensor: onnx.TypeProto.Tensor) -> bool:
    return tensor.HasField("shape") and all(dimension.HasField("dim_value") for dimension in tensor.shape.dim)

"""Graphs of one operator in FP16, from FP32 inputs to FP32 outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
Array = NDArray[Any]
MODULE = "block.part"


def of_one(
    operator: str,
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array] | None = None,
    opset: int = 20,
    extra: Mapping[str, int] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """The operator on its inputs and then its constants, all floating-point ones FP16; its first output is ``y`` in FP32.

    Args:
        extra: further outputs, with their types, which are outputs of the graph as they are.
    """
    fed = [helper.make_node("Cast", [name], [f"{name}_half"], to=FLOAT16) for name in inputs]
    held = {name: value.astype(np.float16) if value.dtype.kind == "f" else value for name, value in (constants or {}).items()}
    node = helper.make_node(
        operator, [*(f"{name}_half" for name in inputs), *held], ["made", *(extra or {})], name="node_of_it", **attributes
    )
    node.metadata_props.add(key="module", value=MODULE)
    last = helper.make_node("Cast", ["made"], ["y"], to=FLOAT)
    ends = [helper.make_tensor_value_info(name, FLOAT, value.shape) for name, value in inputs.items()]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in {"y": FLOAT, **(extra or {})}.items()]
    weights = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph([*fed, node, last], "net", ends, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def halves(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    """FP16 values in FP32."""
    made: Array = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float16).astype(np.float32)
    return made


def quantised(operator: str, inputs: Mapping[str, Array], kind: int = FLOAT16, **attributes: Any) -> onnx.ModelProto:
    """The operator between Q/DQ of signed codes, all scales of that type; its output is ``y`` in FP32."""
    nodes = []
    for name in inputs:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_typed"], to=kind))
        nodes.append(helper.make_node("QuantizeLinear", [f"{name}_typed", "scale", "zero"], [f"{name}_codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_codes", "scale", "zero"], [f"{name}_again"]))
    nodes.append(helper.make_node(operator, [f"{name}_again" for name in inputs], ["made"], **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["made", "scale", "zero"], ["codes"]))
    nodes.append(helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["again"]))
    nodes.append(helper.make_node("Cast", ["again"], ["y"], to=FLOAT))
    scale = np.asarray(0.05, np.float16 if kind == FLOAT16 else np.float32)
    held = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(np.asarray(0, np.int8), "zero")]
    ends = [helper.make_tensor_value_info(name, FLOAT, value.shape) for name, value in inputs.items()]
    graph = helper.make_graph(nodes, "net", ends, [helper.make_tensor_value_info("y", FLOAT, None)], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

"""What an artefact's inference cannot do without, and so its roof on a machine whose peaks are known.

The work is counted in the artefact's own graph, product by product, with the precision that the graph states for it; of formats whose
graph is not read here there is no roof.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.graph import inferred, read_graph
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.roofline import Peaks, Roof, Work, roof
from dtvit_deploy.runtimes.openvino import GRAPH, TYPES, asked_hint

if TYPE_CHECKING:
    import onnx
    import openvino

NO_ROOF = "what a machine could do for it is not known: of its format no graph is read here, or not with all shapes"
_CARRIED = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators that a factor may pass between its dequantisation and its product."""


def is_read(artifact: Artifact) -> bool:
    """Whether its format is one whose graphs are read here."""
    return artifact.manifest.format in _READERS


def roof_of(artifact: Artifact, able: Peaks) -> Roof | None:
    """The roof of an artefact; None where its graph is not read here, or a shape in it is not known.

    Raises:
        InputError: its file is no graph of its format.
    """
    count = _READERS.get(artifact.manifest.format)
    macs = count(artifact) if count is not None else None
    return None if macs is None else roof(Work(macs=dict(macs), bytes=artifact.bytes + _fed(artifact)), able)


def _fed(artifact: Artifact) -> int:
    signature = artifact.manifest.signature
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in (*signature.inputs, *signature.outputs))


def _in_onnx(artifact: Artifact) -> Counter[str] | None:
    return onnx_macs(read_graph(artifact.path))


def onnx_macs(model: onnx.ModelProto) -> Counter[str] | None:
    """Multiply–accumulates of every product, by precision; None where a shape is not known."""
    import onnx

    graph = inferred(model).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    kinds: dict[str, int] = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for info in (*graph.input, *graph.output, *graph.value_info):
        shapes[info.name] = [size.dim_value for size in info.type.tensor_type.shape.dim]
        kinds[info.name] = info.type.tensor_type.elem_type
    makers = {name: node for node in graph.node for name in node.output}
    floats: dict[int, Precision] = {onnx.TensorProto.FLOAT16: Precision.FP16, onnx.TensorProto.BFLOAT16: Precision.BF16}
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        left, right, made = (shapes.get(name) for name in (*node.input[:2], node.output[0]))
        if not left or not right or not made or not all(map(all, (left, right, made))):
            return None
        if node.op_type in ("Gemm", "MatMul"):
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            macs = math.prod(made) * left[0 if transposed else -1]
        else:
            macs = math.prod(left if node.op_type == "ConvTranspose" else made) * math.prod(right[1:])
        whole = all(_dequantised(name, makers) for name in node.input[:2])
        precision = Precision.INT8 if whole else floats.get(kinds.get(node.output[0], 0), Precision.FP32)
        found[precision.value] += macs
    return found


def _dequantised(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    node = makers.get(name)
    while node is not None and node.op_type in _CARRIED:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _in_openvino(artifact: Artifact) -> Counter[str] | None:
    import openvino

    return openvino_macs(openvino.Core().read_model(artifact.path / GRAPH), TYPES[asked_hint(artifact)])


def openvino_macs(model: openvino.Model, rest: Precision) -> Counter[str] | None:
    """The same of OpenVINO's graph, whose floats are of the precision that it is compiled with, ``rest``."""
    found: Counter[str] = Counter()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _OPENVINO:
            continue
        shapes = [port.get_partial_shape() for port in (*node.inputs(), *node.outputs())]
        if any(shape.is_dynamic for shape in shapes):
            return None
        left, right = (list(shape.to_shape()) for shape in shapes[:2])
        made = list(shapes[-1].to_shape())
        macs = _OPENVINO[kind](left, right, made, node.get_attributes())
        whole = all(_is_coded(node.input_value(place).get_node()) for place in (0, 1))
        found[(Precision.INT8 if whole else rest).value] += macs
    return found


def _is_coded(node: Any) -> bool:
    """Whether a factor is one of 256 values: quantised in the graph, or kept as whole numbers."""
    while node.get_type_name() in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Multiply", "Subtract", "Convert"):
        before = node.input_value(0).get_node()
        if node.get_type_name() == "Convert" and before.get_type_name() == "Constant":
            return bool(before.get_element_type().get_size() == 1)
        node = before
    return bool(node.get_type_name() == "FakeQuantize")


Shape = list[int]
_OPENVINO: dict[str, Callable[[Shape, Shape, Shape, Mapping[str, Any]], int]] = {
    "MatMul": lambda left, right, made, asked: math.prod(made) * left[-2 if asked["transpose_a"] else -1],
    "Convolution": lambda left, right, made, asked: math.prod(made) * math.prod(right[1:]),
    "GroupConvolution": lambda left, right, made, asked: math.prod(made) * math.prod(right[2:]),
    "ConvolutionBackpropData": lambda left, right, made, asked: math.prod(left) * math.prod(right[1:]),
    "GroupConvolutionBackpropData": lambda left, right, made, asked: math.prod(left) * math.prod(right[2:]),
}
"""By type of operator, its multiply–accumulates from the shapes of its factors and its result, and its attributes."""
_READERS = {"onnx": _in_onnx, "openvino": _in_openvino}

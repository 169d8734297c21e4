"""Rules for Q/DQ graphs: TensorRT quantises symmetrically to INT8, and leaves biases in float.

What TensorRT 10 allows is written at IQuantizeLayer and IDequantizeLayer in include/NvInfer.h of https://github.com/NVIDIA/TensorRT at
v10.3.0. Where TensorRT-RTX 1.7.1 was seen to take what the header forbids, it is a warning for that library.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from dtvit_deploy.export.tensorrt.graph import Found, Graph, Severity, attributes_of, type_name
from dtvit_deploy.export.tensorrt.operators import Compiler
from dtvit_deploy.plural import counted

LAYOUT = "export with --target trt, whose Q/DQ layout is symmetric INT8 and keeps biases in float"
CALIBRATE = "calibrate again with `dtvit-deploy calibrate`, and export with --target trt"
_BELOW_11 = "TensorRT 10's parser (onnxOpImporters.cpp at 96e7811) refuses UINT8 zero points"


def quantization(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    """Everything about QuantizeLinear and DequantizeLinear."""
    forbidden = Severity.WARNING if compiler.rtx else Severity.ERROR
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
            continue
        if node.op_type == "DequantizeLinear" and graph.type_of(node.input[0]) == TensorProto.INT32:
            what = "a bias" if graph.is_constant(node.input[0]) else "a tensor"
            yield Found("int32-bias", Severity.ERROR, node, f"dequantises {what} from INT32; TensorRT has INT8 and smaller", LAYOUT)
            continue
        yield from _zero_point(graph, node, compiler)
        yield from _scale(graph, node, forbidden)


def _zero_point(graph: Graph, node: onnx.NodeProto, compiler: Compiler) -> Iterator[Found]:
    name = node.input[2] if len(node.input) > 2 else ""
    values = graph.constant(name) if name else None
    if values is not None and np.any(values.astype(np.float64) != 0):
        message = f"has zero point {float(values.ravel()[np.argmax(values.ravel() != 0)]):g}; TensorRT quantises symmetrically, around 0"
        yield Found("zero-point", Severity.ERROR, node, message, LAYOUT)
        return
    if name and not graph.is_constant(name):
        severity = Severity.WARNING if compiler.rtx else Severity.ERROR
        yield Found("zero-point", severity, node, "computes its zero point; TensorRT wants a constant", LAYOUT)
    quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    if graph.type_of(quantized) != TensorProto.UINT8:
        return
    if node.op_type == "DequantizeLinear" and graph.is_constant(quantized):
        yield Found("zero-point", Severity.ERROR, node, "dequantises a UINT8 constant; TensorRT has INT8 and smaller", LAYOUT)
    elif node.op_type == "QuantizeLinear":
        refuses = bool(name) and not compiler.since(11)
        message = "quantises to UINT8; " + (_BELOW_11 if refuses else "the parser reads INT8, so all values above 127 steps become 127")
        yield Found("zero-point", Severity.ERROR if refuses else Severity.WARNING, node, message, LAYOUT)


def _scale(graph: Graph, node: onnx.NodeProto, forbidden: Severity) -> Iterator[Found]:
    data, name = node.input[0], node.input[1]
    scales = graph.constant(name)
    if scales is None:
        if not graph.is_constant(name):
            yield Found("scale", forbidden, node, "computes its scale; TensorRT wants a constant", CALIBRATE)
        return
    wrong = ~(scales.astype(np.float64) > 0)
    if wrong.any():
        message = f"has the scale {float(scales.ravel()[np.argmax(wrong.ravel())]):g}; TensorRT wants all of them above 0"
        yield Found("scale", Severity.ERROR, node, message, CALIBRATE)
    kinds = graph.type_of(data), graph.type_of(name)
    if node.op_type == "QuantizeLinear" and 0 not in kinds and kinds[0] != kinds[1]:
        message = f"quantises {type_name(kinds[0])} by {type_name(kinds[1])} scales; a strongly typed network wants one type"
        yield Found("scale", forbidden, node, message, LAYOUT)
    if attributes_of(node).get("block_size", 0):
        return
    if not graph.is_constant(data):
        if scales.size != 1:
            message = f"an activation has {scales.size} scales; TensorRT has one for each tensor, and more for weights only"
            yield Found("scale", forbidden, node, message, CALIBRATE)
    elif scales.size > 1:
        yield from _channels(graph, node, int(scales.size))


def _channels(graph: Graph, node: onnx.NodeProto, scales: int) -> Iterator[Found]:
    """Weights with several scales: one for each output channel."""
    shape = graph.shape_of(node.input[0])
    if shape is None:
        return
    axis = attributes_of(node).get("axis", 1)
    if not -len(shape) <= axis < len(shape):
        yield Found("scale", Severity.ERROR, node, f"has its scales along axis {axis} of {len(shape)}", LAYOUT)
        return
    axis %= len(shape)
    if shape[axis] != scales:
        yield Found("scale", Severity.ERROR, node, f"has {counted(scales, 'scale')} for {counted(shape[axis], 'channel')}", LAYOUT)
        return
    for reader in graph.readers(node.output[0]):
        channels = _output_axis(reader, node.output[0], len(shape))
        if channels is not None and channels != axis:
            message = f"has a scale for each input channel of {reader.op_type}; only scales of output channels can be applied to its result"
            yield Found("scale", Severity.WARNING, node, message, LAYOUT)
            return


def _output_axis(reader: onnx.NodeProto, weights: str, rank: int) -> int | None:
    """Where a product's output channels lie in its weights; None where it is no product of them."""
    if len(reader.input) < 2 or reader.input[1] != weights:
        return None
    if reader.op_type == "Gemm":
        return 0 if attributes_of(reader).get("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(reader.op_type)

"""Rules for Q/DQ graphs: TensorRT quantises symmetrically to INT8, and leaves biases in float.

What TensorRT allows is written at IQuantizeLayer and IDequantizeLayer in include/NvInfer.h of https://github.com/NVIDIA/TensorRT at
v10.3.0, in the operator's page of NVIDIA's documents (docs.nvidia.com/deeplearning/tensorrt, operators, Quantize) for 10 and 11, and in
the sources of its parser at 96e7811 (10.0, 10.1). TensorRT-RTX 1.7.1 was seen to take much of what they forbid: a warning for that
library, which says nothing of TensorRT, whose compilers nobody could ask here.
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
HEADER = "TensorRT 10 and 11: NvInfer.h, IQuantizeLayer"
"""Scales are constants, activations have one, and those of weights lie along the output channels."""
TYPES_OF_Q = (
    "TensorRT 10 and 11: the page of Quantize lists INT8, FP8, INT4 and FP4; 10's parser refuses UINT8, onnxOpImporters.cpp at 96e7811"
)
DEEPEST = 8
"""Operators between weights and their product."""
SEEN = "TensorRT-RTX 1.7.1 was seen to take it; TensorRT's documents forbid it"


def quantization(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    """Everything about QuantizeLinear and DequantizeLinear."""
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
            continue
        if node.op_type == "DequantizeLinear" and graph.type_of(node.input[0]) == TensorProto.INT32:
            what = "a bias" if graph.is_constant(node.input[0]) else "a tensor"
            yield Found("int32-bias", Severity.ERROR, node, f"dequantises {what} from INT32; TensorRT has INT8 and smaller", LAYOUT)
            continue
        yield from _zero_point(graph, node, compiler)
        yield from _scale(graph, node, compiler)


def _forbidden(compiler: Compiler) -> tuple[Severity, str]:
    """How much it matters that the documents forbid something, and where that is known from."""
    return (Severity.WARNING, SEEN) if compiler.rtx else (Severity.ERROR, HEADER)


def _zero_point(graph: Graph, node: onnx.NodeProto, compiler: Compiler) -> Iterator[Found]:
    name = node.input[2] if len(node.input) > 2 else ""
    values = graph.constant(name) if name else None
    if values is not None and np.any(values.astype(np.float64) != 0):
        message = f"has zero point {float(values.ravel()[np.argmax(values.ravel() != 0)]):g}; TensorRT quantises symmetrically, around 0"
        yield Found("zero-point", Severity.ERROR, node, message, LAYOUT)
        return
    if name and not graph.is_constant(name):
        severity, source = _forbidden(compiler)
        yield Found("zero-point", severity, node, "computes its zero point; TensorRT wants a constant", LAYOUT, source)
    quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    if graph.type_of(quantized) != TensorProto.UINT8:
        return
    if node.op_type == "DequantizeLinear" and graph.is_constant(quantized):
        yield Found("zero-point", Severity.ERROR, node, "dequantises a UINT8 constant; TensorRT has INT8 and smaller", LAYOUT)
    elif compiler.rtx and node.op_type == "QuantizeLinear":
        message = "quantises to UINT8; the parser reads INT8, so all values above 127 steps become 127"
        yield Found("zero-point", Severity.WARNING, node, message, LAYOUT, SEEN)
    elif not compiler.rtx:
        message = f"{'quantises to' if node.op_type == 'QuantizeLinear' else 'dequantises'} UINT8; TensorRT has INT8 and smaller"
        yield Found("zero-point", Severity.ERROR, node, message, LAYOUT, TYPES_OF_Q)


def _scale(graph: Graph, node: onnx.NodeProto, compiler: Compiler) -> Iterator[Found]:
    data, name = node.input[0], node.input[1]
    forbidden, source = _forbidden(compiler)
    scales = graph.constant(name)
    if scales is None:
        if not graph.is_constant(name):
            yield Found("scale", forbidden, node, "computes its scale; TensorRT wants a constant", CALIBRATE, source)
        return
    wrong = ~(scales.astype(np.float64) > 0)
    if wrong.any():
        message = f"has the scale {float(scales.ravel()[np.argmax(wrong.ravel())]):g}; TensorRT wants all of them above 0"
        yield Found("scale", Severity.ERROR, node, message, CALIBRATE)
    kinds = graph.type_of(data), graph.type_of(name)
    if node.op_type == "QuantizeLinear" and 0 not in kinds and kinds[0] != kinds[1]:
        message = f"quantises {type_name(kinds[0])} by {type_name(kinds[1])} scales; a strongly typed network wants one type"
        yield Found("scale", forbidden, node, message, LAYOUT, source)
    if attributes_of(node).get("block_size", 0):
        return
    if not graph.is_constant(data):
        if scales.size != 1:
            message = f"an activation has {scales.size} scales; TensorRT has one for each tensor, and more for weights only"
            yield Found("scale", forbidden, node, message, CALIBRATE, source)
    elif scales.size > 1:
        yield from _channels(graph, node, int(scales.size), compiler)


def _channels(graph: Graph, node: onnx.NodeProto, scales: int, compiler: Compiler) -> Iterator[Found]:
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
    for reader, along in _products(graph, node.output[0], axis):
        channels = _output_axis(reader, len(shape))
        if channels is not None and channels != along:
            severity, source = _forbidden(compiler)
            message = f"has a scale for each input channel of {reader.op_type}; only scales of output channels can be applied to its result"
            yield Found("scale", severity, node, message, LAYOUT, source)
            return


def _products(graph: Graph, weights: str, axis: int, seen: frozenset[str] = frozenset()) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Operators that take weights as their second input, each with the axis that the scales lie along there: a transpose moves it."""
    if weights in seen or len(seen) > DEEPEST:
        return
    seen |= {weights}
    for reader in graph.readers(weights):
        if len(reader.input) > 1 and reader.input[1] == weights:
            yield reader, axis
        elif reader.op_type == "Transpose" and reader.output:
            order = attributes_of(reader).get("perm", ())
            rank = len(graph.shape_of(weights) or ())
            order = list(order) if len(order) == rank else list(range(rank))[::-1]
            if axis in order:
                yield from _products(graph, reader.output[0], order.index(axis), seen)
        elif reader.op_type in ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast") and reader.output and reader.input[0] == weights:
            yield from _products(graph, reader.output[0], axis, seen)


def _output_axis(reader: onnx.NodeProto, rank: int) -> int | None:
    """Where a product's output channels lie in its weights; None where it is no product of them."""
    if reader.op_type == "Gemm":
        return 0 if attributes_of(reader).get("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(reader.op_type)

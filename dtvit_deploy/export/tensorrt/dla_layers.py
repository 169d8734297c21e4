"""The limits of an Orin's DLA, layer by layer; `dla` says where they are published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto

from dtvit_deploy.export.tensorrt.graph import Graph, attributes_of, schema_of
from dtvit_deploy.export.tensorrt.operators import Compiler

LARGEST_BATCH, LARGEST = 4096, 8192
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.DOUBLE})
QUANTIZED = "explicit quantisation: NVIDIA describes it for a DLA only as something to take out of the graph again"
FP32 = "it computes in FP32; a DLA has FP16 and INT8"
SHAPE = "its tensors are not images: a DLA has four axes, of which two are of space"
TOO_LARGE = f"a batch above {LARGEST_BATCH}, or another axis above {LARGEST}"
ABSENT = "a DLA has no such layer, or none that is documented for TensorRT on a Jetson"
MATRIX = "the parser makes a matrix multiplication of it, and a DLA has convolutions only"

Rule = Callable[[onnx.NodeProto, Mapping[str, Any], Graph], bool]


def refusal(node: onnx.NodeProto, graph: Graph, compiler: Compiler) -> str:
    """Why a DLA does not take a node; empty if it does. The same words for all nodes with the same reason."""
    operator = node.op_type
    if operator in ("QuantizeLinear", "DequantizeLinear") or any(_dequantised(name, graph) for name in node.input):
        return QUANTIZED
    if operator in ("Gemm", "MatMul"):
        return MATRIX
    rule = LAYERS.get(operator) or (NEWER.get(operator) if compiler.release >= (11, 4, 1) else None)
    schema = schema_of(node, graph.opset)
    if rule is None or schema is None or len(node.input) < schema.min_input:
        return ABSENT
    tensors = [name for name in (*node.input, *node.output) if name and not graph.is_constant(name)]
    kinds = {graph.type_of(name) for name in tensors}
    if kinds & FLOATS:
        return FP32
    if kinds != {TensorProto.FLOAT16}:
        return "its tensors are not FP16, which is what a DLA computes in where nothing is quantised"
    shapes = [graph.shape_of(name) for name in tensors]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        return SHAPE
    sizes = [size for shape in shapes if shape is not None for size in shape]
    if None in sizes:
        return "sizes that are not fixed"
    if any(shape is not None and not _fits(shape) for shape in shapes):
        return TOO_LARGE
    applies, limits = rule
    return "" if applies(node, attributes_of(node), graph) else f"{operator} beyond what a DLA can: {limits}"


def _dequantised(name: str, graph: Graph) -> bool:
    maker = graph.maker(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


def _fits(shape: Sequence[int | None]) -> bool:
    return 1 <= (shape[0] or 0) <= LARGEST_BATCH and all(1 <= (size or 0) <= LARGEST for size in shape[1:])


def _within(values: Sequence[int], low: int, high: int) -> bool:
    return len(values) == 2 and all(low <= value <= high for value in values)


def _kernel(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> Sequence[int]:
    shape = graph.shape_of(node.input[1]) if len(node.input) > 1 else None
    return list(attributes.get("kernel_shape", ())) or [size or 0 for size in (shape or ())[2:]]


def _always(_node: onnx.NodeProto, _attributes: Mapping[str, Any], _graph: Graph) -> bool:
    return True


def _convolution(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> bool:
    kernel, pads = _kernel(node, attributes, graph), attributes.get("pads", [0] * 4)
    weights = graph.shape_of(node.input[1]) or (0,)
    return (
        graph.is_constant(node.input[1])
        and _within(kernel, 1, 32)
        and _within(attributes.get("strides", [1, 1]), 1, 8)
        and _within(attributes.get("dilations", [1, 1]), 1, 32)
        and len(pads) == 4
        and all(0 <= pad <= 31 and pad < size for pad, size in zip(pads, [*kernel, *kernel], strict=True))
        and 1 <= (weights[0] or 0) <= LARGEST
        and attributes.get("group", 1) <= LARGEST
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _deconvolution(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> bool:
    kernel, strides = _kernel(node, attributes, graph), attributes.get("strides", [1, 1])
    return (
        graph.is_constant(node.input[1])
        and _within(kernel, 1, 22)
        and _within(strides, 1, 22)
        and not any(attributes.get("pads", ()))
        and not any(attributes.get("output_padding", ()))
        and attributes.get("group", 1) == 1
        and all(step == 1 for step in attributes.get("dilations", ()))
    )


def _pooling(node: onnx.NodeProto, attributes: Mapping[str, Any], _graph: Graph) -> bool:
    pads = attributes.get("pads", [0] * 4)
    counted = node.op_type == "MaxPool" or not any(pads) or attributes.get("count_include_pad", 0) == 1
    return (
        _within(attributes.get("kernel_shape", ()), 1, 8)
        and _within(attributes.get("strides", [1, 1]), 1, 16)
        and len(pads) == 4
        and all(0 <= pad <= 7 for pad in pads)
        and all(step == 1 for step in attributes.get("dilations", ()))
        and attributes.get("ceil_mode", 0) == 0
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        and counted
    )


def _elementwise(node: onnx.NodeProto, _attributes: Mapping[str, Any], graph: Graph) -> bool:
    shapes = {graph.shape_of(name) for name in node.input if not graph.is_constant(name)}
    return len(shapes) == 1 and shapes == {graph.shape_of(node.output[0])}


def _clip(node: onnx.NodeProto, _attributes: Mapping[str, Any], graph: Graph) -> bool:
    limits = [graph.constant(name) for name in node.input[1:3]]
    if len(limits) != 2 or any(limit is None or limit.size != 1 for limit in limits):
        return False
    low, high = (float(limit.item()) for limit in limits if limit is not None)
    return low == 0 and 1 <= high <= 127


def _slope(node: onnx.NodeProto, _attributes: Mapping[str, Any], graph: Graph) -> bool:
    return graph.is_constant(node.input[1]) and len(graph.shape_of(node.input[1]) or ()) == 4


def _softmax(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> bool:
    shape = [size or 0 for size in graph.shape_of(node.input[0]) or ()]
    axis = attributes.get("axis", -1) % 4
    others = [size for place, size in enumerate(shape) if place not in (0, axis)]
    return len(shape) == 4 and bool(axis != 0) and shape[axis] <= (LARGEST if others == [1, 1] else 1024)


def _concatenation(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> bool:
    return attributes.get("axis", 0) % 4 == 1 and len(node.input) >= 2 and not any(graph.is_constant(name) for name in node.input)


def _slice(node: onnx.NodeProto, _attributes: Mapping[str, Any], graph: Graph) -> bool:
    parts = [graph.constant(name) for name in node.input[1:] if name]
    if len(parts) < 3 or any(part is None or part.dtype.kind != "i" for part in parts):
        return False
    axes, steps = parts[2], parts[3] if len(parts) > 3 else None
    return axes is not None and all(int(axis) % 4 != 0 for axis in axes.ravel()) and (steps is None or bool((steps == 1).all()))


def _split(_node: onnx.NodeProto, attributes: Mapping[str, Any], _graph: Graph) -> bool:
    return bool(attributes.get("axis", 0) % 4 != 0)


def _transposition(_node: onnx.NodeProto, attributes: Mapping[str, Any], _graph: Graph) -> bool:
    return bool(next(iter(attributes.get("perm", ())), None) == 0)


def _reshape(node: onnx.NodeProto, _attributes: Mapping[str, Any], graph: Graph) -> bool:
    return (graph.shape_of(node.input[0]) or (0,))[0] == (graph.shape_of(node.output[0]) or (None,))[0]


def _resize(node: onnx.NodeProto, attributes: Mapping[str, Any], graph: Graph) -> bool:
    scales = graph.constant(node.input[2]) if len(node.input) == 3 else None
    if scales is None or scales.shape != (4,) or tuple(scales[:2]) != (1, 1) or any(float(scale) % 1 for scale in scales):
        return False
    mode, places = attributes.get("mode", b"nearest"), attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounding = attributes.get("nearest_mode", b"round_prefer_floor")
    nearest = {(b"asymmetric", b"floor"), (b"half_pixel", b"round_prefer_floor"), (b"half_pixel", b"round_prefer_ceil")}
    if mode == b"nearest":
        return (places, rounding) in nearest and all(1 <= scale <= 32 for scale in scales[2:])
    return mode == b"linear" and places == b"half_pixel" and all(1 <= scale <= 4 for scale in scales[2:])


def _response(_node: onnx.NodeProto, attributes: Mapping[str, Any], _graph: Graph) -> bool:
    return attributes.get("size") in (3, 5, 7, 9)


_SUM = (_elementwise, "tensors of one shape, or a constant")
_ANY = (_always, "")
_POOL = (_pooling, "windows to 8, strides to 16, padding to 7 that is counted")
LAYERS: Mapping[str, tuple[Rule, str]] = {
    "Abs": _ANY,
    "Add": _SUM,
    "AveragePool": _POOL,
    "BatchNormalization": _ANY,
    "Clip": (_clip, "from 0 to a number between 1 and 127"),
    "Concat": (_concatenation, "along the channels"),
    "Conv": (_convolution, "constant kernels to 32, strides to 8, padding to 31 and less than the kernel"),
    "ConvTranspose": (_deconvolution, "constant kernels and strides to 22, no padding, no groups, no dilation"),
    "LRN": (_response, "windows of 3, 5, 7 or 9"),
    "LeakyRelu": _ANY,
    "Max": _SUM,
    "MaxPool": _POOL,
    "Min": _SUM,
    "Mul": _SUM,
    "PRelu": (_slope, "a constant slope with four axes"),
    "Relu": _ANY,
    "Reshape": (_reshape, "the batch stays as it is"),
    "Resize": (_resize, "whole scales, to 32 nearest and to 4 linear"),
    "Sigmoid": _ANY,
    "Slice": (_slice, "fixed, without steps, not along the batch"),
    "Softmax": (_softmax, "along an axis of at most 1024, or 8192 alone, not the batch"),
    "Split": (_split, "not along the batch"),
    "Sub": _SUM,
    "Sum": _SUM,
    "Tanh": _ANY,
    "Transpose": (_transposition, "the batch stays where it is"),
}
"""Operators that become layers which a DLA has."""
NEWER: Mapping[str, tuple[Rule, str]] = {"Div": _SUM, "Pow": _SUM}
"""In the table of the current guide, and not among those that NvInfer.h of 10.3 names for a DLA."""

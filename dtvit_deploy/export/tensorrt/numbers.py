"""Rules for types, ranges and shapes: what a strongly typed network refuses, and where FP16 runs out.

Magnitudes are those of the FP32 graph on real images; an FP16 graph keeps its tensors' names (`export.float16`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto

from dtvit_deploy.export.float16 import HEADROOM, LARGEST_FP16
from dtvit_deploy.export.tensorrt.graph import SEQUENCE, Found, Graph, Severity, attributes_of, greatest, schema_of, type_name
from dtvit_deploy.export.tensorrt.operators import FLOAT_ONLY, TYPES, Compiler

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
READ_MIXED = frozenset({"Clip", "QuantizeLinear"})
"""The limits of a Clip are read as numbers; QuantizeLinear has a rule of its own."""
COARSE = 512.0
"""Above this FP16 numbers are half a unit apart: rounding alone changes a softmax's weights by a quarter."""
SQUARING = frozenset({"LpNormalization", "ReduceL2", "ReduceSumSquare"})
"""Operators that square what they read without a tensor that shows it."""
KEEP = "export with --keep-fp32 {module}"
OURS = "export with this project's exporter, which writes one float type for each node"


def types(graph: Graph, compiler: Compiler) -> Iterator[Found]:
    """Types that no release reads, or not there."""
    for node in graph.nodes:
        names = [name for name in (*node.input, *node.output) if name]
        kinds = {graph.type_of(name) for name in names}
        for kind in sorted(kinds - TYPES - {0}):
            what = "no tensor but a sequence or an optional" if kind == SEQUENCE else type_name(kind)
            yield Found("type", Severity.ERROR, node, f"{node.op_type} has {what}, which TensorRT does not read", "use FP32, FP16 or INT64")
        if TensorProto.DOUBLE in kinds:
            yield Found(
                "type", Severity.WARNING, node, f"{node.op_type} is DOUBLE; the parser makes FLOAT of it", "use FP32 in the network"
            )
        yield from _uint8(graph, node)
        if node.op_type in FLOAT_ONLY:
            found = sorted({graph.type_of(name) for name in node.input} & INTEGERS)
            if found:
                message = f"{node.op_type} of {type_name(found[0])}; TensorRT computes it in float only"
                yield Found("type", Severity.ERROR, node, message, "convert its inputs to float")
        if node.op_type == "Pow" and len(node.input) == 2:
            for place, what, release in ((1, "exponent", (10, 8)), (0, "base", (10, 12))):
                if graph.type_of(node.input[place]) in INTEGERS and not compiler.since(*release):
                    message = f"Pow with an integer {what}, which is read from TensorRT {release[0]}.{release[1]} on"
                    yield Found("type", Severity.ERROR, node, message, "convert it to float")


def _uint8(graph: Graph, node: onnx.NodeProto) -> Iterator[Found]:
    """UINT8 is for the network's inputs, which are then cast, and its outputs."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
        return
    read = any(graph.type_of(name) == TensorProto.UINT8 and not graph.is_constant(name) for name in node.input)
    made = any(graph.type_of(name) == TensorProto.UINT8 and name not in graph.outputs for name in node.output)
    if (read and node.op_type != "Cast") or made:
        message = f"{node.op_type} of UINT8, which TensorRT has for a network's inputs and outputs only"
        yield Found("type", Severity.ERROR, node, message, "cast to float first")


def mixed(graph: Graph) -> Iterator[Found]:
    """Inputs that ONNX wants of one type and that are not: a strongly typed network converts nothing."""
    for node in graph.nodes:
        schema = None if node.op_type in READ_MIXED else schema_of(node, graph.opset)
        if schema is None:
            continue
        formal = schema.inputs
        groups: dict[str, dict[int, str]] = {}
        for place, name in enumerate(node.input):
            kind = graph.type_of(name)
            if name and formal and kind in FLOATS:
                groups.setdefault(formal[min(place, len(formal) - 1)].type_str, {}).setdefault(kind, name)
        for kinds in groups.values():
            if len(kinds) > 1:
                found = ", ".join(f"{type_name(kind)} ({name})" for kind, name in sorted(kinds.items()))
                yield Found("mixed", Severity.ERROR, node, f"{node.op_type} reads {found}; a strongly typed network refuses that", OURS)


def overflow(graph: Graph, magnitudes: Mapping[str, float]) -> Iterator[Found]:
    """Where FP16 is too small, or too coarse."""
    seen: set[str] = set()
    for node in graph.nodes:
        half = [name for name in (*node.output, *node.input) if graph.type_of(name) == TensorProto.FLOAT16]
        for name in half:
            if name not in seen:
                seen.add(name)
                yield from _constant(graph, node, name) if graph.is_constant(name) else _large(node, name, _magnitude(magnitudes, name))
        if node.input and node.input[0] in half:
            yield from _inside(node, _magnitude(magnitudes, node.input[0]))


def _constant(graph: Graph, node: onnx.NodeProto, name: str) -> Iterator[Found]:
    values = graph.constant(name)
    if values is None:
        return
    size = greatest(values)
    if size >= LARGEST_FP16:
        what = f"is {LARGEST_FP16:.0f}, FP16's end: it was probably greater" if np.isfinite(size) else "is infinite or no number in FP16"
        yield Found("overflow", Severity.WARNING, node, f"a value of the constant {name} {what}", f"{KEEP}, unless it is a mask")


def _large(node: onnx.NodeProto, name: str, size: float) -> Iterator[Found]:
    if not size * HEADROOM < LARGEST_FP16:
        message = f"|{name}| reaches {size:.3g} on real images, FP16 ends at {LARGEST_FP16:.0f}"
        yield Found("overflow", Severity.WARNING, node, message, KEEP)


def _inside(node: onnx.NodeProto, size: float) -> Iterator[Found]:
    """What is computed within an operator.

    A LayerNormalization of FP16 computes its variance in FP32 unless its `stash_type` says otherwise: so ONNX defines it, the parser sets
    it (onnxOpImporters.cpp at 96e7811), and the layer has it by default (INormalizationLayer in NvInfer.h at v10.3.0). One that was
    exported as single operators has tensors for its squares, whose magnitudes are known.
    """
    squares = node.op_type in SQUARING or (node.op_type == "LayerNormalization" and attributes_of(node).get("stash_type", 1) != 1)
    if squares and not size * size * HEADROOM < LARGEST_FP16:
        message = f"{node.op_type} squares {size:.3g} in FP16, which ends at {LARGEST_FP16:.0f}"
        yield Found("overflow", Severity.WARNING, node, message, KEEP)
    if node.op_type in ("Softmax", "LogSoftmax") and not size < COARSE:
        spacing = 2.0 ** (np.floor(np.log2(min(size, LARGEST_FP16))) - 10)
        message = f"{node.op_type} reads up to {size:.3g} in FP16, whose numbers are {spacing:g} apart there"
        yield Found("precision", Severity.WARNING, node, message, KEEP)


def _magnitude(magnitudes: Mapping[str, float], name: str) -> float:
    """What is known of a tensor by its own name, or by that which it had before it was converted; 0 if nothing is."""
    return magnitudes.get(name, magnitudes.get(re.sub(r"_as_fp(16|32)_*$", "", name), 0.0))


def int64(graph: Graph) -> Iterator[Found]:
    """Constants outside INT32, but for the ends of slices, which mean "to the end"."""
    limits = np.iinfo(np.int32)
    for name in graph.constants():
        if graph.type_of(name) != TensorProto.INT64:
            continue
        readers = [node for node in graph.readers(name) if node.op_type != "Slice"]
        values = graph.constant(name)
        if readers and values is not None and values.size and (values.max() > limits.max or values.min() < limits.min):
            message = (
                f"the INT64 constant {name} holds {int(values.flat[np.argmax(np.abs(values.astype(np.float64)))])}, which INT32 cannot"
            )
            remedy = (
                "keep indices below 2³¹: TensorRT computes in INT64 from 9.0 on, but what it puts on a DLA or an older release does not"
            )
            yield Found("int64", Severity.WARNING, readers[0], message, remedy)


def dynamic(graph: Graph) -> Iterator[Found]:
    """Sizes that are not numbers: this project builds without optimisation profiles, and without one a compiler refuses them."""
    static = True
    for info in graph.inputs:
        shape = graph.shape_of(info.name)
        if shape is None or None in shape:
            static = False
            reader = next(iter(graph.readers(info.name)), None)
            sizes = "no shape" if shape is None else "×".join("?" if size is None else str(size) for size in shape)
            message = f"the input {info.name} has {sizes if shape is None else f'the size {sizes}'}; an engine has fixed sizes here"
            yield Found(
                "dynamic-shape", Severity.ERROR, reader, message, "export with fixed sizes (--input-size, or --input NAME=1x3x224x224)"
            )
    if not static:
        return
    for node in graph.nodes:
        known = all(shape is not None and None not in shape for name in node.input if name for shape in (graph.shape_of(name),))
        unknown = [name for name in node.output if (shape := graph.shape_of(name)) is not None and None in shape]
        if known and unknown:
            message = f"the size of {node.op_type}'s result depends on the values of its inputs"
            yield Found("dynamic-shape", Severity.WARNING, node, message, "compute sizes from the fixed input size, not from values")

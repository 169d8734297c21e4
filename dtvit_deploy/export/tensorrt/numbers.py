"""Rules for types, constants and shapes: what a strongly typed network refuses, and what does not fit its type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from dtvit_deploy.export.onnx.float16 import LARGEST_FP16
from dtvit_deploy.export.tensorrt.graph import SEQUENCE, Found, Graph, Severity, greatest, schema_of, type_name
from dtvit_deploy.export.tensorrt.operators import FLOAT_ONLY, TYPES, Compiler

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
READ_MIXED = frozenset({"Clip", "QuantizeLinear"})
"""The limits of a Clip are read as numbers; QuantizeLinear has a rule of its own."""
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


def overflow(graph: Graph) -> Iterator[Found]:
    """Constants that FP16 cannot hold. What tensors reach is known to `export.onnx.float16` alone, which keeps those in FP32 that are too
    large, and what FP16 does to the outputs is measured where the graph is made (`pipeline.mixed_precision`).
    """
    seen: set[str] = set()
    for node in graph.nodes:
        for name in node.input:
            if name not in seen and graph.is_constant(name) and graph.type_of(name) == TensorProto.FLOAT16:
                seen.add(name)
                yield from _constant(graph, node, name)
        if node.op_type == "Constant" and node.output[0] not in seen and graph.type_of(node.output[0]) == TensorProto.FLOAT16:
            seen.add(node.output[0])
            yield from _constant(graph, node, node.output[0])


def _constant(graph: Graph, node: onnx.NodeProto, name: str) -> Iterator[Found]:
    values = graph.constant(name)
    if values is None:
        return
    size = greatest(values)
    if size >= LARGEST_FP16:
        what = f"is {LARGEST_FP16:.0f}, FP16's end: it was probably greater" if np.isfinite(size) else "is infinite or no number in FP16"
        yield Found("overflow", Severity.WARNING, node, f"a value of the constant {name} {what}", f"{KEEP}, unless it is a mask")


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

"""ONNX graphs that somebody else may have written: read without looking at any other file, and inferred without ending the process.

The shape inference of onnx 1.23, and ONNX Runtime's, which is of the same source, abort the process on a Slice of a tensor with a negative
size. Sizes that a graph states are looked at here. What only the inference itself arrives at cannot be: a file from elsewhere is first
loaded in a process of its own (`runtimes.trial`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.signature import MOST_VALUES, TensorSpec
from dtvit_deploy.errors import InputError, MissingError

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Signature

AGAIN = "export it again"


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph in a file, its constants' values included.

    Raises:
        InputError: it is no ONNX graph, it says that values are in another file, or sizes in it are none.
        MissingError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingError(f"onnx cannot be imported: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    model = None
    with contextlib.suppress(Exception):  # protobuf's classes differ between its implementations
        model = onnx.load(path, load_external_data=False)
    if model is None or not model.HasField("graph"):
        raise InputError(f"{path} is not an ONNX graph", remedy=AGAIN)
    if fault := _foreign(model) or size_fault(model) or _incomplete(model):
        raise InputError(f"{path}: {fault}", remedy=AGAIN)
    return model


def inferred(model: onnx.ModelProto, *, strict: bool = True, data_prop: bool = False) -> onnx.ModelProto:
    """A copy with the types and shapes of inner tensors.

    Args:
        model: this project's own, or one that `runtimes.trial` has survived; it is not changed.
        strict: whether a node that contradicts the rest is an error.
        data_prop: whether shapes that nodes compute are followed too.

    Raises:
        InputError: a size is negative or enormous, or types and shapes cannot be inferred.
    """
    import onnx

    if fault := size_fault(model):
        raise InputError(f"shapes of the graph cannot be inferred: {fault}", remedy=AGAIN)
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=data_prop)
    except Exception as error:  # InferenceError, and whatever else a bad graph leads it to
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"types and shapes of the graph cannot be inferred: {first}", remedy=AGAIN) from error


def unused(name: str, taken: set[str]) -> str:
    """A name that no tensor and no node has, which is taken from now on: the one that is wanted, or that with underscores behind it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def signature_fault(model: onnx.ModelProto, signature: Signature) -> str:
    """The first difference between what a graph takes and gives and a signature; empty if there is none."""
    import onnx

    for what, infos, specs in (("inputs", model.graph.input, signature.inputs), ("outputs", model.graph.output, signature.outputs)):
        found = []
        for info in infos:
            tensor = info.type.tensor_type
            shape = tuple(size.dim_value if size.HasField("dim_value") else 0 for size in tensor.shape.dim)
            found.append(TensorSpec(info.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name))
        if found != list(specs):
            return f"its {what} are {'; '.join(map(str, found)) or 'none'}, not {'; '.join(map(str, specs))}"
    return ""


def size_fault(model: onnx.ModelProto) -> str:
    """The first tensor of which a stated size is negative, or that nothing here could hold; empty if there is none."""
    for graph in _graphs(model):
        for info in (*graph.input, *graph.output, *graph.value_info):
            sizes = [size.dim_value for size in info.type.tensor_type.shape.dim if size.HasField("dim_value")]
            if fault := _sizes_fault(info.name, sizes):
                return fault
    return next(filter(None, (_sizes_fault(tensor.name, tensor.dims) for tensor in _tensors(model))), "")


def _sizes_fault(name: str, sizes: Iterable[int]) -> str:
    sizes = list(sizes)
    if any(size < 0 for size in sizes):
        return f"the tensor {name!r} has a negative size: {'×'.join(map(str, sizes))}"
    if math.prod(sizes) > MOST_VALUES:
        return f"the tensor {name!r} is said to have {'×'.join(map(str, sizes))} values; {MOST_VALUES:,} are the most that are read"
    return ""


def _foreign(model: onnx.ModelProto) -> str:
    """The first constant whose values are in another file; this project's artefacts have none, and what it points to is not looked at."""
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            return f"the values of the constant {tensor.name!r} are in another file, {place!r}, which is not read"
    return ""


def _incomplete(model: onnx.ModelProto) -> str:
    """The first constant that has not as many bytes as its shape says."""
    from onnx import helper

    for tensor in _tensors(model):
        if not tensor.HasField("raw_data"):
            continue
        try:
            wide = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, TypeError):
            return f"the constant {tensor.name!r} has values of an unknown type, {tensor.data_type}"
        needed, found = math.prod(tensor.dims) * wide, len(tensor.raw_data)
        packed = tensor.data_type in _packed()
        if found != needed and not packed:
            return f"the constant {tensor.name!r} has {found:,} bytes; its shape needs {needed:,}"
    return ""


def _packed() -> frozenset[int]:
    """Types of which one byte holds several values."""
    from onnx import TensorProto

    return frozenset(kind for name, kind in TensorProto.DataType.items() if name.endswith(("INT4", "FLOAT4E2M1", "INT2")))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant, wherever it is."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []), *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside it; protobuf reads no more than thirty within one another."""
    left = [model.graph]
    left += [inner for function in model.functions for node in function.node for inner in _inside(node)]
    while left:
        graph = left.pop()
        yield graph
        left += [inner for node in graph.node for inner in _inside(node)]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for function in model.functions:
        yield from function.node
    for graph in _graphs(model):
        yield from graph.node


def _inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else [])
        yield from attribute.graphs

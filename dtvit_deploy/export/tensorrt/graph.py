"""An ONNX graph as the rules for NVIDIA's compilers ask about it: nodes with those of inner graphs, types, shapes and constants."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from dtvit_deploy.artifacts.graph import inferred
from dtvit_deploy.errors import InputError

Shape = tuple[int | None, ...]
SEQUENCE = -1
"""Type of what is no tensor."""


class Severity(enum.Enum):
    """How much a finding matters."""

    ERROR = "error"
    """The compiler is known to refuse it, or to compute something else without a word."""
    WARNING = "warning"
    """It will hurt: other numbers than were meant, or time."""

    def __str__(self) -> str:
        return self.value


class Found(NamedTuple):
    """What a rule finds at a node; None is the graph as a whole. ``source`` says for which releases it is known, and from where."""

    rule: str
    severity: Severity
    node: onnx.NodeProto | None
    message: str
    remedy: str
    source: str = ""


class Graph:
    """What is asked about a graph; nothing in it is believed to be well formed.

    Attributes:
        model: with the types and shapes that could be inferred.
        nodes: in their order, each followed by those of its inner graphs.
        opset: of ONNX's own operators.
        functions: names of the operators that the model itself defines.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        model = _inferred(model)
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.opset = max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)
        self.functions = {function.name for function in model.functions}
        self._types: dict[str, int] = {}
        self._shapes: dict[str, Shape | None] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}
        self._arrays: dict[str, NDArray[Any] | None] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._add(model.graph)
        self.inputs = [info for info in model.graph.input if info.name not in self._tensors]
        self.outputs = {info.name for info in model.graph.output}

    def type_of(self, name: str) -> int:
        """A tensor's element type, 0 where it is not known."""
        return self._types.get(name, 0)

    def shape_of(self, name: str) -> Shape | None:
        """Sizes, None for each that is not a number; None where not even the rank is known."""
        return self._shapes.get(name)

    def is_constant(self, name: str) -> bool:
        return name in self._tensors

    def constant(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None where it is none, or where they are in another file or make no sense."""
        if name not in self._arrays:
            tensor = self._tensors.get(name)
            try:
                here = None if tensor is None or tensor.data_location == TensorProto.EXTERNAL else tensor
                self._arrays[name] = None if here is None else numpy_helper.to_array(here)
            except Exception:  # raw data of another length, an unknown type, …: whoever compiles the graph will say so
                self._arrays[name] = None
        return self._arrays[name]

    def constants(self) -> Iterator[str]:
        yield from self._tensors

    def maker(self, name: str) -> onnx.NodeProto | None:
        return self._makers.get(name)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return self._readers.get(name, [])

    def _add(self, graph: onnx.GraphProto) -> None:
        for info in (*graph.input, *graph.output, *graph.value_info):
            kind = info.type.WhichOneof("value")
            if kind == "tensor_type":
                self._types[info.name] = info.type.tensor_type.elem_type
                self._shapes[info.name] = _sizes(info.type.tensor_type)
            elif kind is not None:
                self._types[info.name] = SEQUENCE
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        for node in graph.node:
            if not node.output:  # it computes nothing
                continue
            self.nodes.append(node)
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
            for name in node.output:
                self._makers[name] = node
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value" and node.output:
                    self._keep(node.output[0], attribute.t)
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self._add(attribute.g)

    def _keep(self, name: str, tensor: onnx.TensorProto) -> None:
        self._tensors[name] = tensor
        self._types[name] = tensor.data_type
        self._shapes[name] = tuple(tensor.dims)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """With types and shapes of all tensors, as far as they can be inferred.

    A graph that this project made has them. One that makes no sense is left as it is: then what it says itself has to do.
    """
    infos = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    typed = {info.name for info in infos if info.type.tensor_type.elem_type and info.type.tensor_type.HasField("shape")}
    if all(name in typed for node in model.graph.node for name in node.output):
        return model
    with contextlib.suppress(InputError):
        return inferred(model, strict=False)
    return model


def schema_of(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """ONNX's definition of a node's operator, whatever domain it says; None where ONNX has none of that name in that opset."""
    newest = onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(node.op_type, min(max(opset, 1), newest), "")
    except onnx.defs.SchemaError:
        return None


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes but for its inner graphs, and for those that are not of the kind that ONNX defines."""
    schema = schema_of(node, onnx.defs.onnx_opset_version())
    if schema is None:
        return {}
    kinds = {
        name: int(defined.type)  # type: ignore[call-overload]  # the enumeration is one of integers, which its stub does not say
        for name, defined in schema.attributes.items()
    }
    plain = (attribute for attribute in node.attribute if attribute.type == kinds.get(attribute.name) != onnx.AttributeProto.GRAPH)
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in plain}


def type_name(kind: int) -> str:
    """``FLOAT16``, as ONNX calls it."""
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else "no tensor"


def greatest(values: NDArray[Any]) -> float:
    """The greatest magnitude, infinite where a value is infinite or no number; 0 of nothing."""
    found = float(np.abs(values.astype(np.float64)).max(initial=0.0))
    return found if np.isfinite(found) else float("inf")


def _sizes(kind: onnx.TypeProto.Tensor) -> Shape | None:
    if not kind.HasField("shape"):
        return None
    return tuple(size.dim_value if size.WhichOneof("value") == "dim_value" and size.dim_value >= 0 else None for size in kind.shape.dim)

"""The products of a graph, and which of them gain by INT8: constant weights, enough work, enough channels to fill an instruction.

Measured on DualToken-ViT T and S in ONNX Runtime and OpenVINO, interleaved: INT8 products of two activations (attention) lose 3 to 5 % of
the whole latency, and those below a million multiply–accumulates 1 to 4 %, since converting an activation takes as long as they do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx

OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
CLAMPS = frozenset({"Clip", "Relu"})
"""Activations that runtimes merge into the convolution before them."""
LEAST_MACS = 1_000_000
"""Multiply–accumulates: 7 µs of one FP32 core."""
LEAST_CHANNELS = 8
"""Input channels of a convolution's group. An INT8 instruction sums four products at a time; depth-wise convolutions have one channel and
images three, and these cost most accuracy and were not faster."""


class Bias(NamedTuple):
    """A constant that is added to a product, one value for each output channel.

    Attributes:
        name: of the initializer.
        node, place: which input of which node it is.
    """

    name: str
    node: int
    place: int


@dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution or matrix product.

    Attributes:
        macs: multiply–accumulates of one inference; 0 where a shape is not known.
        weights: initializer that the first input is multiplied by; empty where there is none.
        axis: of the weights, along which its output channels lie.
        result: its output, or that of the ReLU or Clip which alone reads it.
        refusal: why it stays in float; empty where nothing speaks against INT8.
    """

    macs: int
    weights: str = ""
    axis: int = 0
    result: str = ""
    bias: Bias | None = None
    refusal: str = ""


def products(model: onnx.ModelProto, least_macs: int) -> dict[int, Product]:
    """Every product of a graph whose shapes are inferred, by the index of its node."""
    graph = _Graph(model)
    return {index: _product(index, node, graph, least_macs) for index, node in enumerate(model.graph.node) if node.op_type in OPERATORS}


class _Graph:
    """What is asked about a graph's tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        infos = (*graph.input, *graph.output, *graph.value_info)
        self._shapes: dict[str, list[int]] = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in infos}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
        self._readers: dict[str, list[tuple[int, onnx.NodeProto]]] = {info.name: [] for info in infos}
        for index, node in enumerate(graph.node):
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append((index, node))
        self._outputs = {info.name for info in graph.output}

    def size(self, name: str) -> int:
        return math.prod(self._shapes[name]) if self._shapes.get(name) else 0

    def last(self, name: str) -> int:
        shape = self._shapes.get(name)
        return shape[-1] if shape else 0

    def dims(self, constant: str) -> Sequence[int]:
        return self.constants[constant].dims if constant in self.constants else ()

    def reader(self, name: str) -> tuple[int, onnx.NodeProto] | None:
        """The one node that reads a tensor, if there is just one and nobody outside reads it."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None


def _product(index: int, node: onnx.NodeProto, graph: _Graph, least_macs: int) -> Product:
    weights, dims = node.input[1], graph.dims(node.input[1])
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        axis, depth = 0, math.prod(dims[1:])
    else:
        axis, depth = 0 if attributes.get("transB") else len(dims) - 1, graph.last(node.input[0])
    macs = graph.size(node.output[0]) * depth

    def refused(reason: str) -> Product:
        return Product(macs=macs, refusal=reason)

    if not dims:
        return refused("its factors are both activations" if weights not in graph.constants else "its weights are one number")
    if node.op_type != "Conv" and (len(dims) != 2 or attributes.get("transA")):
        return refused("its weights are no plain matrix")
    if node.op_type == "Gemm" and (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1.0, 1.0):
        return refused("it scales its product or its bias")
    if node.op_type == "Conv" and dims[1] < LEAST_CHANNELS:
        return refused(f"fewer than {LEAST_CHANNELS} input channels in a group")
    if macs < least_macs:
        return refused(f"fewer than {least_macs:,} multiply–accumulates")
    bias = _bias(index, node, graph)
    if bias is not None and list(graph.dims(bias.name)) not in ([dims[axis]], [1, dims[axis]]):
        return refused("its bias is not one constant for each channel")
    following = graph.reader(node.output[0])
    result = following[1].output[0] if following and following[1].op_type in CLAMPS else node.output[0]
    return Product(macs=macs, weights=weights, axis=axis, result=result, bias=bias)


def _bias(index: int, node: onnx.NodeProto, graph: _Graph) -> Bias | None:
    """The node's own bias, or that of the sum which follows a MatMul: ONNX Runtime makes the two one before it looks for INT8."""
    if node.op_type != "MatMul":
        return Bias(node.input[2], index, 2) if len(node.input) > 2 and node.input[2] else None
    following = graph.reader(node.output[0])
    if following is None or following[1].op_type != "Add":
        return None
    place, added = following
    other = 1 - list(added.input).index(node.output[0])
    name = added.input[other]
    return Bias(name, place, other) if list(graph.dims(name)) == [graph.dims(node.input[1])[-1]] else None

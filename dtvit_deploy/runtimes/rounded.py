"""A typed FP16 graph as one that computes in FP32 and rounds: what a runtime with FP16 tensors answers, on a CPU that has no such kernels.

ONNX Runtime's CPU provider computes most FP16 operators in FP32, and several in a row without rounding between them, so that what
overflows there is hidden. Here every tensor that the source types as FP16 is rounded after the operator that makes it, to ±∞ and to
subnormal numbers too, by a Cast to FLOAT16 and one back. ONNX Runtime leaves such a pair in place, whatever its level of optimisation
(a test looks at the graph that it runs), and its Cast rounds as numpy does.

What this is not: operators compute in FP32 inside, their sums included, and a kernel that adds in FP16 errs more. The quotient that
QuantizeLinear makes an integer of is not rounded to FP16 first, so that next to a tie the integer may be its neighbour. A product of
dequantised tensors is computed from their FP16 values, not from the integers and scales as an INT8 kernel does; that adds a rounding of
2⁻¹¹ to values which INT8 rounded by 2⁻⁸ before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.graph import inferred, unused
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import onnx

EXACT = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Split", "Concat", "Pad"),
        *("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth", "Compress", "Trilu"),
        *("Relu", "Neg", "Abs", "Sign", "Max", "Min", "Clip", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Where", "TopK"),
    }
)
"""Operators that pass values on, or their negatives: from FP16 values they make FP16 values, and nothing is left to round."""


def rounded_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in FP32 with every FP16 tensor rounded.

    Args:
        model: a typed graph; it is not changed.

    Returns:
        A graph with the same inputs and outputs in the same types, in which each inner tensor that was FP16 is FP32 and holds FP16 values
        under its own name; nodes keep their names and metadata.

    Raises:
        InputError: the type of a tensor cannot be inferred, or the graph has graphs inside.
    """
    return _Rounded(inferred(model)).model()


class _Rounded:
    def __init__(self, source: onnx.ModelProto) -> None:
        from onnx import TensorProto

        self._source = source
        self._half, self._single = TensorProto.FLOAT16, TensorProto.FLOAT
        graph = source.graph
        infos = (*graph.input, *graph.output, *graph.value_info)
        self._types: dict[str, int] = {info.name: info.type.tensor_type.elem_type for info in infos}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._taken = self._types.keys() | {name for node in graph.node for name in (node.name, *node.output)}
        self._ends = {info.name for info in (*graph.input, *graph.output)}
        self._instead: dict[str, str] = {}
        """FP16 input or output → its FP32 form, which is what the nodes read."""
        self._nodes: list[onnx.NodeProto] = []

    def model(self) -> onnx.ModelProto:
        import onnx

        graph = self._source.graph
        for info in graph.input:
            if self._types[info.name] == self._half:
                self._cast(info.name, self._widened(info.name), self._single, None)
        for node in graph.node:
            self._add(node)
        made = onnx.ModelProto()
        made.CopyFrom(self._source)
        constants = [self._constant(tensor) for tensor in graph.initializer]
        for field, values in ((made.graph.node, self._nodes), (made.graph.initializer, constants)):
            del field[:]
            field.extend(values)
        del made.graph.value_info[:]
        return made

    def _add(self, node: onnx.NodeProto) -> None:
        made = type(node)()
        made.CopyFrom(node)
        for index, name in enumerate(node.input):
            made.input[index] = self._instead.get(name, name)
        for attribute in made.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise InputError(
                    f"{node.op_type} {node.name} has a graph inside, which is not evaluated here", remedy="export without loops"
                )
            if attribute.HasField("t"):
                attribute.t.CopyFrom(self._constant(attribute.t))
            if attribute.name == "dtype" and attribute.i == self._half:
                attribute.i = self._single
        self._nodes.append(made)
        to_half = node.op_type == "Cast" and self._type(node.output[0], node) == self._half
        for index, name in enumerate(node.output):
            if not name or self._type(name, node) != self._half:
                continue
            if name not in self._ends and self._exact(node):
                continue
            # The Cast that was there is the first of the two: an integer would be rounded twice by way of FP32.
            halved = made.output[index] = unused(f"{name}_rounded", self._taken) if name not in self._ends else name
            if not to_half:
                made.output[index] = unused(f"{name}_unrounded", self._taken)
                self._cast(made.output[index], halved, self._half, node)
            self._cast(halved, self._widened(name), self._single, node)

    def _exact(self, node: onnx.NodeProto) -> bool:
        if node.op_type in ("Constant", "ConstantOfShape"):
            return True
        return node.op_type in EXACT and not any(name and self._type(name, node) == self._single for name in node.input)

    def _type(self, name: str, node: onnx.NodeProto) -> int:
        found = self._types.get(name, 0)
        if not found:
            where = node.name or node.op_type
            raise InputError(f"the type of {name}, which {where} reads or makes, cannot be inferred", remedy="export it again")
        return found

    def _widened(self, name: str) -> str:
        """What readers of an FP16 tensor read: its own name, but for one that must stay FP16 at the graph's end."""
        if name in self._ends:
            self._instead[name] = unused(f"{name}_widened", self._taken)
        return self._instead.get(name, name)

    def _cast(self, source: str, output: str, kind: int, maker: onnx.NodeProto | None) -> None:
        import onnx

        cast = onnx.helper.make_node("Cast", [source], [output], name=unused(f"{output}_cast", self._taken), to=kind)
        if maker is not None:
            cast.metadata_props.extend(maker.metadata_props)
        self._nodes.append(cast)

    def _constant(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """An FP16 constant as FP32 of the same values."""
        from onnx import numpy_helper

        if tensor.data_type != self._half:
            return tensor
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)

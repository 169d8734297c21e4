"""ONNX FP32 to typed FP16: weights and activations are FP16, inputs and outputs stay FP32, and what would overflow stays FP32.

Precision is a property of the graph, not a flag of a builder: TensorRT 11 has only strongly typed networks, and the same file then has the
same types in every runtime. It has not the same arithmetic: in which type the terms of a product are added, no graph says. ONNX Runtime
adds in FP32 on x86-64 and in FP16 on an ARM64 core (docs/adr/0018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from dtvit_deploy.artifacts.graph import inferred, unused
from dtvit_deploy.artifacts.target import Cpu
from dtvit_deploy.export.onnx.modules import module_of, nodes_of
from dtvit_deploy.export.onnx.products import products

LARGEST_FP16 = 65504.0
SMALLEST_FP16 = 2.0**-24
LARGEST_EXPONENT = 11.09
"""exp of which is FP16's largest number."""
TYPED_BY_ATTRIBUTE = frozenset({"Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"})
"""Operators whose output has the type that an attribute says; they stay FP32, and a cast follows."""
HEADROOM = 2.0
"""A tensor is kept in FP32 when its largest magnitude on the feeds comes within this factor of FP16's largest number: the next
image may be brighter."""
SCATTERS = frozenset({"ScatterElements", "ScatterND"})
SQUARED = frozenset({"LpNormalization", "ReduceL2", "ReduceSumSquare"})
"""Operators that TensorRT's parser takes apart into a product, a sum and more, each in the type of the tensor: squares overflow there where
neither end of the operator does (https://github.com/onnx/onnx-tensorrt/blob/release/10.1-GA/onnxOpImporters.cpp). LayerNormalization
stays one layer, with FP32 inside unless its `stash_type` says otherwise (INormalizationLayer in NvInfer.h at v10.3.0)."""


@dataclass(frozen=True)
class Float16:
    """A typed FP16 graph.

    Attributes:
        model: the graph.
        kept: torch modules of which some node stays FP32, with the reason.
        weights: bytes of the constants that nodes read in FP32 because they stay so.
        casts: conversions between tensors of the graph; those of its inputs and outputs do not count.
        macs: share of the multiply–accumulates that stay FP32.
        doubtful: torch modules with FP16 products that would overflow where a CPU adds in FP16, with the reason.
    """

    model: onnx.ModelProto
    kept: Mapping[str, str]
    weights: int = 0
    casts: int = 0
    macs: float = 0.0
    doubtful: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{module} stays FP32: {reason}" for module, reason in self.kept.items())

    @property
    def cost(self) -> str:
        weights = f"{self.weights / 1e6:.1f} MB" if self.weights >= 1e5 else f"{self.weights:,} bytes"
        casts = "1 cast" if self.casts == 1 else f"{self.casts} casts"
        return f"{weights} of weights in FP32, {casts} inside, and {self.macs:.1%} of the multiply–accumulates in FP32"


def float16_onnx(
    model: onnx.ModelProto,
    magnitudes: Mapping[str, float],
    keep_fp32: Sequence[str] = (),
    imprecise: Mapping[str, str] | None = None,
    sums: Mapping[str, float] | None = None,
    cpu: Cpu = Cpu.X86_64,
) -> Float16:
    """Convert.

    Not with ONNX Runtime's converter: between two operators that stay FP32 it rounds to FP16 and back, so that what was to be kept
    from overflowing overflows there; and it leaves the nodes in an order that ONNX does not allow.

    Args:
        model: the simplified FP32 graph, or that with Q/DQ in scales that FP16 has; it is not changed.
        magnitudes: greatest |x| of each tensor on real feeds, by tensor name; tensors without one are taken to fit.
        keep_fp32: torch modules (their children included) that stay FP32 by the user's wish.
        imprecise: torch modules (not their children) that stay FP32, with the reason.
        sums: what the terms of products add up to at most, by the name of the output; those without one are taken to fit.
        cpu: an ARM64 one adds them in FP16, so that products which would overflow on the way stay FP32.

    Raises:
        InputError: ``keep_fp32`` names a module that made no node.
    """
    source = inferred(model)
    adding = _adding_up(source, sums or {})
    kept = _without_kernel(source) | _overflowing(source, magnitudes) | dict.fromkeys(sorted(nodes_of(source, keep_fp32)), "asked for")
    if cpu is Cpu.ARM64:
        kept = adding | kept
    if imprecise:
        modules = {index: module_of(node) for index, node in enumerate(source.graph.node)}
        kept |= {index: imprecise[module] for index, module in modules.items() if index not in kept and module in imprecise}
    kept = dict(sorted((kept | _dequantized_for(source, kept)).items()))
    typed = _Typed(source)
    for index, node in enumerate(source.graph.node):
        typed.add(node, stays=index in kept)
    reasons: dict[str, str] = {}
    for index, reason in kept.items():
        reasons.setdefault(module_of(source.graph.node[index]), reason)
    work = {index: product.macs for index, product in products(source, 0).items()} if kept else {}
    share = sum(macs for index, macs in work.items() if index in kept) / max(sum(work.values()), 1)
    read = {name for index in kept for name in source.graph.node[index].input}
    weights = sum(
        math.prod(tensor.dims) * 4 for tensor in source.graph.initializer if tensor.name in read and tensor.data_type == TensorProto.FLOAT
    )
    doubtful = {module_of(source.graph.node[index]): reason for index, reason in adding.items() if index not in kept}
    return Float16(typed.model(), reasons, weights, typed.casts, share, doubtful)


class _Typed:
    """The graph while it is rewritten, node by node in its order; every tensor exists in the types that somebody reads it in."""

    def __init__(self, source: onnx.ModelProto) -> None:
        self._source = source
        graph = source.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = dict.fromkeys(info.name for info in graph.output)  # in their order: a set's differs from run to run
        infos = (*graph.input, *graph.output, *graph.value_info)
        self._floats = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self._taken = {info.name for info in infos} | self._constants.keys()
        self._versions: dict[str, dict[int, str]] = {info.name: {TensorProto.FLOAT: info.name} for info in graph.input}
        self._opsets = {opset.domain: opset.version for opset in source.opset_import}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs = {info.name for info in graph.input}
        self.casts = 0
        """Conversions inside."""

    def add(self, node: onnx.NodeProto, *, stays: bool) -> None:
        """Append a node, in FP16 as far as its operator allows it, or in FP32 if it ``stays`` so."""
        typed = onnx.NodeProto()
        typed.CopyFrom(node)
        schema = onnx.defs.get_schema(node.op_type, self._opsets[node.domain], node.domain)
        allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}

        def kind(formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> int:
            named = formal[min(index, len(formal) - 1)].type_str  # the last one may stand for any number
            half = not stays and node.op_type not in TYPED_BY_ATTRIBUTE and "tensor(float16)" in allowed.get(named, [named])
            return TensorProto.FLOAT16 if half else TensorProto.FLOAT

        for index, name in enumerate(node.input):
            if name in self._floats:
                typed.input[index] = self._read(name, kind(schema.inputs, index), node)
            elif name in self._constants:
                self._initializers[name] = self._constants[name]
        for index, name in enumerate(node.output):
            if name in self._floats:
                made = kind(schema.outputs, index)
                versions = self._versions.setdefault(name, {})
                typed.output[index] = versions[made] = self._name(name, made)
                for attribute in typed.attribute:
                    if node.op_type == "Cast" and attribute.name == "to":
                        attribute.i = made
        self._nodes.append(typed)

    def model(self) -> onnx.ModelProto:
        """The whole, its outputs FP32 as they were."""
        for name in self._outputs:
            if name in self._floats:
                self._read(name, TensorProto.FLOAT, onnx.NodeProto())
            elif name in self._constants:  # which no node need read
                self._initializers[name] = self._constants[name]
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        graph = model.graph
        for place, values in ((graph.node, self._nodes), (graph.initializer, self._initializers.values())):
            del place[:]
            place.extend(values)
        del graph.value_info[:]
        return inferred(model)

    def _read(self, name: str, kind: int, reader: onnx.NodeProto) -> str:
        """The name of a tensor in that type, converted if it is not there yet."""
        versions = self._versions.setdefault(name, {})
        if kind not in versions:
            versions[kind] = self._name(name, kind)
            if name in self._constants:
                self._initializers[versions[kind]] = _converted(self._constants[name], kind, versions[kind])
            else:
                (source,) = (version for other, version in versions.items() if other != kind)
                cast = onnx.helper.make_node("Cast", [source], [versions[kind]], name=f"{versions[kind]}_cast", to=kind)
                producer = next((node for node in reversed(self._nodes) if source in node.output), reader)
                cast.metadata_props.extend(producer.metadata_props)
                self._nodes.append(cast)
                self.casts += source not in self._inputs and versions[kind] not in self._outputs
        return versions[kind]

    def _name(self, name: str, kind: int) -> str:
        """A tensor keeps its name in the type that it has first; an output of the graph keeps it in FP32."""
        if kind == TensorProto.FLOAT if name in self._outputs else not self._versions[name]:
            return name
        return unused(f"{name}_as_{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}", self._taken)


def _converted(tensor: onnx.TensorProto, kind: int, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16:
        # What keeps a division from 0 must not become 0: 1e-12 as the least value of a norm, say.
        tiny = (values != 0) & (np.abs(values) < SMALLEST_FP16)
        values = np.where(tiny, np.copysign(np.float32(SMALLEST_FP16), values), values).astype(np.float16)
    return numpy_helper.from_array(values, name)


def _overflowing(model: onnx.ModelProto, magnitudes: Mapping[str, float]) -> dict[int, str]:
    """Indexes of the nodes that read or write a tensor too large for FP16."""
    large = {name: size for name, size in magnitudes.items() if not size * HEADROOM < LARGEST_FP16}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            size = float(values[np.isfinite(values)].max(initial=0.0))  # infinities FP16 has
            if size > LARGEST_FP16:
                large[tensor.name] = size
    found: dict[int, str] = {}
    for index, node in enumerate(model.graph.node):
        if inside := _overflows_inside(node, magnitudes):
            found[index] = inside
        for name in (*node.input, *node.output):
            if name in large:
                found[index] = f"|{name}| reaches {large[name]:.3g}, FP16 ends at {LARGEST_FP16:.0f}"
    return found


def _without_kernel(model: onnx.ModelProto) -> dict[int, str]:
    """Indexes of the nodes that ONNX Runtime computes in FP32 alone: a scatter that adds, multiplies or compares."""
    return {
        index: f"ONNX Runtime has no FP16 kernel of {node.op_type} with a reduction"
        for index, node in enumerate(model.graph.node)
        if node.op_type in SCATTERS and any(attribute.name == "reduction" and attribute.s != b"none" for attribute in node.attribute)
    }


def _adding_up(model: onnx.ModelProto, sums: Mapping[str, float]) -> dict[int, str]:
    """Indexes of the products whose terms add up to more than FP16 holds, in some order."""
    found = {}
    for index, node in enumerate(model.graph.node):
        total = sums.get(node.output[0], 0.0) if node.output else 0.0
        if not total * HEADROOM < LARGEST_FP16:
            found[index] = (
                f"the terms of {node.output[0]} add up to {total:.3g}, and an ARM64 core adds in FP16, which ends at {LARGEST_FP16:.0f}"
            )
    return found


def _overflows_inside(node: onnx.NodeProto, magnitudes: Mapping[str, float]) -> str:
    """What an operator computes on the way that FP16 cannot hold; empty if nothing."""
    name, reached = node.input[0] if node.input else "", magnitudes.get(node.input[0], 0.0) if node.input else 0.0
    stash = next((attribute.i for attribute in node.attribute if attribute.name == "stash_type"), 1)
    if node.op_type in SQUARED or (node.op_type == "LayerNormalization" and stash != TensorProto.FLOAT):
        result = magnitudes.get(node.output[0], 0.0)
        total = {"ReduceL2": result**2, "ReduceSumSquare": result}.get(node.op_type, 0.0)
        if not max(reached**2, total) * HEADROOM < LARGEST_FP16:
            return f"{node.op_type} adds squares of {name} up to {max(reached**2, total):.3g}, FP16 ends at {LARGEST_FP16:.0f}"
    if node.op_type == "ReduceLogSumExp" and not reached + math.log(HEADROOM) < LARGEST_EXPONENT:
        return f"ReduceLogSumExp takes exp of {name}, which reaches {reached:.3g}; FP16 ends at exp({LARGEST_EXPONENT:.1f})"
    return ""


def _dequantized_for(model: onnx.ModelProto, kept: Mapping[int, str]) -> dict[int, str]:
    """Indexes of the DequantizeLinear nodes that only nodes in FP32 read.

    They stay FP32 with those: a cast between the two would hide from a compiler that the product is one of integers.
    """
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(model.graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(index)
    found = {}
    for index, node in enumerate(model.graph.node):
        reading = readers.get(node.output[0], []) if node.op_type == "DequantizeLinear" else []
        if reading and index not in kept and all(reader in kept for reader in reading):
            found[index] = kept[reading[0]]
    return found

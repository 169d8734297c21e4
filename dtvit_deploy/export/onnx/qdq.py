"""ONNX FP32 to INT8: QuantizeLinear and DequantizeLinear around the products that gain by it, with ranges that were calibrated before.

A Q/DQ graph says where integers are, and each runtime makes its own INT8 operators of it. They see different patterns, so there is one
layout for each kind of reader, from one range table.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dtvit_deploy.artifacts.graph import inferred, unused
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.integers import (
    LEAST_FP16_SCALE,
    Grid,
    activation_grid,
    fp16_scales,
    quantized_bias,
    quantized_weights,
    weight_scales,
)
from dtvit_deploy.export.onnx.modules import MODULE, module_of, nodes_of
from dtvit_deploy.export.onnx.products import LEAST_MACS, Product, products
from dtvit_deploy.plural import some

VIEWS = frozenset({"Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
"""Operators that pass all values of their first input on: both have one range. A simplifier makes some that the program lacks."""
PARTS = frozenset({"Slice", "Split"})
"""Operators that pass some values on."""
_SHOWN = 3
"""Modules that a note names before it counts the rest."""


class Layout(enum.Enum):
    """Who is to read the graph. Weights are INT8 for each output channel, with zero point 0, in both.

    Time in units of the same runtime's FP32, dualtoken-vit-s-mix, one thread of a CPU with AVX-512 VNNI, interleaved; signal over noise of
    the digits' logits, ranges of least squared error:

    =================================================  ============  ========  =======
    activations, biases                                ONNX Runtime  OpenVINO     SQNR
    =================================================  ============  ========  =======
    UINT8 with a zero point, INT32 bias (``X86``)              0.67      0.64  44.7 dB
    INT8 with zero point 0, INT32 bias                         0.67      0.60  41.5 dB
    INT8 with zero point 0, FP32 bias (``TENSORRT``)           1.52      0.61  42.0 dB
    =================================================  ============  ========  =======

    ONNX Runtime has no INT8 operator for a product whose bias is FP32: it converts the weights back at every run. TensorRT accepts
    nothing but the last line.
    """

    X86 = "x86"
    """ONNX Runtime and OpenVINO. The result of a convolution is INT8 too, since ONNX Runtime has no other INT8 convolution. Without VNNI,
    a CPU adds pairs of products in 16 bits, and saturates where both are large."""
    TENSORRT = "tensorrt"
    """TensorRT 10 and 11, TensorRT-RTX: symmetric INT8, biases in float. OpenVINO takes 5 % less time with it than with ``X86``.

    Every scale is a number that FP16 has too, and the integers were computed with that one: the FP16 pass, which follows for the rest of
    the graph (:mod:`dtvit_deploy.export.onnx.float16`), changes the type of a scale and not its value. So that pass need not know the
    weights that the integers came from, and a module that it leaves in FP32 has the same integers."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Quantized:
    """A graph with INT8 products.

    Attributes:
        model: inputs, outputs and all tensors have the names and types that they had.
        modules: torch modules with INT8 products, in the order of execution, and how many each has.
        notes: what became INT8, and what stays in float for which reason.
    """

    model: onnx.ModelProto
    modules: Mapping[str, int]
    notes: tuple[str, ...]


def quantized_onnx(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    layout: Layout,
    *,
    in_float: Collection[str] = (),
    exactly: bool = False,
    least_macs: int = LEAST_MACS,
) -> Quantized:
    """Quantise.

    Not with ONNX Runtime's writer, which knows no torch modules: it drops the metadata that says where a node comes from, keeps activations
    of its own calibrator, and quantises by operator type or by node name.

    Args:
        model: the simplified FP32 graph; it is not changed.
        ranges: lowest and highest value of each tensor, by its name. A product whose input has none stays in float.
        layout: who is to read the graph.
        in_float: torch modules (their children included) that stay in float.
        exactly: not their children; and those that made no node are no error.
        least_macs: multiply–accumulates below which a product stays in float.

    Raises:
        InputError: ``in_float`` names a module that made no node, or a range is not one.
    """
    source = inferred(model)
    known = _Ranges(source, ranges)
    found = products(source, least_macs)
    chosen = {index for index in found if module_of(source.graph.node[index]) in in_float} if exactly else nodes_of(source, in_float)
    reasons = {index: product.refusal or known.refusal(source.graph.node[index].input[0]) for index, product in found.items()}
    if layout is Layout.TENSORRT:
        reasons |= {index: why for index, product in found.items() if not reasons[index] and (why := known.too_small(product, index))}
    reasons |= dict.fromkeys(chosen & found.keys(), "left in float by choice" if exactly else "asked for")
    rewriting = _Rewriting(source, known, layout)
    modules: dict[str, int] = {}
    for index, node in enumerate(source.graph.node):
        product = None if reasons.get(index, "it is no product") else found[index]
        rewriting.add(index, node, product)
        if product is not None:
            modules[module_of(node)] = modules.get(module_of(node), 0) + 1
    return Quantized(rewriting.model(), modules, _notes(source, found, reasons, "FP32" if layout is Layout.X86 else "in float"))


class _Ranges:
    """The range of every tensor that has one: its own, or that of the tensor which it views."""

    def __init__(self, source: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> None:
        for name, (low, high) in ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InputError(
                    f"the range of {name} is from {low} to {high}, which is none", remedy="calibrate again with `dtvit-deploy calibrate`"
                )
        self._source = source
        self._known = dict(ranges)
        for node in reversed(source.graph.node):
            if node.op_type in VIEWS and node.output[0] in self._known:
                self._known.setdefault(node.input[0], self._known[node.output[0]])
        for node in source.graph.node:
            if node.op_type in VIEWS | PARTS and node.input[0] in self._known:
                for name in node.output:
                    self._known.setdefault(name, self._known[node.input[0]])

    def refusal(self, name: str) -> str:
        """Why a tensor cannot be INT8; empty if it can."""
        if name not in self._known:
            return "no range is known of its input"
        return "" if any(self._known[name]) else "its input was 0 throughout calibration"

    def too_small(self, product: Product, index: int) -> str:
        """Why the scales of a product are none for FP16; empty if they are.

        Of the weights, the largest scale counts: a channel whose own is raised to FP16's least then still is no coarser than it would be
        if all channels had one scale.
        """
        least = 127 * LEAST_FP16_SCALE
        if max(map(abs, self._known[self._source.graph.node[index].input[0]])) < least:
            return f"its input stays below {least:.2g}, too small for an FP16 scale"
        (weights,) = (tensor for tensor in self._source.graph.initializer if tensor.name == product.weights)
        largest = float(np.abs(numpy_helper.to_array(weights)).max(initial=0.0))
        return f"its weights stay below {least:.2g}, too small for FP16 scales" if largest < least else ""

    def grid(self, name: str, layout: Layout) -> Grid:
        found = activation_grid(*self._known[name], symmetric=layout is Layout.TENSORRT)
        return found._replace(scale=np.float32(fp16_scales(np.array(found.scale)))) if layout is Layout.TENSORRT else found


class _Rewriting:
    """The graph while it is rewritten, node by node in its order; a tensor is converted once for all who read it in INT8."""

    def __init__(self, source: onnx.ModelProto, ranges: _Ranges, layout: Layout) -> None:
        self._source, self._ranges, self._layout = source, ranges, layout
        graph = source.graph
        self._arrays = {tensor.name: tensor for tensor in graph.initializer}
        infos = (*graph.input, *graph.output, *graph.value_info)
        self._taken = {info.name for info in infos} | self._arrays.keys() | {name for node in graph.node for name in node.output}
        self._outputs = {info.name for info in graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._dequantized: dict[str, str] = {}
        """Tensor → the same after it went through INT8."""
        self._constants: dict[tuple[str, bytes], str] = {}
        """Constant and scales → its dequantised form."""
        self._instead: dict[str, str] = {}
        """Tensor → what all that come later read in its place."""
        self._biases: dict[tuple[int, int], str] = {}
        """Node and input → the dequantised bias that it reads."""
        self._convolved: set[str] = set()
        """Results of INT8 convolutions, which are INT8 to all that read them."""

    def add(self, index: int, node: onnx.NodeProto, product: Product | None) -> None:
        """Append a node, and before it what its inputs need if it is an INT8 ``product``."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        if product is not None:
            self._quantize(index, made, product)
        for place, name in enumerate(made.input):
            made.input[place] = self._biases.get((index, place)) or self._instead.get(name, name)
        self._nodes.append(made)
        for name in self._convolved.intersection(node.output):
            self._instead[name] = self._converted(name, node)

    def model(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        graph = model.graph
        read = {name for node in self._nodes for name in node.input} | self._outputs
        constants = [tensor for tensor in (*self._arrays.values(), *self._initializers.values()) if tensor.name in read]
        for field, values in ((graph.node, self._nodes), (graph.initializer, constants)):
            del field[:]
            field.extend(values)
        del graph.value_info[:]
        return inferred(model)

    def _quantize(self, index: int, node: onnx.NodeProto, product: Product) -> None:
        data = node.input[0]
        scale = float(self._ranges.grid(data, self._layout).scale)
        node.input[0] = self._converted(data, node)
        weights = numpy_helper.to_array(self._arrays[product.weights])
        bias = None
        if product.bias is not None and self._layout is Layout.X86:
            bias = numpy_helper.to_array(self._arrays[product.bias.name]).ravel()
        scales = weight_scales(weights, product.axis, bias, scale)
        if self._layout is Layout.TENSORRT:
            scales = fp16_scales(scales)
        integers = quantized_weights(weights, product.axis, scales)
        node.input[1] = self._constant(product.weights, integers, scales, product.axis, node)
        if product.bias is not None and bias is not None:
            sums = (scales * np.float32(scale)).astype(np.float32)
            name = self._constant(product.bias.name, quantized_bias(bias, sums), sums, 0, node)
            self._biases[product.bias.node, product.bias.place] = name
        result = product.result
        if node.op_type == "Conv" and self._layout is Layout.X86 and result not in self._outputs and not self._ranges.refusal(result):
            self._convolved.add(result)

    def _converted(self, name: str, reader: onnx.NodeProto) -> str:
        """The name of an activation after QuantizeLinear and DequantizeLinear."""
        if name not in self._dequantized:
            grid = self._ranges.grid(name, self._layout)
            scale = self._keep(f"{name}_scale", np.array(grid.scale))
            zero_point = self._keep(f"{name}_zero_point", np.array(grid.zero_point))
            quantized = self._append("QuantizeLinear", [name, scale, zero_point], f"{name}_quantized", reader)
            self._dequantized[name] = self._append("DequantizeLinear", [quantized, scale, zero_point], f"{name}_dequantized", reader)
        return self._dequantized[name]

    def _constant(self, name: str, integers: NDArray[Any], scales: NDArray[np.float32], axis: int, reader: onnx.NodeProto) -> str:
        """The name of a constant after DequantizeLinear; the same constant in the same scales is stored once."""
        key = name, scales.tobytes()
        if key not in self._constants:
            inputs = [self._keep(f"{name}_quantized", integers), self._keep(f"{name}_scale", scales)]
            # What is no argument is 0, but ONNX Runtime's INT8 Gemm wants to read it.
            inputs.append(self._keep(f"{name}_zero_point", np.zeros(scales.shape, integers.dtype)))
            self._constants[key] = self._append("DequantizeLinear", inputs, f"{name}_dequantized", reader, axis)
        return self._constants[key]

    def _append(self, operator: str, inputs: Sequence[str], output: str, reader: onnx.NodeProto, axis: int | None = None) -> str:
        """A conversion belongs to the module for whose sake it is made: that is what its time is charged to."""
        name = unused(output, self._taken)
        node = onnx.helper.make_node(operator, inputs, [name], name=name, axis=axis)
        module = next((entry.value for entry in reader.metadata_props if entry.key == MODULE), None)
        if module is not None:
            node.metadata_props.add(key=MODULE, value=module)
        self._nodes.append(node)
        return name

    def _keep(self, name: str, values: NDArray[Any]) -> str:
        name = unused(name, self._taken)
        self._initializers[name] = numpy_helper.from_array(values, name)
        return name


def _notes(source: onnx.ModelProto, found: Mapping[int, Product], reasons: Mapping[int, str], rest: str) -> tuple[str, ...]:
    """What became INT8, then each reason with the modules that stay in float for it."""
    work = sum(product.macs for product in found.values())
    done = [product.macs for index, product in found.items() if not reasons[index]]
    share = f", with {sum(done) / work:.1%} of the multiply–accumulates" if work else ""
    products = "convolution or matrix product is" if len(found) == 1 else "convolutions and matrix products are"
    notes = [f"{len(done)} of {len(found)} {products} INT8{share}"]
    for reason in dict.fromkeys(filter(None, reasons.values())):
        nodes = [source.graph.node[index] for index, why in reasons.items() if why == reason]
        modules = list(dict.fromkeys(map(module_of, nodes)))
        notes.append(f"{len(nodes)} {'stays' if len(nodes) == 1 else 'stay'} {rest}, {reason}: {some(modules, _SHOWN)}")
    return tuple(notes)

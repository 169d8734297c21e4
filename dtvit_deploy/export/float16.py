"""ONNX FP32 to typed FP16: weights and activations are FP16, inputs and outputs stay FP32, and what would overflow stays FP32.

Precision is a property of the graph, not a flag of a builder: TensorRT 11 has only strongly typed networks, and the same file then
means the same arithmetic in every runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx import module_of

LARGEST_FP16 = 65504.0
HEADROOM = 2.0
"""A tensor is kept in FP32 when its largest magnitude on the feeds comes within this factor of FP16's largest number: the next
image may be brighter."""


@dataclass(frozen=True)
class Float16:
    """A typed FP16 graph.

    Attributes:
        model: the graph.
        kept: torch modules of which some node stays FP32, with the reason.
    """

    model: onnx.ModelProto
    kept: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{module} stays FP32: {reason}" for module, reason in self.kept.items())


def float16_onnx(model: onnx.ModelProto, magnitudes: Mapping[str, float], keep_fp32: Sequence[str] = ()) -> Float16:
    """Convert.

    Args:
        model: the simplified FP32 graph; it is not changed.
        magnitudes: greatest |x| of each tensor on real feeds, by tensor name; tensors without one are taken to fit.
        keep_fp32: torch modules (their children included) that stay FP32 by the user's wish.

    Raises:
        InputError: ``keep_fp32`` names a module that made no node.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    source = onnx.ModelProto()
    source.CopyFrom(model)
    for index, node in enumerate(source.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    kept = _overflowing(source, magnitudes) | _chosen(source, keep_fp32)
    by_name = {node.name: node for node in source.graph.node}
    typed = convert_float_to_float16(source, keep_io_types=True, node_block_list=list(kept), op_block_list=[])
    _name_casts(typed, by_name)
    modules: dict[str, str] = {}
    for name, reason in kept.items():
        modules.setdefault(module_of(by_name[name]), reason)
    return Float16(typed, modules)


def _chosen(model: onnx.ModelProto, keep_fp32: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for wish in keep_fp32:
        prefix = wish.removesuffix(".") + "."
        found = {node.name: "asked for" for node in model.graph.node if (module_of(node) + ".").startswith(prefix)}
        if not found:
            known = sorted({module_of(node) for node in model.graph.node if not module_of(node).startswith("(")})
            raise InputError(
                f"no node comes from a module {wish!r}, so nothing there can stay FP32",
                remedy="modules with nodes: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else ""),
            )
        chosen |= found
    return chosen


def _overflowing(model: onnx.ModelProto, magnitudes: Mapping[str, float]) -> dict[str, str]:
    """Nodes that read or write a tensor too large for FP16."""
    large = {name: size for name, size in magnitudes.items() if not size * HEADROOM < LARGEST_FP16}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            size = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if size > LARGEST_FP16:
                large[tensor.name] = size
    found: dict[str, str] = {}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if name in large:
                found[node.name] = f"|{name}| reaches {large[name]:.3g}, FP16 ends at {LARGEST_FP16:.0f}"
    return found


def _name_casts(model: onnx.ModelProto, known: Mapping[str, onnx.NodeProto]) -> None:
    """A cast that conversion added belongs to the module of the node whose tensor it casts, or of the one that it casts for."""
    producer = {output: node for node in model.graph.node for output in node.output}
    consumer = {name: node for node in reversed(model.graph.node) for name in node.input}
    for node in model.graph.node:
        if node.name in known or node.metadata_props:
            continue
        neighbour = producer.get(node.input[0]) or consumer.get(node.output[0])
        if neighbour is not None:
            node.metadata_props.extend(neighbour.metadata_props)

"""A typed FP16 graph that ONNX Runtime loads on every CPU: operators whose FP16 kernels for ARM64 are missing or wrong compute in FP32.

A cast before and one after such a node, and nothing else, changes. Where there is no such kernel, as on x86-64, ONNX Runtime inserts those
casts by itself, so that they cost nothing there. TensorRT has FP16 pools that are right, and a DLA has nothing else: graphs for them are
left as they are.

Not a depth-wise convolution with weights of 1/n: it sums in FP16 on ARM64, and most 1/n are no FP16 numbers. Not a mean over a reshaped
view: there is one only for windows that do not overlap, and OpenVINO has no fast kernel for it.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx
from onnx import TensorProto

from dtvit_deploy.artifacts.graph import inferred, unused
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.plural import some

UNSURE = frozenset({"AveragePool", "GlobalAveragePool", "Erf"})
"""Operators that never compute in FP16: see `lint.RULES` for what each does there."""
WITH_INDICES = frozenset({"MaxPool"})
"""Operators that do, unless somebody reads their second output, which the FP16 kernel leaves unset."""


class Portable(NamedTuple):
    """A graph, and what was changed in it.

    Attributes:
        model: the graph given where nothing was changed.
        changed: operators of the nodes that compute in FP32 now, by torch module, in the order of execution.
    """

    model: onnx.ModelProto
    changed: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.changed:
            return ()
        operators = ", ".join(sorted(set(self.changed.values())))
        where = some(self.changed, 3, "module")
        return (f"{operators} in {where}: FP32 between two casts, since ONNX Runtime has no sound FP16 kernel for it on ARM64",)


def portable_onnx(model: onnx.ModelProto) -> Portable:
    """The same arithmetic without the operators that ONNX Runtime cannot compute in FP16 on an ARM64 core.

    Args:
        model: a typed graph; it is not changed.

    Returns:
        Nodes keep their names and modules, tensors their names and types.

    Raises:
        InputError: types in the graph cannot be inferred.
    """
    source = inferred(model)
    infos = (*source.graph.input, *source.graph.output, *source.graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in source.graph.initializer}
    taken = types.keys() | {name for node in source.graph.node for name in (node.name, *node.output)}
    read = {name for node in source.graph.node for name in node.input} | {info.name for info in source.graph.output}
    nodes: list[onnx.NodeProto] = []
    changed: dict[str, str] = {}

    def cast(source: str, output: str, kind: int, maker: onnx.NodeProto) -> onnx.NodeProto:
        made = onnx.helper.make_node("Cast", [source], [output], name=unused(f"{output}_cast", taken), to=kind)
        made.metadata_props.extend(maker.metadata_props)
        return made

    for node in source.graph.node:
        indices = node.op_type in WITH_INDICES and any(name in read for name in node.output[1:])
        halves = [index for index, name in enumerate(node.input) if types.get(name) == TensorProto.FLOAT16]
        if node.domain or not halves or not (indices or node.op_type in UNSURE):
            nodes.append(node)
            continue
        wide = onnx.NodeProto()
        wide.CopyFrom(node)
        for index in halves:
            wide.input[index] = unused(f"{node.input[index]}_as_fp32", taken)
            nodes.append(cast(node.input[index], wide.input[index], TensorProto.FLOAT, node))
        nodes.append(wide)
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                wide.output[index] = unused(f"{name}_as_fp32", taken)
                nodes.append(cast(wide.output[index], name, TensorProto.FLOAT16, node))
        changed.setdefault(module_of(node), node.op_type)
    if not changed:
        return Portable(model, {})
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(nodes)
    return Portable(inferred(made), changed)

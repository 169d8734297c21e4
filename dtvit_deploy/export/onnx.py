"""An exported program to ONNX.

Opset 20: the first in which GELU is one operator (FP16 then rounds once, not five times), and the newest that all four readers take:
TensorRT 10 (10.6 documents opsets 9 to 22), TensorRT 11 (9 to 25), ONNX Runtime and OpenVINO. See docs/adr/0003.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import torch

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.program import Program, node_map, uncollected
from dtvit_deploy.export.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

    from dtvit_deploy.nodes import NodeMap

OPSET = 20
MODULE = "module"
"""Key of the node metadata that names the torch module."""
LARGEST = 2**31 - (1 << 20)
"""Bytes: protobuf ends at 2 GiB. A light network is a hundredth of that."""


def onnx_from_program(program: Program) -> tuple[onnx.ModelProto, Program]:
    """Translate; every node carries the torch module that it comes from.

    Returns:
        The graph, and the program as it was decomposed for it: the two share the names of their tensors.

    Raises:
        InputError: an operator has no translation, or the weights exceed one protobuf.
    """
    weights = sum(tensor.nbytes for tensor in program.exported.state_dict.values())
    if weights > LARGEST:
        raise InputError(f"the weights are {weights / 2**30:.1f} GiB; one ONNX file holds less than 2 GiB")
    names = program.signature
    try:
        with quiet(), uncollected():
            translated = torch.onnx.export(
                program.exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in names.inputs],
                output_names=[spec.name for spec in names.outputs],
                external_data=False,
                optimize=False,
                verbose=False,
            )
            assert translated is not None
            _tidy(translated.model)
    except Exception as error:  # the exporter raises whatever its translation functions raise
        raise InputError(
            f"the program cannot be translated to ONNX opset {OPSET}: {str(error).strip().splitlines()[0] if str(error) else error!r}",
            remedy="replace the operator that it names in your network; --debug shows the exporter's report",
        ) from error
    assert translated.exported_program is not None
    decomposed = translated.exported_program
    kept = replace(program, exported=decomposed, nodes=node_map(decomposed))
    model = translated.model_proto
    name_nodes(model, kept.nodes)
    return model, kept


def _tidy(model: ir.Model) -> None:
    """Inline, fold constants, lift them to initializers.

    The exporter's own optimisation also tries every rewrite rule on every node, which takes a quarter of an export and finds nothing
    that onnxsim does not find afterwards: the simplified graphs are the same.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript.optimizer import fold_constants_ir

    common.InlinePass()(model)
    fold_constants_ir(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # it declares no types
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
    )(model)


def name_nodes(model: onnx.ModelProto, nodes: NodeMap) -> None:
    """Write each node's torch module into its metadata, in place of the exporter's notes, which hold paths of this machine.

    A node that the program does not know by its output's name (a folded transpose, say) belongs to the module of the first
    consumer that it does know, since that is whose arithmetic it serves.
    """
    consumer: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        for name in node.input:
            consumer.setdefault(name, node)

    def module(node: onnx.NodeProto) -> str | None:
        seen = 0
        at: onnx.NodeProto | None = node
        while at is not None and seen < 8:
            for output in at.output:
                if known := nodes.get(output):
                    return known.module
            at, seen = consumer.get(at.output[0]), seen + 1
        return None

    found = [module(node) for node in model.graph.node]
    for node, path in zip(model.graph.node, found, strict=True):
        del node.metadata_props[:]
        node.doc_string = ""
        if path is not None:
            node.metadata_props.add(key=MODULE, value=path)
    for info in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        info.doc_string = ""
        if hasattr(info, "metadata_props"):
            del info.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    model.producer_name, model.producer_version = "dtvit-deploy", ""


def module_of(node: onnx.NodeProto) -> str:
    """The torch module that a node names, as a person would write it."""
    path = next((entry.value for entry in node.metadata_props if entry.key == MODULE), None)
    return "(no module)" if path is None else path or "(the network itself)"

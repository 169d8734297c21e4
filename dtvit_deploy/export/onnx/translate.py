"""An exported program to ONNX.

Opset 20: the first in which GELU is one operator (FP16 then rounds once, not five times), and the newest that all four readers take:
TensorRT 10 (10.6 documents opsets 9 to 22), TensorRT 11 (9 to 25), ONNX Runtime and OpenVINO. See docs/adr/0003.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import onnx
import torch

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.modules import name_nodes
from dtvit_deploy.export.program import Program, node_map, place_of
from dtvit_deploy.process.quiet import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

    from dtvit_deploy.artifacts.nodes import NodeMap

OPSET = 20
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
    inputs, outputs = [spec.name for spec in names.inputs], [spec.name for spec in names.outputs]
    try:
        with quiet():
            translated = torch.onnx.export(
                program.exported,
                dynamo=True,
                opset_version=OPSET,
                # Names that no inner tensor can have: the exporter gives two tensors one name without a word.
                input_names=[f"/input/{index}" for index in range(len(inputs))],
                output_names=[f"/output/{index}" for index in range(len(outputs))],
                external_data=False,
                optimize=False,
                verbose=False,
            )
            assert translated is not None
            _tidy(translated.model)
    except Exception as error:  # the exporter raises whatever its translation functions raise
        raise InputError(
            f"the program cannot be translated to ONNX opset {OPSET}{place_of(error)}: {_reason(error, program.nodes)}",
            remedy="replace the operator that it names in your network; --debug shows the exporter's report",
        ) from error
    assert translated.exported_program is not None
    decomposed = translated.exported_program
    model = translated.model_proto
    _leave_defaults_out(model)
    moved = _name_ends(model, inputs, outputs)
    for node in decomposed.graph.nodes:
        if node.op == "call_function" and node.name in moved and node.name not in decomposed.graph_signature.user_outputs:
            node._rename(moved[node.name])
    kept = replace(program, exported=decomposed, nodes=node_map(decomposed))
    name_nodes(model, kept.nodes)
    return model, kept


def functional(program: Program) -> Program:
    """The program as it is kept where ONNX lacks an operator of it, and nothing has decomposed it on the way there."""
    with quiet():
        decomposed = program.exported.run_decompositions()
    return replace(program, exported=decomposed, nodes=node_map(decomposed))


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
        common.OutputFixPass(),  # an input or one tensor that is two outputs goes through an Identity
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # it declares no types
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
    )(model)


def _leave_defaults_out(model: onnx.ModelProto) -> None:
    """Say nothing where the default says it, of attributes whose words TensorRT's parser does not know.

    Opset 20 calls GridSample's default ``linear`` and opset 16 ``bilinear``: a parser that knows the older word alone takes the newer one
    for ``nearest``, and its own default for what is meant (:mod:`dtvit_deploy.export.tensorrt.spellings`).
    """
    for node in model.graph.node:
        if node.op_type == "GridSample":
            kept = [attribute for attribute in node.attribute if (attribute.name, attribute.s) != ("mode", b"linear")]
            del node.attribute[:]
            node.attribute.extend(kept)


def _reason(error: BaseException, nodes: NodeMap) -> str:
    """What the innermost error says, and the module of the node that the exporter was at."""
    where = ""
    while error.__cause__ is not None:
        error = error.__cause__
        node = re.search(r"translating node %(\w+)", str(error))
        if node and nodes.get(node[1]):
            where = f" (in {nodes.module_of(node[1])})"
    return next(iter(str(error).strip().splitlines()), repr(error)) + where


def _name_ends(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Give inputs and outputs their names; an inner tensor that has one of them steps aside.

    Returns:
        The new names of such inner tensors.
    """
    graph = model.graph
    ends = {info.name: name for info, name in zip((*graph.input, *graph.output), (*inputs, *outputs), strict=True)}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {tensor.name for tensor in graph.initializer}
    moved: dict[str, str] = {}
    for name in taken.intersection(ends.values()) - ends.keys():
        moved[name] = next(free for index in count() if (free := f"{name}_inner{index or ''}") not in taken)
    renamed = ends | moved
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        info.name = renamed.get(info.name, info.name)
    return moved

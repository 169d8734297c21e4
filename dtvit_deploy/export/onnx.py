"""An exported program to ONNX.

Opset 20: the first in which GELU is one operator (FP16 then rounds once, not five times), and the newest that all four readers take:
TensorRT 10 (10.6 documents opsets 9 to 22), TensorRT 11 (9 to 25), ONNX Runtime and OpenVINO. See docs/adr/0003.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx
import torch

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.export.program import Program
    from dtvit_deploy.nodes import NodeMap

OPSET = 20
MODULE = "module"
"""Key of the node metadata that names the torch module."""
LARGEST = 2**31 - (1 << 20)
"""Bytes: protobuf ends at 2 GiB. A light network is a hundredth of that."""


def onnx_from_program(program: Program) -> onnx.ModelProto:
    """Translate; every node carries the torch module that it comes from.

    Raises:
        InputError: an operator has no translation, or the weights exceed one protobuf.
    """
    weights = sum(tensor.nbytes for tensor in program.exported.state_dict.values())
    if weights > LARGEST:
        raise InputError(f"the weights are {weights / 2**30:.1f} GiB; one ONNX file holds less than 2 GiB")
    names = program.signature
    try:
        with _quiet():
            translated = torch.onnx.export(
                program.exported,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in names.inputs],
                output_names=[spec.name for spec in names.outputs],
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its translation functions raise
        raise InputError(
            f"the program cannot be translated to ONNX opset {OPSET}: {str(error).strip().splitlines()[0] if str(error) else error!r}",
            remedy="replace the operator that it names in your network; --debug shows the exporter's report",
        ) from error
    assert translated is not None
    model = translated.model_proto
    name_nodes(model, program.nodes)
    return model


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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's progress lines and its warnings about packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

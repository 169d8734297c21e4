"""Which torch module each node of an ONNX graph comes from: written into its metadata, and read again without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.nodes import NETWORK, NO_MODULE
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.nodes import NodeMap

MODULE = "module"
"""Key of the node metadata that names the torch module."""


def name_nodes(model: onnx.ModelProto, nodes: NodeMap) -> None:
    """Write each node's torch module into its metadata, in place of the exporter's notes, which hold paths of this machine.

    A node whose output the program does not know by name (a folded transpose, say, or a product that was merged with the reshape that
    follows it) belongs to the module whose arithmetic the first consumer's tensor holds, since that is what it serves.
    """
    ends = dict(zip((info.name for info in model.graph.output), nodes.outputs, strict=False))
    consumer: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        for name in node.input:
            consumer.setdefault(name, node)
    present = {ends.get(name, name) for node in model.graph.node for name in node.output}

    def module(node: onnx.NodeProto) -> str | None:
        at, seen = node, 0
        while seen < 8:
            for output in at.output:
                name = ends.get(output, output)
                if known := nodes.maker(name, present) if seen else nodes.get(name):
                    return known.module
            following = next((consumer[output] for output in at.output if output in consumer), None)
            if following is None:
                break
            at, seen = following, seen + 1
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
    return NO_MODULE if path is None else path or NETWORK


def nodes_of(model: onnx.ModelProto, modules: Iterable[str]) -> frozenset[int]:
    """Indexes of the nodes of torch modules, their children included, that are to stay as they are.

    Raises:
        InputError: a module made no node.
    """
    paths = [module_of(node) for node in model.graph.node]
    found: set[int] = set()
    for wish in modules:
        prefix = wish.removesuffix(".") + "."
        mine = {index for index, path in enumerate(paths) if (path + ".").startswith(prefix)}
        if not mine:
            known = sorted({path for path in paths if not path.startswith("(")})
            raise InputError(
                f"no node comes from a module {wish!r}, so nothing there can stay FP32",
                remedy="modules with nodes: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else ""),
            )
        found |= mine
    return frozenset(found)

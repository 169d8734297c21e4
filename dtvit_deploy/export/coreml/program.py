"""What coremltools takes of an exported program, which is not all that torch writes: nodes put as it wants them, and numbered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def has_translation(operator: Any) -> bool:
    """Whether coremltools has a translation for an operator, or :func:`_undo` makes one that it has of it."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    name = operator.name() if hasattr(operator, "name") else operator.__name__
    return (
        name in ("prims::var", "prims::broadcast_in_dim", "prims::convert_element_type") or _TORCH_OPS_REGISTRY.get_func(name) is not None
    )


def prepared(exported: ExportedProgram) -> Sequence[torch.fx.Node]:
    """Make a program what coremltools takes, number its nodes, and return them in that order.

    ``run_decompositions({})``, which coremltools asks for, takes three seconds and changes nothing here but to drop unused outputs.
    """
    graph = exported.graph_module.graph
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if str(node.target).startswith("aten.max_pool") and len(node.args) == 2:
            node.args = (*node.args, node.args[1])  # torch's default, without which coremltools refuses the node
        elif str(node.target).startswith("prims."):
            _undo(node)
        elif str(node.target) == "aten.clone.default" and any(user.op == "output" for user in node.users):
            _keep(node)
    nodes = list(graph.nodes)
    for number, node in enumerate(nodes):
        node.meta["debug_handle"] = number  # every MIL operator carries that of the node it was made for, through all passes
    return nodes


def _keep(node: Any) -> None:
    """Make a copy that is an output a view of the same size: coremltools passes copies over, and one tensor cannot be two outputs."""
    import torch

    (source, *_), shape = node.args, list(node.meta["val"].shape)
    if shape:
        node.target, node.args, node.kwargs = torch.ops.aten.view.default, (source, shape), {}


def _undo(node: Any) -> None:
    """Make a node again what the ONNX exporter, which has no variance, decomposed, and coremltools has."""
    import torch

    from dtvit_deploy.export.rewrites.editor import arguments

    given = arguments(node)
    if node.target is torch.ops.prims.var.default:
        options = {"correction": given["correction"]}
        node.target, node.args, node.kwargs = torch.ops.aten.var.correction, (given["inp"], given["dims"]), options
    elif node.target is torch.ops.prims.convert_element_type.default:
        node.target, node.args, node.kwargs = torch.ops.aten._to_copy.default, (given["a"],), {"dtype": given["dtype"]}
    elif node.target is torch.ops.prims.broadcast_in_dim.default:
        source, shape = given["a"], given["shape"]
        if math.prod(source.meta["val"].shape) == math.prod(shape):  # else it repeats, and more than axes of one are to be made
            node.target, node.args, node.kwargs = torch.ops.aten.view.default, (source, shape), {}

"""An operator that a translator lacks, as torch itself writes it with simpler ones.

Matches what the translator says it does not know and torch has a decomposition of, again and again until nothing does. Exact: torch's
own definitions, which its compiler uses, and which it tests against its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from dtvit_deploy.export.rewrites.editor import Editor

aten: Any = torch.ops.aten
DEEPEST = 8
"""Rounds: what one operator is written with may be unknown too."""
LOGICAL = {
    aten.bitwise_and.Tensor: aten.logical_and.default,
    aten.bitwise_or.Tensor: aten.logical_or.default,
    aten.bitwise_xor.Tensor: aten.logical_xor.default,
    aten.bitwise_not.default: aten.logical_not.default,
}
"""Bit by bit and as truth values are the same where a value has one bit."""


def decompose(exported: ExportedProgram, is_known: Callable[[Any], bool]) -> bool:
    """Write what a translator lacks with other operators, in place; a program that torch has made functional.

    Args:
        exported: the program.
        is_known: whether the translator has an operator.

    Returns:
        Whether anything was rewritten.
    """
    edit, changed = Editor(exported), False
    for _ in range(DEEPEST):
        unknown = [node for node in edit.graph.nodes if node.op == "call_function" and _has_definition(node) and not is_known(node.target)]
        written = [_write_out(edit, node, is_known) for node in unknown]
        changed = changed or any(written)
        if not any(written):
            break
    if changed:
        edit.finish()
    return changed


def _has_definition(node: Node) -> bool:
    """One answer, and a definition: torch's, or that torch composes the operator of others whenever it is called."""
    composed = isinstance(node.target, OpOverload) and node.target._can_decompose()
    return isinstance(node.meta.get("val"), torch.Tensor) and (node.target in decomposition_table or _is_logical(node) or composed)


def _is_logical(node: Node) -> bool:
    return node.target in LOGICAL and all(source.meta["val"].dtype is torch.bool for source in (node, *node.all_input_nodes))


def _write_out(edit: Editor, node: Node, is_known: Callable[[Any], bool]) -> bool:
    """Write a node out, unless that takes an operator that is neither known nor written with others: the node's own name tells more."""
    target: Any = node.target
    function: Any = LOGICAL[target] if _is_logical(node) else decomposition_table.get(target, target)
    sources = node.all_input_nodes

    def answer(*tensors: torch.Tensor) -> Any:
        given = dict(zip(sources, tensors, strict=True))
        return function(*torch.fx.map_arg(node.args, given.__getitem__), **torch.fx.map_arg(node.kwargs, given.__getitem__))

    with edit.fake:
        traced = make_fx(answer)(*(source.meta["val"] for source in sources))
    needed = [one for one in traced.graph.nodes if one.op == "call_function" and isinstance(one.target, OpOverload)]
    if not all(is_known(one.target) or one.target in decomposition_table or one.target._can_decompose() for one in needed):
        return False
    with edit.before(node):
        made = edit.inline(traced, sources)
    if made in sources:
        edit.replace(node, made)
    else:
        edit.become(node, made)
    return True

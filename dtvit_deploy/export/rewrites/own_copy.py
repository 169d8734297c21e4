"""A network that works in place on its inputs or its buffers works on copies of them.

Matches placeholders that an operator writes to, itself or by a view of them. Exact: what a network answers to one call is the same, and
nobody sees what it wrote. That state which moves on from call to call changes no answer was checked before, with the network itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor


def copy_what_is_written(edit: Editor) -> None:
    written = {root for node in edit.graph.nodes for root in _written(node)}
    for node in [node for node in edit.graph.nodes if node in written]:
        first = next(after for after in edit.graph.nodes if after.op != "placeholder")
        readers = dict.fromkeys(node.users)
        with edit.before(first, like=next(iter(readers))):
            copied = edit.call(torch.ops.aten.clone.default, node)
        for reader in readers:
            reader.replace_input_with(node, copied)
    if written:
        (end,) = (node for node in edit.graph.nodes if node.op == "output")
        edit.set_outputs(list(end.args[0]))


def _written(node: Node) -> set[Node]:
    """Placeholders whose memory an operator writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return set()
    return {root for source in _aliased(node, writing=True) for root in _roots(source)}


def _roots(node: Node) -> set[Node]:
    """Placeholders whose memory a node's value may be in."""
    found, left, seen = set(), [node], set()
    while left:
        at = left.pop()
        if at.op == "placeholder":
            found.add(at)
        elif at not in seen:
            left += _aliased(at) if getattr(at.target, "_schema", None) else at.all_input_nodes  # else one of several answers is taken
        seen.add(at)
    return found


def _aliased(node: Node, *, writing: bool = False) -> list[Node]:
    """Inputs of an operator that share memory with its answer, or that it writes to."""
    target: Any = node.target
    known = target._schema.arguments
    values = dict(zip((argument.name for argument in known), node.args, strict=False)) | node.kwargs
    found: list[Node] = []
    for argument in known:
        alias = argument.alias_info
        if alias is not None and (alias.is_write or not writing):
            torch.fx.map_arg(values.get(argument.name), found.append)
    return found

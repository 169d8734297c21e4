"""What depends on parameters, buffers and constants alone becomes a constant.

Matches operators that are fed with nothing else, on the way to one that is fed with more. Exact: it is computed by torch, with the
operators of the network, as it would be in every call; what is written into in place is left as it is, and so is what shares its memory.
Weight, spectral and orthogonal parametrizations, standardised weights and masks end here, whose operators a translator may not have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor
from dtvit_deploy.export.rewrites.memory import written

LARGEST = 1 << 20
"""Values of a constant that is made of smaller ones; an expanded mask is better left to the runtime than written out."""


def fold(edit: Editor) -> None:
    held = edit.held()
    values: dict[Node, Any] = dict(held)
    changing = written(edit.graph)
    for node in edit.graph.nodes:
        if (
            node.op == "call_function"
            and node not in changing
            and not _is_random(node)
            and all(source in values for source in node.all_input_nodes)
        ):
            values[node] = _computed(node, values)
    folded = [node for node in values if node not in held and _is_read_by_more(node, values) and _is_worth_it(node, values)]
    for node in folded:
        edit.replace(node, edit.constant(values[node].detach().contiguous().clone(), "folded"))
    if folded:
        _erase_unread(edit)
        edit.drop_unread(list(held))


def _computed(node: Node, values: dict[Node, Any]) -> Any:
    target: Any = node.target
    with torch.no_grad():
        return target(*torch.fx.map_arg(node.args, values.__getitem__), **torch.fx.map_arg(node.kwargs, values.__getitem__))


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_read_by_more(node: Node, values: dict[Node, Any]) -> bool:
    return any(user.op == "call_function" and user not in values for user in node.users)


def _is_worth_it(node: Node, values: dict[Node, Any]) -> bool:
    value = values[node]
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    given = sum(values[source].numel() for source in node.all_input_nodes if isinstance(values[source], torch.Tensor))
    return bool(value.numel() <= max(given, LARGEST))


def _erase_unread(edit: Editor) -> None:
    for node in reversed(list(edit.graph.nodes)):
        if node.op == "call_function" and not node.users and not node.is_impure():
            edit.graph.erase_node(node)

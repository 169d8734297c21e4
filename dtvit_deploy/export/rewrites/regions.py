"""What runs in a region without gradients, or with autocast off, stands in the network itself.

Matches the regions that torch makes of ``with torch.enable_grad()`` and ``with torch.autocast(…, enabled=False)``, each a graph of its own
that no other rewrite would look into. Exact: an exported program computes no gradients, and nothing around it casts.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor


def inline_regions(edit: Editor) -> None:
    while regions := [node for node in edit.graph.nodes if _body(node) is not None]:
        for node in regions:
            _inline(edit, node)


def _body(node: Node) -> tuple[Node, tuple[Any, ...]] | None:
    """The graph of a region, and what it is called with; None for any other node."""
    higher = torch.ops.higher_order
    if node.target is higher.wrap_with_set_grad_enabled:
        _, body, *inputs = node.args
    elif node.target is higher.wrap_with_autocast and not node.args[2]:
        *_, body = node.args[:5]
        inputs = list(node.args[5:])
    else:
        return None
    assert isinstance(body, Node)
    return body, tuple(inputs)


def _inline(edit: Editor, node: Node) -> None:
    found = _body(node)
    assert found is not None
    body, inputs = found
    outside = edit.exported.graph_module
    inside = getattr(outside, str(body.target))
    for each in inside.graph.nodes:
        if each.op == "get_attr":  # a region in this one: its graph comes along, under a name that is no other's
            held_as, each.target = each.target, f"{body.target}_{each.target}"
            setattr(outside, each.target, getattr(inside, held_as))
    inner = inside.graph
    held = dict(zip((one for one in inner.nodes if one.op == "placeholder"), inputs, strict=True))
    with edit.before(node):
        answers: Any = edit.graph.graph_copy(inner, held)
    for user in list(node.users):
        assert user.target is operator.getitem
        edit.replace(user, answers[user.args[1]])
    edit.graph.erase_node(node)
    if not body.users:
        edit.graph.erase_node(body)
        delattr(outside, str(body.target))

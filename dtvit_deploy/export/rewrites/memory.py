"""Which nodes of a traced program share memory, and which of that an operator writes into.

torch's schemas say it: of a view that its answer lies in its input, of an operator in place that it writes there. A few that answer with
what they were given, as dropout does in eval, say nothing, and are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, Node

HANDING_ON = frozenset(
    {
        *("alpha_dropout", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "cartesian_prod", "dropout", "einsum"),
        *("feature_alpha_dropout", "feature_dropout", "meshgrid", "pad", "type_as"),
    }
)
"""Operators that may answer with an input, or with a view of one, although their schemas do not say so."""


def written_by(node: Node) -> list[Node]:
    """Inputs that a node writes into; those that are views of others write there too."""
    return _annotated(node, writing=True)


def lying_in(node: Node) -> list[Node]:
    """Inputs that a node's value, or a part of it, may lie in."""
    if node.op != "call_function":
        return []
    packet = getattr(getattr(node.target, "overloadpacket", None), "__name__", None)
    if packet is None or packet in HANDING_ON:  # without a schema one of several answers is taken
        return list(node.all_input_nodes)
    return _annotated(node)


def sources(nodes: Iterable[Node]) -> set[Node]:
    """Nodes in whose memory others lie, those others included."""
    found, left = set(), list(nodes)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += lying_in(node)
    return found


def written(graph: Graph) -> set[Node]:
    """Nodes whose memory is written into at some time, by whatever name: themselves, what they lie in, and what lies in that."""
    found = sources(source for node in graph.nodes for source in written_by(node))
    for node in graph.nodes:
        if any(source in found for source in lying_in(node)):
            found.add(node)
    return found


def _annotated(node: Node, *, writing: bool = False) -> list[Node]:
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    values = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    found: list[Node] = []
    for argument in schema.arguments:
        alias = argument.alias_info
        if alias is not None and (alias.is_write or not writing):
            torch.fx.map_arg(values.get(argument.name), found.append)
    return found

"""A tensor of one value, made like another tensor, as that value at its size.

Matches ``zeros_like``, ``new_full`` and their kin: Core ML's converter gives what they make the other tensor's type, whatever was asked
for, so that zeros in the shape of a mask became a mask. Exact: of the other tensor they take nothing but its size and, where none was
given, its type, both of which are known. What is filled with a computed number is left alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments, shape_of

aten: Any = torch.ops.aten
TARGETS = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)


def filled(edit: Editor, node: Node) -> Node | None:
    """The answer of a node in other operators, or None where it is left alone."""
    given, shape, name = arguments(node), shape_of(node), str(node.target)
    value = given.get("fill_value", 1 if "ones" in name else 0)
    if isinstance(value, Node):
        return None
    one = edit.constant(torch.full([1] * len(shape), value, dtype=node.meta["val"].dtype), "filled")
    return edit.call(aten.clone.default, edit.call(aten.expand.default, one, list(shape)))  # a copy, for whoever writes into it

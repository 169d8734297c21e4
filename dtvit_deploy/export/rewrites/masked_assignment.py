"""One value, assigned where a mask says so, as a choice between the two.

Matches ``x[mask] = value`` with one mask and one value: torch writes it as an assignment by index, for which the places are counted first,
so that a shape depends on data. Exact: every element is either the value or what it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments, shape_of

aten: Any = torch.ops.aten
TARGETS = (aten.index_put_.default, aten.index_put.default)


def choice_by_mask(edit: Editor, node: Node) -> Node | None:
    """The answer of a node in other operators, or None where it assigns by index, or several values."""
    given = arguments(node)
    source, places, value = given["self"], given["indices"], given["values"]
    if given["accumulate"] or len(places) != 1 or places[0].meta["val"].dtype is not torch.bool or value.meta["val"].numel() != 1:
        return None
    (mask,) = places
    if missing := len(shape_of(source)) - len(shape_of(mask)):
        mask = edit.call(aten.reshape.default, mask, [*shape_of(mask), *[1] * missing])
    if shape_of(value):
        value = edit.call(aten.reshape.default, value, [])
    fill = aten.masked_fill_.Tensor if node.target is aten.index_put_.default else aten.masked_fill.Tensor
    return edit.call(fill, source, mask, value)

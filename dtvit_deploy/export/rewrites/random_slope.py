"""A leaky ReLU whose slope is random in training, as the plain one that it is in eval.

Matches ``rrelu`` in eval. Exact: torch's documentation gives it the middle of its range as the slope there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments

aten: Any = torch.ops.aten
TARGETS = (aten.rrelu.default,)


def fixed_slope(edit: Editor, node: Node) -> Node | None:
    """The answer of a node in other operators, or None where it is random."""
    given = arguments(node)
    if given["training"]:
        return None
    return edit.call(aten.leaky_relu.default, given["self"], (float(given["lower"]) + float(given["upper"])) / 2)

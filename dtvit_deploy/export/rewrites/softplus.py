"""Softplus with a steepness or a threshold of its own, and the logarithm of a sigmoid, as a plain softplus.

Matches ``log_sigmoid``, which Core ML's converter lacks: −softplus(−x) by definition. And softplus with β other than 1 or a threshold
other than 20, neither of which that converter takes into account. Exact: torch's definition, log(1 + exp(β·x)) ÷ β, and x itself where β·x
exceeds the threshold; at 20 and above the two are the same number in FP32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments

aten: Any = torch.ops.aten
TARGETS = (aten.softplus.default,)
LOGARITHMS = (aten.log_sigmoid.default,)
ALIKE = 20.0
"""From here on log(1 + exp(x)) is x in FP32."""


def plain_softplus(edit: Editor, node: Node) -> Node | None:
    """The answer of a node in other operators, or None where it is plain already."""
    given = arguments(node)
    source, beta, threshold = given["self"], float(given["beta"]), float(given["threshold"])
    if beta == 1 and threshold == ALIKE:
        return None
    steep = edit.call(aten.mul.Scalar, source, beta)
    smooth = edit.call(aten.div.Scalar, edit.call(aten.softplus.default, steep), beta)
    if threshold >= ALIKE:
        return smooth
    return edit.call(aten.where.self, edit.call(aten.gt.Scalar, steep, threshold), source, smooth)


def log_sigmoid(edit: Editor, node: Node) -> Node:
    """The answer of a node in other operators."""
    turned = edit.call(aten.neg.default, arguments(node)["self"])
    return edit.call(aten.neg.default, edit.call(aten.softplus.default, turned))

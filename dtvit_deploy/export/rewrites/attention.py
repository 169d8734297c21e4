"""Scaled dot-product attention as what torch computes, in operators that mean the same everywhere.

Matches attention with a mask, a causal one too, with fewer heads of keys than of queries, and of any rank but four: translators disagree
about these, and a row that may look at nothing became the mean of all values, or no number, where torch answers with 0. Attention over
everything, in four axes, is left to the translators. Exact: the formula of torch's documentation, the scale applied to the queries, and of
torch's own ``_safe_softmax`` for rows that are masked as a whole. What may not be looked at gets a score of -30,000, not of minus infinity:
its weight is 0 all the same (unless everything that may be looked at scores below -29,890), FP16 holds it twice, nothing is NaN on the
way, and accelerators that are said to get a softmax over infinities wrong see none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from dtvit_deploy.export.rewrites.editor import Editor, arguments, shape_of

aten: Any = torch.ops.aten
MASKED = -30000.0
"""The score of what may not be looked at."""
LOWEST = torch.finfo(torch.float32).min
TARGETS = (aten.scaled_dot_product_attention.default,)


def spell_out_attention(edit: Editor, node: Node) -> Node | None:
    """The answer of a node in other operators, or None where it is left alone."""
    given = arguments(node)
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    causal, grouped = given["is_causal"], given.get("enable_gqa", False) and shape_of(query)[-3] != shape_of(key)[-3]
    if given["dropout_p"] or (mask is None and not causal and not grouped and all(len(shape_of(one)) == 4 for one in (query, key, value))):
        return None
    if grouped:
        key, value = (_repeated(edit, one, shape_of(query)[-3] // shape_of(one)[-3]) for one in (key, value))
    held = None if mask is None else edit.held().get(mask)
    if causal:
        held = torch.ones(shape_of(query)[-2], shape_of(key)[-2], dtype=torch.bool).tril()
    scale = given["scale"] if given["scale"] is not None else 1 / math.sqrt(shape_of(query)[-1])
    scaled = edit.call(aten.mul.Scalar, query, scale)
    scores = edit.call(aten.matmul.default, scaled, edit.call(aten.transpose.int, key, -2, -1))
    if held is not None and held.dtype is torch.bool:
        weights = _masked_always(edit, scores, held)
    elif mask is None:
        weights = edit.call(aten.softmax.int, scores, -1)
    elif mask.meta["val"].dtype is torch.bool:
        weights = _masked(edit, scores, mask)
    elif held is not None and _only_infinities_mask(held):
        finite = held.masked_fill(held.isneginf(), 0.0)
        scores = edit.call(aten.add.Tensor, scores, edit.constant(finite, "bias")) if finite.any() else scores
        weights = _masked_always(edit, scores, ~held.isneginf())
    else:
        weights = _biased(edit, edit.call(aten.add.Tensor, scores, mask), mask)
    return edit.call(aten.matmul.default, weights, value)


def _repeated(edit: Editor, one: Node, times: int) -> Node:
    """Each head as often as queries share it."""
    *before, heads, length, width = shape_of(one)
    apart = edit.call(aten.unsqueeze.default, one, len(before) + 1)
    several = edit.call(aten.expand.default, apart, [*before, heads, times, length, width])
    return edit.call(aten.reshape.default, several, [*before, heads * times, length, width])


def _masked_always(edit: Editor, scores: Node, allowed: torch.Tensor) -> Node:
    """Softmax under a constant mask."""
    some = allowed.any(-1, keepdim=True)
    if allowed.all():
        return edit.call(aten.softmax.int, scores, -1)
    weights = _softmax_of_allowed(edit, scores, edit.constant(allowed, "mask"))
    return weights if some.all() else _or_zero(edit, weights, edit.constant(some, "mask"))


def _masked(edit: Editor, scores: Node, allowed: Node) -> Node:
    """Softmax under a mask that depends on data."""
    return _or_zero(edit, _softmax_of_allowed(edit, scores, allowed), edit.call(aten.any.dim, allowed, -1, True))


def _biased(edit: Editor, scores: Node, bias: Node) -> Node:
    """Softmax of scores with a bias by data: no score is lower than that of what may not be looked at.

    A row of minus infinities answers 0. One of FP32's lowest numbers answers the mean, as in torch, which cannot tell them apart either.
    A row that is biased by some -100,000 as a whole is first raised to where its greatest score is 0, which changes no weight.
    Where the network itself writes minus infinity, a row's greatest score is compared with a number: OpenVINO has none of it in FP16.
    """
    least = MASKED if _writes_infinity(edit, bias) else -math.inf
    greatest = edit.call(aten.amax.default, scores, [-1], True)
    some = edit.call(aten.gt.Scalar, greatest, least)
    if least != MASKED:  # else such a row answers 0
        scores = edit.call(aten.sub.Tensor, scores, edit.call(aten.clamp.default, greatest, LOWEST, 0.0))
    finite = edit.call(aten.maximum.default, scores, edit.constant(torch.tensor(MASKED), "masked"))
    return _or_zero(edit, edit.call(aten.softmax.int, finite, -1), some)


def _writes_infinity(edit: Editor, bias: Node) -> bool:
    """Whether minus infinity is among what a bias is made of, as a number or in a constant."""
    held, left, seen = edit.held(), [bias], set()
    while left:
        node = left.pop()
        numbers = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, float)]
        if -math.inf in numbers or (node in held and held[node].is_floating_point() and bool(held[node].isneginf().any())):
            return True
        seen.add(node)
        # What is written into a tensor in place is among its readers.
        left += [one for one in (*node.all_input_nodes, *_writers(node)) if one not in seen]
    return False


def _writers(node: Node) -> list[Node]:
    return [user for user in node.users if getattr(getattr(user.target, "_schema", None), "is_mutable", False)]


def _softmax_of_allowed(edit: Editor, scores: Node, allowed: Node) -> Node:
    low = edit.constant(torch.tensor(MASKED), "masked")
    return edit.call(aten.softmax.int, edit.call(aten.where.self, allowed, scores, low), -1)


def _or_zero(edit: Editor, weights: Node, some: Node) -> Node:
    """The weights of rows that may look at something; torch's answer is 0 for others."""
    return edit.call(aten.where.self, some, weights, edit.constant(torch.tensor(0.0), "zero"))


def _only_infinities_mask(bias: torch.Tensor) -> bool:
    """Whether a bias says by minus infinity alone what may not be looked at: nothing else in it is that low."""
    return bool((bias.isneginf() | (bias > MASKED / 10)).all())

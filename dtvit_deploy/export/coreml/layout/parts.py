"""Operators that cut tensors apart or put them together, on tensors that are held in another order than they are shown in."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from dtvit_deploy.export.coreml.layout.ops import BINARY, ELEMENTWISE, as_it_was, constants, is_constant
from dtvit_deploy.export.coreml.layout.rewriting import Rewriting, Rule
from dtvit_deploy.formats.mlpackage.views import Atom, Group, Groups, View, flat, fresh, matched


def _alone(on: Rewriting, view: View, group: Group) -> View | None:
    """Held with a group as an axis of its own, where that takes at most a merge of the two axes behind the channels."""
    if view.repeated or not group:
        return None
    if view.axis_of(group) is not None:
        return view
    if len(view.held) == 4 and view.held[2] + view.held[3] == group:
        return on.hold(view, (view.held[0], view.held[1], (), group))
    return None


def _split(on: Rewriting, op: Any) -> Sequence[View]:
    given = constants(op, "x")
    if given is None or is_constant(op.inputs["x"]):
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    shown = int(given["axis"]) % len(x.shown)
    parts = [int(old.shape[shown]) for old in op.outputs]
    if (width := _width_of_heads(op, shown)) and (headed := _headed(on, x, x.shown[shown], width)) is not None:
        made = on.emit("split", op, x=headed.value, split_sizes=[part // width for part in parts], axis=1)
        pairs = [fresh([part // width, width]) for part in parts]
        views = [
            View(var, (headed.held[0], *pair, headed.held[3]), _put(headed.shown, shown, flat(pair)))
            for var, pair in zip(made, pairs, strict=True)
        ]
    elif (alone := _alone(on, x, x.shown[shown])) is not None:
        axis = alone.axis_of(alone.shown[shown])
        assert axis is not None
        made = on.emit("split", op, x=alone.value, split_sizes=parts, axis=axis)
        groups = fresh(parts)
        views = [View(var, _put(alone.held, axis, group), _put(alone.shown, shown, group)) for var, group in zip(made, groups, strict=True)]
    else:
        return as_it_was(on, op)
    return [on.named(old, view) for view, old in zip(views, op.outputs, strict=True)]


def _width_of_heads(op: Any, axis: int) -> int:
    """Channels of each head, where all parts of a split are cut in heads of one width; 0 where they are not."""
    found = {_width_after(part, axis) for part in op.outputs}
    return found.pop() if len(found) == 1 else 0


def _width_after(var: Any, axis: int) -> int:
    size, before = int(var.shape[axis]), prod(var.shape[:axis])
    while len(var.child_ops) == 1:
        (reader,) = var.child_ops
        made = reader.outputs[0]
        if reader.op_type == "reshape":
            shape = list(map(int, made.shape))
            starts = [place for place in range(len(shape) - 1) if prod(shape[:place]) == before and prod(shape[place : place + 2]) == size]
            return shape[starts[-1] + 1] if starts and shape[starts[-1] + 1] > 1 else 0
        if tuple(made.shape) != tuple(var.shape) or reader.op_type not in (*ELEMENTWISE, *BINARY):
            return 0
        var = made
    return 0


def _headed(on: Rewriting, x: View, group: Group, width: int) -> View | None:
    """Held as (batch, heads, channels of a head, tokens), which all the parts are to be: moved once, and not each part by itself."""
    if len(group) != 1 or len(x.held) != 4 or x.held[1] != group or x.repeated or group[0].size % width or group[0].size == width:
        return None
    heads, channels = group[0].split(group[0].size // width)
    x = x.split(group[0], group[0].size // width)
    return on.hold(x, (x.held[0], (heads,), (channels,), x.held[2] + x.held[3]))


def _put(groups: Groups, axis: int, group: Group) -> Groups:
    return (*groups[:axis], group, *groups[axis + 1 :])


def _concat(on: Rewriting, op: Any) -> Sequence[View]:
    values = op.inputs["values"]
    given = constants(op, "values")
    if given is None or bool(given.get("interleave", False)) or any(map(is_constant, values)):
        return as_it_was(on, op)
    views = [on.of(var) for var in values]
    shown = int(given["axis"]) % len(views[0].shown)
    base = next((alone for view in views if (alone := _alone(on, view, view.shown[shown])) is not None), None)
    if base is None:
        return as_it_was(on, op)
    others = [axis for axis in range(len(base.shown)) if axis != shown]
    for view in views:  # every cut that any of them needs
        pair = matched(base, view, [(axis, axis) for axis in others])
        if pair is None:
            return as_it_was(on, op)
        base = pair[0]
    axis = base.axis_of(base.shown[shown])
    assert axis is not None
    held = []
    for view in views:
        pair = matched(base, view, [(other, other) for other in others])
        if pair is None or pair[0] != base:
            return as_it_was(on, op)
        partner = {atom: mine for other in others for atom, mine in zip(base.shown[other], pair[1].shown[other], strict=True)}
        wanted = [
            tuple(partner[atom] for atom in group) if place != axis else pair[1].shown[shown] for place, group in enumerate(base.held)
        ]
        held.append(on.hold(pair[1], tuple(wanted)).value)
    merged = (Atom(int(op.outputs[0].shape[shown])),)
    return [on.result(op, "concat", _put(base.held, axis, merged), _put(base.shown, shown, merged), values=held, axis=axis)]


PARTS: dict[str, Rule] = {"split": _split, "concat": _concat}

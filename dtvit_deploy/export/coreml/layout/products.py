"""Products in the Neural Engine's order: a linear over channels is a 1×1 convolution, and a matrix product needs no transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtvit_deploy.export.coreml.layout.ops import as_it_was, is_constant
from dtvit_deploy.export.coreml.layout.rewriting import Rewriting, Rule
from dtvit_deploy.formats.mlpackage.views import Atom, Group, Groups, View, flat, fresh, matched


def linear(on: Rewriting, op: Any) -> Sequence[View]:
    x, weight, bias = on.of(op.inputs["x"]), op.inputs["weight"], op.inputs.get("bias")
    if not is_constant(weight) or (bias is not None and not is_constant(bias)) or len(x.shown) < 3 or x.repeated:
        return as_it_was(on, op)
    taken, made = x.shown[-1], fresh([int(weight.shape[0])])[0]
    given = {"weight": on.constant(weight), "bias": on.constant(bias) if bias is not None else None}
    if _mixes_tokens(x, taken):
        x = on.hold(x, (x.held[0], x.held[1], (), taken))
        return [on.result(op, "linear", (*x.held[:3], made), (*x.shown[:-1], made), x=x.value, **given)]
    x = on.hold(x, on.channels_first(x))
    kernel = on.kernel(weight)
    held = (x.held[0], made, *x.held[2:])
    how = {"strides": [1, 1], "pad_type": "valid", "dilations": [1, 1], "groups": 1}
    return [on.result(op, "conv", held, (*x.shown[:-1], made), x=x.value, **given | {"weight": kernel}, **how)]


def _mixes_tokens(x: View, taken: Group) -> bool:
    """Whether what is summed over lies behind the channels, where no convolution of size 1 would reach it."""
    return len(x.held) == 4 and bool(x.held[1]) and bool(taken) and x.held[2] + x.held[3] == taken


def matmul(on: Rewriting, op: Any) -> Sequence[View]:
    """Rows and columns may be held either way round; which, the product's own flags say."""
    one, other = (on.of(op.inputs[name]) for name in "xy")
    flags = [bool(op.inputs[name].val) if op.inputs.get(name) is not None else False for name in ("transpose_x", "transpose_y")]
    rank = len(op.outputs[0].shape)
    if len(one.shown) != rank or len(other.shown) != rank or rank < 3 or one.repeated or other.repeated:
        return as_it_was(on, op)
    if flags[0]:
        one = one.transposed([*range(rank - 2), rank - 1, rank - 2])
    if flags[1]:
        other = other.transposed([*range(rank - 2), rank - 1, rank - 2])
    batch = [axis for axis in range(rank - 2) if one.shown[axis] and other.shown[axis]]
    pair = matched(one, other, [(axis, axis) for axis in batch] + [(rank - 1, rank - 2)])
    if pair is None:
        return as_it_was(on, op)
    one, other = pair
    x, turned_x = _factor(on, one)
    y, turned_y = _factor(on, other)
    outer = tuple(mine or theirs for mine, theirs in zip(one.shown[:-2], other.shown[:-2], strict=True))
    rows = one.shown[-2]
    columns = tuple(Atom(atom.size) for atom in other.shown[-1])  # queries and keys are often views of one tensor, and of one axis
    shown = (*outer, rows, columns)
    given = {"x": x.value, "y": y.value, "transpose_x": turned_x, "transpose_y": turned_y}
    held: Groups = shown
    if _columns_first(other):
        given = {"x": y.value, "y": x.value, "transpose_x": not turned_y, "transpose_y": not turned_x}
        held = (*outer, columns, rows)
    return [on.result(op, "matmul", held, shown, **given)]


def _factor(on: Rewriting, view: View) -> tuple[View, bool]:
    """Held as a product takes it, and whether the two last axes are the other way round."""
    turned = (*view.shown[:-2], view.shown[-1], view.shown[-2])
    if on.cost(view, turned) < on.cost(view, view.shown):
        return on.hold(view, turned), True
    return on.plain(view), False


def _columns_first(values: View) -> bool:
    """Whether the right factor has its columns before its rows, as channels are before tokens: so will the product have."""
    order = flat(values.held)
    columns, rows = values.shown[-1], values.shown[-2]
    return bool(columns and rows) and order.index(columns[0]) < order.index(rows[0])


PRODUCTS: dict[str, Rule] = {"linear": linear, "matmul": matmul}

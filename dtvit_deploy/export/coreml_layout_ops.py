"""How each operator computes on tensors that are held in another order than they are shown in.

A rule gives the views of an operator's outputs. It may ask for its inputs in an order that suits it; where it cannot know that what it
writes is equal, it hands over to :func:`as_it_was`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.coreml.views import Atom, Group, Groups, View, flat, fresh, matched
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.export.coreml_layout import Rewriting

    Rule = Callable[[Rewriting, Any], Sequence[View]]

RULES: dict[str, Rule] = {}
ELEMENTWISE = (
    *("abs", "acos", "asin", "atan", "atanh", "cast", "ceil", "clip", "clamped_relu", "cos", "cosh", "elu", "erf", "exp", "exp2", "floor"),
    *("gelu", "identity", "inverse", "leaky_relu", "linear_activation", "log", "logical_not", "relu", "relu6", "round", "rsqrt"),
    *("scaled_tanh", "sigmoid", "sigmoid_hard", "sign", "silu", "sin", "sinh", "softplus", "softsign", "sqrt", "square", "tan", "tanh"),
    *("threshold", "thresholded_relu"),
)
BINARY = ("add", "floor_div", "maximum", "minimum", "mod", "mul", "pow", "real_div", "sub")
REDUCTIONS = tuple(
    "reduce_" + name for name in ("l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square")
)


def _rule(*kinds: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def is_constant(var: Any) -> bool:
    return var is not None and var.op is not None and var.op.op_type == "const"


def as_it_was(on: Rewriting, op: Any) -> list[View]:
    """The operator itself, on inputs in the order that it was written for."""
    given: dict[str, Any] = {}
    for name, value in op.inputs.items():
        if value is None:
            continue
        several = [_given(on, one) for one in value] if isinstance(value, (list, tuple)) else _given(on, value)
        given[name] = several
    made = on.emit(op.op_type, op, **given)
    several = list(made) if isinstance(made, (list, tuple)) else [made]
    for var, old in zip(several, op.outputs, strict=True):
        var.name = old.name
    return [View.plain(var, fixed(var)) for var in several]


def _given(on: Rewriting, var: Any) -> Any:
    if not is_constant(var):
        return on.plain(on.of(var)).value
    large = isinstance(var.val, np.ndarray) and var.val.size > 1 and var.val.dtype.kind == "f"
    return on.constant(var) if large or isinstance(var.val, list) else var.val


def _constants(op: Any, *but: str) -> dict[str, Any] | None:
    """Values of all other inputs; None where one is no constant."""
    others = {name: value for name, value in op.inputs.items() if name not in but and value is not None}
    return {name: value.val for name, value in others.items()} if all(map(is_constant, others.values())) else None


def fixed(var: Any) -> tuple[int, ...]:
    """The sizes of a tensor; none of what is no tensor.

    Raises:
        InputError: one of them is known at run time alone.
    """
    from coremltools.converters.mil.mil import types

    if not types.is_tensor(var.sym_type):  # a number, or a class label and the probabilities of all
        return ()
    shape = tuple(var.shape)
    if not all(isinstance(size, (int, np.integer)) for size in shape):
        raise InputError(f"the shape of {var.name} is not fixed")
    return tuple(int(size) for size in shape)


@_rule(*ELEMENTWISE)
def _elementwise(on: Rewriting, op: Any) -> Sequence[View]:
    given = _constants(op, "x")
    if given is None or is_constant(op.inputs["x"]) or any(np.size(value) != 1 for value in given.values()):
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    return [on.result(op, op.op_type, x.held, x.shown, x=x.value, **given)]


@_rule("reshape", "expand_dims", "squeeze")
def _reshape(on: Rewriting, op: Any) -> Sequence[View]:
    if is_constant(op.inputs["x"]):
        return as_it_was(on, op)
    x, shape = on.of(op.inputs["x"]), tuple(map(int, op.outputs[0].shape))
    if (view := x.reshaped(shape)) is not None:
        return [view]
    x = on.plain(x)  # an axis is cut where it has no factor: only what is held in order can be
    held = fresh(shape)
    return [on.result(op, "reshape", held, held, x=x.value, shape=list(shape))]


@_rule("transpose")
def _transpose(on: Rewriting, op: Any) -> Sequence[View]:
    x = on.of(op.inputs["x"])
    return [x.transposed([int(axis) % len(x.shown) for axis in op.inputs["perm"].val])]


@_rule("tile")
def _tile(on: Rewriting, op: Any) -> Sequence[View]:
    reps = op.inputs["reps"]
    if not is_constant(reps) or is_constant(op.inputs["x"]):
        return as_it_was(on, op)
    x, counts = on.of(op.inputs["x"]), [int(count) for count in reps.val]
    if any(count > 1 and group for group, count in zip(x.shown, counts, strict=True)):
        return as_it_was(on, op)
    shown = tuple((Atom(count),) if count > 1 else group for group, count in zip(x.shown, counts, strict=True))
    return [View(x.value, x.held, shown)]


@_rule(*BINARY)
def _binary(on: Rewriting, op: Any) -> Sequence[View]:
    x, y = op.inputs["x"], op.inputs["y"]
    if is_constant(x) and is_constant(y):
        return as_it_was(on, op)
    if is_constant(x) or is_constant(y):
        return _with_constant(on, op, "y" if is_constant(y) else "x")
    one, other = on.of(x), on.of(y)
    rank = len(op.outputs[0].shape)
    one, other = _ranked(one, rank), _ranked(other, rank)
    both = [axis for axis in range(rank) if one.shown[axis] and other.shown[axis]]
    pair = matched(one, other, [(axis, axis) for axis in both])
    if pair is None:
        return as_it_was(on, op)
    one, other = pair
    choices = []
    for name, base, rest in (("x", one, other), ("y", other, one)):
        wanted = _like(base, rest, both)
        if wanted is not None and base.shape == tuple(op.outputs[0].shape) and not base.repeated:
            choices.append((on.cost(rest, wanted), not _is_image(base), name, base, rest, wanted))
    if not choices:
        return as_it_was(on, op)
    _, _, name, base, rest, wanted = min(choices, key=lambda choice: choice[:3])
    rest = on.hold(rest, wanted)
    given = {"x": base.value, "y": rest.value} if name == "x" else {"x": rest.value, "y": base.value}
    return [on.result(op, op.op_type, base.held, base.shown, **given)]


def _ranked(view: View, rank: int) -> View:
    return View(view.value, view.held, ((),) * (rank - len(view.shown)) + view.shown)


def _is_image(view: View) -> bool:
    return len(view.held) == 4 and bool(view.held[1])


def _like(base: View, rest: View, axes: Sequence[int]) -> Groups | None:
    """How ``rest`` must be held to be broadcast against ``base``, whose axes were matched with its own; None if no order does it."""
    partner = {atom: mine for axis in axes for atom, mine in zip(base.shown[axis], rest.shown[axis], strict=True)}
    own = set(flat(rest.held))
    groups: list[Group] = []
    for held in base.held:
        has = [atom in partner and partner[atom] in own for atom in held]
        if any(has) and not all(has):
            return None
        groups.append(tuple(partner[atom] for atom in held) if all(has) else ())
    return tuple(groups) if set(flat(groups)) == own else None


def _with_constant(on: Rewriting, op: Any, name: str) -> Sequence[View]:
    constant, other = op.inputs[name], "x" if name == "y" else "y"
    x = on.of(op.inputs[other])
    value = np.asarray(constant.val)
    if value.size > 1 and (tuple(op.outputs[0].shape) != x.shape or x.repeated):
        return as_it_was(on, op)
    x = _ranked(x, len(op.outputs[0].shape))
    turned = constant.val if value.size == 1 else arranged(value, x)
    return [on.result(op, op.op_type, x.held, x.shown, **{name: turned, other: x.value})]


def arranged(value: NDArray[Any], like: View) -> NDArray[Any]:
    """A constant of a view's shown shape, or one that broadcasts to it, in the order in which the view is held."""
    value = value.reshape((1,) * (len(like.shown) - value.ndim) + value.shape)
    order = flat(like.shown)
    full = [count > 1 for count in map(int, value.shape)]
    apart = value.reshape([atom.size if whole else 1 for group, whole in zip(like.shown, full, strict=True) for atom in group])
    turned = apart.transpose([order.index(atom) for atom in flat(like.held)])
    at, shape = 0, []
    for group in like.held:
        here = turned.shape[at : at + len(group)]
        whole = prod(here) > 1
        if whole:
            wide = list(turned.shape)
            wide[at : at + len(group)] = [atom.size for atom in group]
            turned = np.broadcast_to(turned, wide)
        shape.append(prod(atom.size for atom in group) if whole else 1)
        at += len(group)
    return np.ascontiguousarray(turned.reshape(shape))


@_rule("layer_norm")
def _layer_norm(on: Rewriting, op: Any) -> Sequence[View]:
    given = _constants(op, "x")
    if given is None or "axes" not in given:
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    normed = sorted(int(axis) % len(x.shown) for axis in given["axes"])
    atoms = flat(x.shown[axis] for axis in normed)
    axes = x.axes_of(atoms)
    if not axes and atoms and not x.repeated and normed == [len(x.shown) - 1] and len(x.shown) > 2:
        x = on.hold(x, on.channels_first(x))
        axes = x.axes_of(atoms)
    if not atoms or not axes or x.repeated or normed != [int(axis) % len(x.shown) for axis in given["axes"]]:
        return as_it_was(on, op)
    part = View(None, tuple(x.held[axis] for axis in axes), tuple(x.shown[axis] for axis in normed))
    scales = {name: arranged(np.asarray(given[name]), part) for name in ("gamma", "beta") if name in given}
    rest = {name: value for name, value in given.items() if name == "epsilon"}
    return [on.result(op, "layer_norm", x.held, x.shown, x=x.value, axes=axes, **scales, **rest)]


@_rule("softmax")
def _softmax(on: Rewriting, op: Any) -> Sequence[View]:
    if (given := _constants(op, "x")) is None:
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    group = x.shown[int(given.get("axis", -1)) % len(x.shown)]
    axis = x.axis_of(group)
    if axis is None or x.repeated:
        return as_it_was(on, op)
    return [on.result(op, "softmax", x.held, x.shown, x=x.value, axis=axis)]


@_rule(*REDUCTIONS)
def _reduce(on: Rewriting, op: Any) -> Sequence[View]:
    given = _constants(op, "x")
    if given is None or given.get("axes") is None:
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    gone = {int(axis) % len(x.shown) for axis in given["axes"]}
    atoms = flat(x.shown[axis] for axis in gone)
    axes = x.axes_of(atoms)
    if not axes or x.repeated:
        return as_it_was(on, op)
    keeps = bool(given.get("keep_dims", False))
    shown = tuple(() if axis in gone else group for axis, group in enumerate(x.shown) if keeps or axis not in gone)
    left = tuple(group for group in x.held if group and not set(group).issubset(atoms))
    if left == shown and len(shown) < 3:  # axes of size 1 may go as well, and nothing is left to be reshaped
        every = [axis for axis, group in enumerate(x.held) if group not in shown or not group]
        return [on.result(op, op.op_type, shown, shown, x=x.value, axes=every, keep_dims=False)]
    held = tuple(() if axis in axes else group for axis, group in enumerate(x.held))
    return [on.result(op, op.op_type, held, shown, x=x.value, axes=axes, keep_dims=True)]


def _alone(on: Rewriting, view: View, group: Group) -> View | None:
    """Held with a group as an axis of its own, where that takes at most a merge of the two axes behind the channels."""
    if view.repeated or not group:
        return None
    if view.axis_of(group) is not None:
        return view
    if len(view.held) == 4 and view.held[2] + view.held[3] == group:
        return on.hold(view, (view.held[0], view.held[1], (), group))
    return None


@_rule("split")
def _split(on: Rewriting, op: Any) -> Sequence[View]:
    given = _constants(op, "x")
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


@_rule("concat")
def _concat(on: Rewriting, op: Any) -> Sequence[View]:
    values = op.inputs["values"]
    given = _constants(op, "values")
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

"""How each operator computes on tensors that are held in another order than they are shown in.

A rule gives the views of an operator's outputs. It may ask for its inputs in an order that suits it; where it cannot know that what it
writes is equal, it hands over to :func:`as_it_was`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.export.coreml.layout.rewriting import Rewriting, Rule, fixed
from dtvit_deploy.formats.mlpackage.views import Atom, Group, Groups, View, flat, fresh, matched

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def rule(*kinds: str) -> Callable[[Rule], Rule]:
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


def constants(op: Any, *but: str) -> dict[str, Any] | None:
    """Values of all other inputs; None where one is no constant."""
    others = {name: value for name, value in op.inputs.items() if name not in but and value is not None}
    return {name: value.val for name, value in others.items()} if all(map(is_constant, others.values())) else None


@rule(*ELEMENTWISE)
def _elementwise(on: Rewriting, op: Any) -> Sequence[View]:
    given = constants(op, "x")
    if given is None or is_constant(op.inputs["x"]) or any(np.size(value) != 1 for value in given.values()):
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    return [on.result(op, op.op_type, x.held, x.shown, x=x.value, **given)]


@rule("reshape", "expand_dims", "squeeze")
def _reshape(on: Rewriting, op: Any) -> Sequence[View]:
    if is_constant(op.inputs["x"]):
        return as_it_was(on, op)
    x, shape = on.of(op.inputs["x"]), tuple(map(int, op.outputs[0].shape))
    if (view := x.reshaped(shape)) is not None:
        return [view]
    x = on.plain(x)  # an axis is cut where it has no factor: only what is held in order can be
    held = fresh(shape)
    return [on.result(op, "reshape", held, held, x=x.value, shape=list(shape))]


@rule("transpose")
def _transpose(on: Rewriting, op: Any) -> Sequence[View]:
    x = on.of(op.inputs["x"])
    return [x.transposed([int(axis) % len(x.shown) for axis in op.inputs["perm"].val])]


@rule("tile")
def _tile(on: Rewriting, op: Any) -> Sequence[View]:
    reps = op.inputs["reps"]
    if not is_constant(reps) or is_constant(op.inputs["x"]):
        return as_it_was(on, op)
    x, counts = on.of(op.inputs["x"]), [int(count) for count in reps.val]
    if any(count > 1 and group for group, count in zip(x.shown, counts, strict=True)):
        return as_it_was(on, op)
    shown = tuple((Atom(count),) if count > 1 else group for group, count in zip(x.shown, counts, strict=True))
    return [View(x.value, x.held, shown)]


@rule(*BINARY)
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


@rule("layer_norm")
def _layer_norm(on: Rewriting, op: Any) -> Sequence[View]:
    given = constants(op, "x")
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


@rule("softmax")
def _softmax(on: Rewriting, op: Any) -> Sequence[View]:
    if (given := constants(op, "x")) is None:
        return as_it_was(on, op)
    x = on.of(op.inputs["x"])
    group = x.shown[int(given.get("axis", -1)) % len(x.shown)]
    axis = x.axis_of(group)
    if axis is None or x.repeated:
        return as_it_was(on, op)
    return [on.result(op, "softmax", x.held, x.shown, x=x.value, axis=axis)]


@rule(*REDUCTIONS)
def _reduce(on: Rewriting, op: Any) -> Sequence[View]:
    given = constants(op, "x")
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

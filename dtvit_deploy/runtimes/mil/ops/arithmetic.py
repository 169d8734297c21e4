"""Operators that compute each element from the elements at its place: one, two with broadcasting, a condition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dtvit_deploy.runtimes.mil.call import Bound, Call, op
from dtvit_deploy.runtimes.mil.program import FLOATS, HELD

Tensor = torch.Tensor

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": lambda x: torch.where(x != x, x, torch.sign(x)),
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
"""``round`` takes ties to even, as numpy's does in the reference's value inference; the ``sign`` of NaN is NaN, where torch has 0."""

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}
"""``mod`` has the sign of the divisor, as Python's has."""


@op(*UNARY)
def unary(call: Call) -> Bound:
    return call.on(UNARY[call.type], "x")


@op(*BINARY)
def binary(call: Call) -> Bound:
    return call.on(BINARY[call.type], "x", "y")


@op("real_div")
def real_div(call: Call) -> Bound:
    if call.output.dtype not in FLOATS:
        raise call.error("the quotient of integers has no documented rounding")
    return call.on(torch.div, "x", "y")


@op("exp2")
def exp2(call: Call) -> Bound:
    held = call.held
    return call.on(lambda x: torch.exp2(x).to(held), "x")


def epsilon_of(call: Call, default: float) -> float:
    """The small constant of an operator; its default is rounded to the type of ``x``, where 1e-45 is 0 in FP16."""
    kind = HELD[call.required("x").type.dtype].numpy
    return float(call.value("epsilon", float(np.asarray(default, kind))))


@op("inverse")
def inverse(call: Call) -> Bound:
    epsilon = epsilon_of(call, 1e-4)
    return call.on(lambda x: torch.reciprocal(x + epsilon), "x")


@op("log")
def log(call: Call) -> Bound:
    epsilon = epsilon_of(call, 1e-45)
    return call.on(lambda x: torch.log(x + epsilon), "x") if epsilon else call.on(torch.log, "x")


@op("rsqrt")
def rsqrt(call: Call) -> Bound:
    epsilon = epsilon_of(call, 1e-12)
    return call.on(lambda x: torch.rsqrt(x + epsilon), "x")


@op("clip")
def clip(call: Call) -> Bound:
    low, high = call.value("alpha"), call.value("beta")
    return call.on(lambda x: torch.clamp(x, low, high), "x")


@op("threshold")
def threshold(call: Call) -> Bound:
    low = call.value("alpha")
    return call.on(lambda x: torch.clamp(x, min=low), "x")


@op("select")
def select(call: Call) -> Bound:
    return call.on(torch.where, "cond", "a", "b")


@op("cast")
def cast(call: Call) -> Bound:
    """To integers the fraction is cut off, as numpy's ``astype`` does in the reference's value inference."""
    word = call.one_of("dtype", HELD)
    if word != call.output.dtype:
        raise call.error(f"it casts to {word}, declared is {call.output}")
    held = call.held
    if word in ("uint8", "int8", "int16", "uint16") and call.required("x").type.dtype in FLOATS:
        return call.on(lambda x: _wrapped(x, word), "x")
    return call.on(lambda x: x.to(held), "x")


def _wrapped(x: Tensor, word: str) -> Tensor:
    """Cut off, then modulo the type's size, as a conversion by way of a wide integer does."""
    bits, held = HELD[word].bits, HELD[word].torch
    wide: Tensor = x.to(torch.int64) & (2**bits - 1)
    if not word.startswith("u"):
        wide = (wide ^ (1 << (bits - 1))) - (1 << (bits - 1))
    return wide.to(held)


@op("identity", exact=True)
def identity(call: Call) -> Bound:
    return call.on(lambda x: x, "x")

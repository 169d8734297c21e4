"""How an operator is bound: its parameters become values once, and what is left is a function of tensors.

A family of operators registers a function for each with :func:`op`. It is given a :class:`Call`, takes the parameters that MIL wants
constant with :meth:`Call.value`, and answers with a :class:`Bound`: a function and the operands that it is called with in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import torch

from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.mil.program import HELD, Constant, Operation, Type, Variable

REMEDY = "check the package with the converter that wrote it, or export it again"
REQUIRED = object()
MOST_NUMBERS = 1 << 16
"""Of a parameter that becomes Python's values; no operator has one of more than a few."""


class Operand(NamedTuple):
    """What a parameter is given: a constant, or a variable that a run fills."""

    type: Type
    name: str
    constant: Any = None
    """Tensor or string; None for a variable."""


class Bound(NamedTuple):
    """A function to call with the values of these operands, None where one is not given."""

    function: Callable[..., Any]
    operands: tuple[Operand | None, ...]


class Call:
    """One operator of a program that is being bound."""

    def __init__(self, operation: Operation, known: dict[str, Operand]) -> None:
        self.type = operation.type
        self.name = operation.name
        self.outputs: tuple[Variable, ...] = operation.outputs
        self._inputs = {
            parameter: tuple(self._operand(parameter, given, known) for given in several) for parameter, several in operation.inputs.items()
        }
        self._read: dict[str, Any] = {}

    def _operand(self, parameter: str, given: str | Constant, known: dict[str, Operand]) -> Operand:
        if isinstance(given, Constant):
            return Operand(given.type, parameter, given.value)
        if given not in known:
            raise self.error(f"its {parameter} is {given}, which nothing before it makes")
        return known[given]

    def error(self, what: str) -> InputError:
        return InputError(f"the program's {self.type} {self.name} cannot be evaluated: {what}", remedy=REMEDY)

    def operand(self, parameter: str) -> Operand | None:
        """The one thing that a parameter is given; None if it is not given."""
        several = self._inputs.get(parameter, ())
        if len(several) > 1:
            raise self.error(f"its {parameter} has {len(several)} values")
        return several[0] if several else None

    def required(self, parameter: str) -> Operand:
        operand = self.operand(parameter)
        if operand is None:
            raise self.error(f"it has no {parameter}")
        return operand

    def several(self, parameter: str) -> tuple[Operand, ...]:
        """All that a parameter which takes a tuple is given."""
        if not self._inputs.get(parameter):
            raise self.error(f"it has no {parameter}")
        return self._inputs[parameter]

    def shape(self, parameter: str) -> tuple[int, ...]:
        """The declared shape of what a parameter is given, which must be static."""
        shape = self.required(parameter).type.shape
        if None in shape:
            raise self.error(f"the shape of its {parameter} is not static")
        return tuple(size for size in shape if size is not None)

    def tensor(self, parameter: str) -> torch.Tensor | None:
        """A parameter that must be constant, as a tensor; None if it is not given."""
        operand = self.operand(parameter)
        if operand is None:
            return None
        if not isinstance(operand.constant, torch.Tensor):
            raise self.error(f"its {parameter} is not a constant tensor")
        return operand.constant

    def value(self, parameter: str, default: Any = REQUIRED) -> Any:
        """A parameter that must be constant, as Python's number, string, or list."""
        operand = self.operand(parameter)
        if operand is None:
            if default is REQUIRED:
                raise self.error(f"it has no {parameter}")
            return default
        if operand.constant is None:
            raise self.error(f"its {parameter} is computed in a run; it must be constant")
        if isinstance(operand.constant, torch.Tensor) and operand.constant.numel() > MOST_NUMBERS:
            raise self.error(f"its {parameter} has {operand.constant.numel():,} numbers")
        value = operand.constant.tolist() if isinstance(operand.constant, torch.Tensor) else operand.constant
        self._read[parameter] = value
        return value

    @property
    def form(self) -> Hashable:
        """All that the shape of its answer can depend on, once it is bound: types, and the parameters whose values were read."""
        inputs = tuple((parameter, tuple(one.type for one in several)) for parameter, several in self._inputs.items())
        return self.type, tuple(output.type for output in self.outputs), inputs, repr(self._read)

    def axis(self, rank: int, default: Any = REQUIRED, parameter: str = "axis") -> int:
        """An axis, counted from the front."""
        axis = self.value(parameter, default)
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise self.error(f"its {parameter} is {axis}, its input has {rank} axes")
        return axis % rank

    def axes(self, rank: int, default: Any = REQUIRED) -> list[int]:
        """Axes, counted from the front, in their order."""
        return sorted(set(self.listed_axes("axes", rank, default)))

    def listed_axes(self, parameter: str, rank: int, default: Any = REQUIRED) -> list[int]:
        """Axes, counted from the front, as they are listed."""
        axes = self.value(parameter, default)
        if not isinstance(axes, list) or not all(isinstance(axis, int) and -rank <= axis < rank for axis in axes):
            raise self.error(f"its {parameter} are {axes}, its input has {rank}")
        return [axis % rank for axis in axes]

    def one_of(self, parameter: str, known: Iterable[str], default: Any = REQUIRED) -> str:
        """A parameter that is one of some words."""
        word, words = self.value(parameter, default), tuple(known)
        if word not in words:
            raise self.error(f"its {parameter} is {word!r}, known are {', '.join(words)}")
        return str(word)

    def on(self, function: Callable[..., Any], *parameters: str, optional: tuple[str, ...] = ()) -> Bound:
        """The function of the values of these parameters, which must be given, and of the optional ones, with None where they are not."""
        return Bound(function, (*map(self.required, parameters), *map(self.operand, optional)))

    @property
    def output(self) -> Type:
        return self.outputs[0].type

    @property
    def held(self) -> torch.dtype:
        """How what it makes is held."""
        dtype = self.output.dtype
        if dtype not in HELD:
            raise self.error(f"it makes a {dtype}")
        return HELD[dtype].torch

    def declared(self) -> tuple[int, ...]:
        """The declared shape of what it makes.

        What an operator makes is compared with it before it is made (see ``dry``); so must be what a builder makes to bind one.
        """
        shape = self.output.shape
        if None in shape:
            raise self.error("the shape of what it makes is not static")
        return tuple(size for size in shape if size is not None)

    def require_declared(self, shape: Iterable[int]) -> tuple[int, ...]:
        """Refuse to make another shape than is declared, before it is made."""
        made = tuple(shape)
        if made != self.declared():
            raise self.error(f"it makes {Type(self.output.dtype, made)}, declared is {self.output}")
        return made


Builder = Callable[[Call], Bound]


class Registered(NamedTuple):
    """An operator.

    Attributes:
        exact: it moves values and computes none, so that there is nothing to round.
        by_values: its function reads numbers out of its operands (packed bits, a mask), and makes what is declared, as it was bound.
    """

    build: Builder
    exact: bool
    by_values: bool = False


OPS: dict[str, Registered] = {}
"""All operators, by their MIL names."""


def op(*names: str, exact: bool = False, by_values: bool = False) -> Callable[[Builder], Builder]:
    """Register what binds the operators of these names."""

    def register(build: Builder) -> Builder:
        OPS.update(dict.fromkeys(names, Registered(build, exact, by_values)))
        return build

    return register

"""A program bound to torch, and run.

**Arithmetic.** Every operator computes on FP32 and rounds its answer to the type that the program declares for it, once. An FP16 tensor
is so an FP16 tensor after every operator, and what overflows FP16 is infinite from there on; a sum inside an operator is not rounded on
its way. Apple's Neural Engine and GPU may accumulate otherwise, in FP16 too, and in an order of their own: an answer from here is what
the program means, to the rounding of its declared types, and not the bits that a device gives.

**Speed.** All that does not depend on the input is done when the program is bound: parameters become Python's values, constants torch's
tensors, operators on constants alone (weights that are stored compressed) are evaluated. A run is then a list of calls, and every
tensor is let go after the last of them that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch

from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.views import node_of
from dtvit_deploy.plural import counted
from dtvit_deploy.runtimes.base import MissingOperatorError
from dtvit_deploy.runtimes.mil.call import REMEDY, Bound, Call, Operand
from dtvit_deploy.runtimes.mil.dry import dry_answer
from dtvit_deploy.runtimes.mil.ops import OPS
from dtvit_deploy.runtimes.mil.program import HELD, MOST_BYTES, Operation, Program, Type, Variable, bytes_of, static

FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError, MemoryError, OverflowError)
"""What torch and Python raise where an operator cannot be computed."""
ON_VALUES = frozenset({"floor_div", "mod", "gather", "gather_along_axis", "gather_nd"})
"""Operators that may fail on some values and not on others: a divisor of zero, an index beyond its range."""


class _Step(NamedTuple):
    function: Callable[..., Any]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    """One, or as many as the function gives in a tuple."""
    last: tuple[int, ...]
    """Tensors that no later step reads."""
    operation: Operation


class Evaluator:
    """Runs a program on tensors by name.

    Raises:
        MissingOperatorError: it has operators that are not known here.
        InputError: it says what cannot be, or fails on an input of zeros.
    """

    def __init__(self, program: Program, wanted: tuple[str, ...]) -> None:
        missing: dict[str, str] = {}
        for operation in program.operations:
            if operation.type not in OPS:
                missing.setdefault(operation.type, node_of(operation.name))
        if missing:
            raise MissingOperatorError(program.opset, missing)
        self._program = program
        self._wanted = wanted
        self._values: list[Any] = [None]  # the first is what a parameter that is not given has
        self._slots: dict[str, int] = {}
        self._known: dict[str, Operand] = {
            name: Operand(constant.type, name, constant.value) for name, constant in program.constants.items()
        }
        for variable in program.inputs:
            self._known[variable.name] = Operand(variable.type, variable.name)
            self._new_slot(variable.name)
        self._made = {variable.name: _static(variable) for variable in program.inputs}
        self._dried: dict[Hashable, tuple[Type, ...]] = {}
        self._folded = sum(bytes_of(constant.type) for constant in program.constants.values())
        with torch.inference_mode():
            self._steps = self._freed([step for operation in program.operations if (step := self._step(operation))])
            self._require_room()
            self._require_runnable()

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What was wanted, by name, each held as its type is (see :data:`~dtvit_deploy.runtimes.mil.program.HELD`).

        Raises:
            InputError: an operator fails on these values; an index beyond its range, say.
        """
        values = self._values.copy()
        for variable in self._program.inputs:
            values[self._slots[variable.name]] = as_held(feeds[variable.name], variable.type)
        with torch.inference_mode():
            self._walk(values)
        return {name: values[self._slots[name]] for name in self._wanted}

    def _walk(self, values: list[Any]) -> None:
        at: _Step | None = None
        try:
            for at in self._steps:
                function, sources, targets, last, _ = at
                made = function(*[values[source] for source in sources])
                if len(targets) == 1:
                    values[targets[0]] = made
                else:
                    for target, one in zip(targets, made, strict=True):
                        values[target] = one
                for slot in last:
                    values[slot] = None
        except FAILURES as error:
            assert at is not None
            raise _failure(at.operation, error) from error

    def _walk_checked(self, values: list[Any]) -> None:
        """The same, each answer compared with what is declared for it; what fails on zeros alone passes as zeros."""
        for function, sources, targets, last, operation in self._steps:
            try:
                made = function(*[values[source] for source in sources])
            except FAILURES as error:
                if operation.type not in ON_VALUES or None in operation.outputs[0].type.shape:
                    raise _failure(operation, error) from error
                made = _zeros(operation.outputs[0])
            for target, one in zip(targets, _as_declared(operation, made), strict=True):
                values[target] = one
            for slot in last:
                values[slot] = None

    def _step(self, operation: Operation) -> _Step | None:
        """A step of every run; none for an operator on constants, which is evaluated at once."""
        call = Call(operation, self._known)
        registered = OPS[operation.type]
        for output in operation.outputs:
            if output.name in self._known:
                raise call.error(f"{output.name} is made twice")
        try:
            bound = registered.build(call)
        except (*FAILURES, KeyError) as error:  # parameters of another form than the operator's
            raise _failure(operation, error) from error
        answers = self._dry_run(operation, call, bound, registered.by_values)
        if all(operand is None or operand.constant is not None for operand in bound.operands):
            self._folded += sum(map(bytes_of, answers))
            _require_room(operation, self._folded)
            self._fold(operation, bound, registered.exact)
            return None
        function = bound.function if registered.exact else _rounding(bound.function, operation.outputs)
        for output, answer in zip(operation.outputs, answers, strict=True):
            self._known[output.name] = Operand(output.type, output.name)
            self._made[output.name] = answer
        targets = tuple(self._new_slot(output.name) for output in operation.outputs)
        return _Step(function, tuple(map(self._slot, bound.operands)), targets, (), operation)

    def _dry_run(self, operation: Operation, call: Call, bound: Bound, by_values: bool) -> tuple[Type, ...]:
        """What an operator will make; as declared, where its function must see numbers. Blocks of a network repeat, and are run once."""
        if by_values:
            return tuple(map(_static, operation.outputs))
        given = tuple(self._made[one.name] for one in bound.operands if one is not None and one.constant is None)
        form = (call.form, given)
        if form in self._dried:
            return self._dried[form]
        try:
            made = _as_declared(operation, dry_answer(bound, self._made), typed=False)
        except FAILURES as error:
            raise _failure(operation, error) from error
        types = tuple(Type(output.type.dtype, tuple(one.shape)) for output, one in zip(operation.outputs, made, strict=True))
        self._dried[form] = types
        return types

    def _fold(self, operation: Operation, bound: Bound, exact: bool) -> None:
        try:
            made = _as_declared(operation, bound.function(*(operand and operand.constant for operand in bound.operands)))
        except FAILURES as error:
            raise _failure(operation, error) from error
        for output, value in zip(operation.outputs, made, strict=True):
            held = value if exact or output.type.dtype != "fp16" else rounded(value)
            self._known[output.name] = Operand(output.type, output.name, held)

    def _new_slot(self, name: str, value: Any = None) -> int:
        self._slots[name] = len(self._values)
        self._values.append(value)
        return self._slots[name]

    def _slot(self, operand: Operand | None) -> int:
        if operand is None:
            return 0
        if operand.constant is None or (operand.name in self._slots and self._values[self._slots[operand.name]] is operand.constant):
            return self._slots[operand.name]
        # A constant written in place has its parameter's name, which others have too.
        return self._new_slot(operand.name if operand.name in self._known else f"({len(self._values)})", operand.constant)

    def _freed(self, steps: list[_Step]) -> list[_Step]:
        """The same steps, each with what it is the last to need."""
        for name in self._wanted:
            if name not in self._known:
                raise InputError(f"the program has no tensor {name}", remedy="ask `tensors` for what it has")
            self._slot(self._known[name])
        kept = {self._slots[name] for name in self._wanted}
        kept |= {slot for slot, value in enumerate(self._values) if value is not None} | {0}
        freed = []
        for step in reversed(steps):
            last = tuple(slot for slot in dict.fromkeys((*step.sources, *step.targets)) if slot not in kept)
            kept.update(last)
            freed.append(step._replace(last=last))
        return freed[::-1]

    def _require_room(self) -> None:
        """Refuse what no memory holds: constants, and at every step the tensors that are not let go by then."""
        size = {slot: bytes_of(self._made[name]) for name, slot in self._slots.items() if name in self._made}
        held = self._folded + sum(size[self._slots[variable.name]] for variable in self._program.inputs)
        for step in self._steps:
            held += sum(size[slot] for slot in step.targets)
            _require_room(step.operation, held)
            held -= sum(size[slot] for slot in step.last)

    def _require_runnable(self) -> None:
        """Run once on zeros: what the program declares and what it does must agree before anybody relies on it."""
        values = self._values.copy()
        for variable in self._program.inputs:
            values[self._slots[variable.name]] = _zeros(variable)
        self._walk_checked(values)


def as_held(tensor: torch.Tensor, kind: Type) -> torch.Tensor:
    """A tensor as values of a type are held, rounded to what the type has."""
    held = tensor.to(HELD[kind.dtype].torch)
    return rounded(held) if kind.dtype == "fp16" else held


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """To the nearest FP16 value, ties to even, infinite beyond the largest; held as FP32."""
    return tensor.half().float()


def _rounding(function: Callable[..., Any], outputs: tuple[Variable, ...]) -> Callable[..., Any]:
    """The function with its FP16 answers rounded."""
    half = [output.type.dtype == "fp16" for output in outputs]
    if not any(half):
        return function
    if len(half) == 1:
        return lambda *operands: function(*operands).half().float()
    return lambda *operands: tuple(rounded(one) if is_half else one for one, is_half in zip(function(*operands), half, strict=True))


def _static(variable: Variable) -> Type:
    if None in variable.type.shape or variable.type.dtype not in HELD:
        raise InputError(f"{variable.name} is {variable.type}; it must be a tensor of static shape", remedy=REMEDY)
    return variable.type


def _zeros(variable: Variable) -> torch.Tensor:
    return torch.zeros(static(_static(variable)), dtype=HELD[variable.type.dtype].torch)


def _require_room(operation: Operation, held: int) -> None:
    if held > MOST_BYTES:
        raise _failure(operation, ValueError(f"with what it makes, {held:,} bytes would be held; at most {MOST_BYTES:,} are"))


def _as_declared(operation: Operation, made: Any, *, typed: bool = True) -> tuple[torch.Tensor, ...]:
    """What a function gave, a tensor for each output; one tensor is never taken for several.

    Args:
        typed: compare types as well as shapes; without numbers, a scalar's type is not the one that it will have.

    Raises:
        InputError: it is of another number, shape or type than is declared.
    """
    several: tuple[torch.Tensor, ...] = (made,) if isinstance(made, torch.Tensor) else tuple(made)
    if len(several) != len(operation.outputs):
        raise _failure(operation, ValueError(f"it makes {counted(len(several), 'tensor')}, {len(operation.outputs)} are declared"))
    for output, value in zip(operation.outputs, several, strict=True):
        held = HELD.get(output.type.dtype)
        if held is None:
            continue
        shape = tuple(value.shape)
        fits = len(shape) == len(output.type.shape) and all(
            declared in (None, size) for size, declared in zip(shape, output.type.shape, strict=True)
        )
        if not fits or (typed and value.dtype is not held.torch):
            found = f"{'×'.join(map(str, shape)) or 'scalar'} of {str(value.dtype).removeprefix('torch.')}"
            raise _failure(operation, ValueError(f"it makes {found}, declared is {output.type}"))
    return several


def _failure(operation: Operation, error: Exception) -> InputError:
    said = str(error).strip().splitlines()
    return InputError(
        f"the program's {operation.type} {operation.name} cannot be evaluated: {said[0] if said else type(error).__name__}", remedy=REMEDY
    )


def numbers(tensor: torch.Tensor, kind: Type) -> Any:
    """A held tensor as numpy's array of its type."""
    return tensor.numpy().astype(HELD[kind.dtype].numpy, copy=False)

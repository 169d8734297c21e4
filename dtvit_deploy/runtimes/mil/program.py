"""A MIL program as it was read: operators in the order of execution, on named variables with declared types."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch


class Held(NamedTuple):
    """How values of one MIL type are held.

    FP16 is held as FP32 whose values fit FP16, which is what every operator computes in; types that torch has no arithmetic for are held
    in the next one that has.
    """

    torch: torch.dtype
    numpy: np.dtype[Any]
    """What they are given back as."""
    bits: int
    stored: str
    """How they lie in a file, in numpy's words."""


HELD = {
    "bool": Held(torch.bool, np.dtype(np.bool_), 8, "?"),
    "fp16": Held(torch.float32, np.dtype(np.float16), 16, "<f2"),
    "fp32": Held(torch.float32, np.dtype(np.float32), 32, "<f4"),
    "fp64": Held(torch.float64, np.dtype(np.float64), 64, "<f8"),
    "int4": Held(torch.int8, np.dtype(np.int8), 4, "i1"),
    "int8": Held(torch.int8, np.dtype(np.int8), 8, "i1"),
    "int16": Held(torch.int16, np.dtype(np.int16), 16, "<i2"),
    "int32": Held(torch.int32, np.dtype(np.int32), 32, "<i4"),
    "int64": Held(torch.int64, np.dtype(np.int64), 64, "<i8"),
    "uint1": Held(torch.uint8, np.dtype(np.uint8), 1, "u1"),
    "uint2": Held(torch.uint8, np.dtype(np.uint8), 2, "u1"),
    "uint3": Held(torch.uint8, np.dtype(np.uint8), 3, "u1"),
    "uint4": Held(torch.uint8, np.dtype(np.uint8), 4, "u1"),
    "uint6": Held(torch.uint8, np.dtype(np.uint8), 6, "u1"),
    "uint8": Held(torch.uint8, np.dtype(np.uint8), 8, "u1"),
    "uint16": Held(torch.int32, np.dtype(np.uint16), 16, "<u2"),
    "uint32": Held(torch.int64, np.dtype(np.uint32), 32, "<u4"),
    "uint64": Held(torch.int64, np.dtype(np.uint64), 64, "<u8"),
}
"""By MIL's names of the types."""
FLOATS = frozenset({"fp16", "fp32"})


class Type(NamedTuple):
    """What a variable is declared as.

    Attributes:
        dtype: MIL's name; ``string``, ``list`` and ``dictionary`` hold no tensor.
        shape: sizes; None for one that only a run tells.
    """

    dtype: str
    shape: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        return f"{'×'.join('?' if size is None else str(size) for size in self.shape) or 'scalar'} {self.dtype}"


MOST_BYTES = 4 << 30
"""Held at a time: constants, and the tensors that a later operator reads."""


def static(kind: Type) -> list[int]:
    return [size for size in kind.shape if size is not None]


def bytes_of(kind: Type) -> int:
    """Of a tensor as it is held; strings are few."""
    return math.prod(static(kind)) * HELD[kind.dtype].torch.itemsize if kind.dtype in HELD else 0


class Variable(NamedTuple):
    name: str
    type: Type


class Constant(NamedTuple):
    """A value that the program holds: a tensor, a string, or a list of either."""

    type: Type
    value: Any


@dataclass(frozen=True)
class Operation:
    """One operator.

    Attributes:
        type: its MIL name.
        inputs: by parameter; names of variables, or constants written in place; several for a parameter that takes a tuple.
        outputs: what it makes.
    """

    type: str
    inputs: dict[str, tuple[str | Constant, ...]]
    outputs: tuple[Variable, ...]

    @property
    def name(self) -> str:
        """The name of what it makes, by which a person finds it."""
        return self.outputs[0].name if self.outputs else "(nothing)"


@dataclass(frozen=True)
class Program:
    """The one function of a package.

    Attributes:
        opset: version of the operators: ``CoreML7`` is iOS 17's.
        constants: by variable name.
        operations: all others, in the order of execution.
        description: what the package tells an app of itself, as its protocol buffer has it.
    """

    opset: str
    inputs: tuple[Variable, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: dict[str, Constant] = field(default_factory=dict)
    description: Any = None

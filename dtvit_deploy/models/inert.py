"""A pickle read as data. Whatever it names is neither imported nor called: it stays a name, and what was made with it a record of that.

Unpickling is calling what the file names. Here the file's small program is followed opcode by opcode (`pickletools` knows them all), and
a class or a function becomes a :class:`Named`, an object of it a :class:`Made`. So the arguments, paths, dates and callbacks that training
scripts save beside the weights need no list of classes that are known to be harmless.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_STEPS = 10_000_000
"""Opcodes of one pickle, and values that calls copy: a state dict of a thousand tensors has about 40,000."""

# fmt: off
_DATA = frozenset({
    "abc", "argparse", "array", "calendar", "collections", "copyreg", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "inspect", "ipaddress", "itertools", "logging", "numbers", "pathlib", "random", "re", "statistics", "string",
    "struct", "time", "types", "typing", "uuid", "zoneinfo", "_codecs",
})
# fmt: on
"""Modules of the standard library out of which objects that are only data are made."""
# fmt: off
_PLAIN = frozenset({
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object", "range", "set",
    "slice", "str", "tuple", "type", "xrange",
})
# fmt: on
"""Of Python's own names, and of Python 2's. Pickles write nested classes and methods as calls of ``getattr``."""
_BUFFERS = frozenset({"_io.BytesIO", "_io.StringIO"})
"""In which some layers keep their extra state."""


class UnreadableError(ValueError):
    """The bytes are no pickle, or none that can be followed."""


class UnsafeError(ValueError):
    """The pickle calls what no data are made with: it is an attack, or a script's mistake that looks like one.

    It could be read, since nothing is called here; but whoever loads the same file elsewhere should know.
    """


@dataclass(frozen=True, slots=True)
class Named:
    """A class or a function that a file refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """An object that an ordinary unpickler would have made.

    Attributes:
        callee: what it would have called.
        arguments: of that call.
        items: what a mapping of its own kind was filled with, None where it was not; keys that are no plain values are left out.
    """

    callee: object
    arguments: object = ()
    items: dict[Any, Any] | None = None

    def __str__(self) -> str:
        """Of its callee alone: what is in an object can refer to itself many times over, and its text be longer than any memory."""
        return str(self.callee) if isinstance(self.callee, Named) else type(self.callee).__name__


class _Mark:
    """Where a pickle began to gather values."""


@dataclass
class Reader:
    """Follows one pickle.

    Attributes:
        build: makes something of a call that it knows, and returns None for the others.
        persistent: what a persistent id stands for.
    """

    build: Callable[[Named, tuple[Any, ...]], Any] = lambda callee, arguments: None
    persistent: Callable[[Any], Any] = lambda what: what

    def read(self, source: BinaryIO | bytes) -> Any:
        """The value of the pickle that begins where ``source`` stands; a file is left behind its end.

        Raises:
            UnreadableError: it is none, or is cut off.
            UnsafeError: see there.
        """
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0
        try:
            for opcode, argument, _ in pickletools.genops(source):
                if opcode.name == "STOP":
                    return self._stack[-1]
                self._count(1)
                self._step(opcode.name, argument)
        except (UnreadableError, UnsafeError):
            raise
        except Exception as error:  # a broken pickle makes the steps raise whatever they run into: IndexError, KeyError, TypeError, …
            raise UnreadableError(f"it cannot be followed ({type(error).__name__}: {str(error)[:200]})") from error
        raise UnreadableError("it ends too early")

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise UnreadableError(f"more than {MOST_STEPS:,} steps")

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _VALUES:
            stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            taken = self._pop(_TUPLES[name])
            stack.append(tuple(taken))
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            values = self._since_mark()
            stack.append(tuple(values) if name == "TUPLE" else values)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = self._pop(1) if name == "APPEND" else self._since_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        elif name == "DICT":
            stack.append({})
            self._fill(self._since_mark(below=1))
        elif name in ("SETITEM", "SETITEMS"):
            self._fill(self._pop(2) if name == "SETITEM" else self._since_mark())
        elif name == "MARK":
            stack.append(_Mark)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PERSID", "BINPERSID"):
            stack.append(self.persistent(argument if name == "PERSID" else stack.pop()))
        elif name == "BUILD":
            self._pop(1)  # attributes: of no interest, and the weights have none
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            self._object(name, argument)

    def _object(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "GLOBAL":
            stack.append(Named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, qualified = self._pop(2)
            if not isinstance(module, str) or not isinstance(qualified, str):
                raise UnreadableError(f"a name of the types {type(module).__name__} and {type(qualified).__name__}")
            stack.append(Named(module, qualified))
        elif name in ("REDUCE", "NEWOBJ"):
            callee, arguments = self._pop(2)
            stack.append(self._made(callee, arguments))
        elif name == "NEWOBJ_EX":
            callee, arguments, _ = self._pop(3)
            stack.append(self._made(callee, arguments))
        elif name == "OBJ":
            callee, *arguments = self._since_mark()
            stack.append(self._made(callee, tuple(arguments)))
        elif name == "INST":
            stack.append(self._made(Named(*argument.split(" ", 1)), tuple(self._since_mark())))
        else:  # EXT1 and its kin mean what the writer's program registered, NEXT_BUFFER what is not in the file
            raise UnreadableError(f"the opcode {name} means nothing outside the program that wrote it")

    def _made(self, callee: Any, arguments: Any) -> Any:
        if isinstance(callee, Named):
            if not isinstance(arguments, tuple):
                raise UnreadableError(f"{callee} is called with no arguments that could be any")
            _require_data(callee)
            if callee == Named("collections", "OrderedDict"):
                self._count(len(arguments[0]) if arguments else 0)  # a call of three bytes copies what was remembered, however long
                return dict(pair for pair in arguments[0] if isinstance(pair[0], _KEYS)) if arguments else {}
            built = self.build(callee, arguments)
            if built is not None:
                return built
        return Made(callee, arguments)

    def _pop(self, count: int) -> list[Any]:
        taken = self._stack[-count:]
        if len(taken) < count or _Mark in taken:
            raise UnreadableError("a value is missing")
        del self._stack[-count:]
        return taken

    def _since_mark(self, below: int = 0) -> list[Any]:
        """Everything above the last mark, taken off with it; the ``below`` topmost values are left."""
        stack = self._stack
        end = len(stack) - below
        start = next(index for index in range(end - 1, -1, -1) if stack[index] is _Mark)
        values = stack[start + 1 : end]
        del stack[start:end]
        return values

    def _fill(self, flat: list[Any]) -> None:
        """Put keys and values, one after the other, into the mapping on top of the stack."""
        target = self._stack[-1]
        if isinstance(target, Made) and target.items is None:
            target.items = {}
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict):
            raise UnreadableError("items are set of what has none")
        # A key of another kind is some object's; a hash of it could run deep, and nothing here is ever looked up by it.
        items.update((key, value) for key, value in zip(flat[::2], flat[1::2], strict=True) if isinstance(key, _KEYS))


_KEYS = (str, int, float, bytes, type(None))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# fmt: off
_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
})
# fmt: on


def _require_data(callee: Named) -> None:
    top = callee.module.partition(".")[0]
    own = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(top, top)  # as Python 2 had them, and protocol 2 still has
    known = own not in sys.stdlib_module_names or own in _DATA or str(callee) in _BUFFERS
    harmless = callee.name in _PLAIN if own == "builtins" else known
    if not harmless:
        raise UnsafeError(f"{callee.module}.{callee.name}")

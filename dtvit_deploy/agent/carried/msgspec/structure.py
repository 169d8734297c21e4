"""`Struct`: typed fields, in the order of the class, with the options that the agent's structs have."""

from __future__ import annotations

import copy
import inspect
import sys
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

NODEFAULT = object()
"""In the place of a default: there is none."""


class Meta:
    """Bounds of a value, as an annotation; those that are not given do not bind. Examples and units are for people."""

    def __init__(
        self,
        *,
        ge: float | None = None,
        le: float | None = None,
        pattern: str | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
        examples: Any = None,
        extra_json_schema: Any = None,
    ) -> None:
        self.ge, self.le, self.pattern, self.min_length, self.max_length = ge, le, pattern, min_length, max_length


class _Field:
    """A default that is made anew for each struct."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory


def field(*, default_factory: Any) -> Any:
    """A field whose default a function makes."""
    return _Field(default_factory)


class _Options(typing.NamedTuple):
    frozen: bool = False
    kw_only: bool = False
    forbid_unknown_fields: bool = False
    array_like: bool = False
    tag: str | None = None
    order: bool = False


class _StructMeta(type):
    __struct_fields__: tuple[str, ...]
    __struct_positional__: tuple[str, ...]
    __struct_defaults__: dict[str, Any]
    __struct_options__: _Options

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> _StructMeta:
        former = next((base for base in bases if isinstance(base, _StructMeta)), None)
        fields, positional, defaults = [], [], {}
        chosen = _Options()
        if former is not None:
            fields, positional = list(former.__struct_fields__), list(former.__struct_positional__)
            defaults, chosen = dict(former.__struct_defaults__), former.__struct_options__
        chosen = chosen._replace(kw_only=False)._replace(**options)  # which binds the fields of one class alone
        for each, annotation in namespace.get("__annotations__", {}).items():
            if str(annotation).startswith(("ClassVar", "typing.ClassVar")):
                continue
            fields = [*(known for known in fields if known != each), each]
            positional = [known for known in positional if known != each] + ([] if chosen.kw_only else [each])
            if each in namespace:
                defaults[each] = namespace.pop(each)
        made = super().__new__(mcls, name, bases, {**namespace, "__slots__": ()} if former is None else namespace)
        made.__struct_fields__, made.__struct_positional__ = tuple(fields), tuple(positional)
        made.__struct_defaults__, made.__struct_options__ = defaults, chosen
        return made

    @property
    def __match_args__(cls) -> tuple[str, ...]:
        return cls.__struct_positional__


class Struct(metaclass=_StructMeta):
    """Base of all structs."""

    __struct_fields__: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *given: Any, **named: Any) -> None:
        cls = type(self)
        if len(given) > len(cls.__struct_positional__):
            raise TypeError("Extra positional arguments provided")
        values = dict(zip(cls.__struct_positional__, given, strict=False))
        if twice := values.keys() & named.keys():
            raise TypeError(f"Argument '{min(twice)}' given by name and position")
        if unknown := [name for name in named if name not in cls.__struct_fields__]:
            raise TypeError(f"Unexpected keyword argument '{unknown[0]}'")
        values.update(named)
        for name in cls.__struct_fields__:
            if name not in values:
                if name not in cls.__struct_defaults__:
                    raise TypeError(f"Missing required argument '{name}'")
                values[name] = _default(cls.__struct_defaults__[name])
            object.__setattr__(self, name, values[name])
        begin = getattr(self, "__post_init__", None)
        if begin is not None:
            begin()

    def __setattr__(self, name: str, value: Any) -> None:
        if type(self).__struct_options__.frozen:
            raise AttributeError(f"immutable type: '{type(self).__name__}'")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__struct_fields__)

    def __hash__(self) -> int:
        if not type(self).__struct_options__.frozen:
            raise TypeError(f"unhashable type: '{type(self).__name__}'")
        return hash((type(self), *(getattr(self, name) for name in self.__struct_fields__)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__struct_fields__)})"


def defstruct(name: str, fields: Iterable[tuple[str, Any, Any]], **options: Any) -> Any:
    """A struct of fields with defaults; those of JSON that it does not know are passed over."""
    listed = list(fields)
    defaults = {each: value for each, _, value in listed}
    return _StructMeta(name, (Struct,), {"__annotations__": {each: kind for each, kind, _ in listed}, **defaults}, **options)


@cache
def types_of(cls: Any) -> dict[str, Any]:
    """The types of a struct's fields, bounds included."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations = inspect.get_annotations(base)
        names = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        holder = type("_", (), {"__annotations__": {name: annotations[name] for name in annotations if name in cls.__struct_fields__}})
        found.update(typing.get_type_hints(holder, globalns=dict(names), include_extras=True))
    return found


def _default(value: Any) -> Any:
    if isinstance(value, _Field):
        return value.factory()
    return copy.copy(value) if isinstance(value, dict | list | set) else value

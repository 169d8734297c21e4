"""Between structs and what JSON has: strict, as msgspec is, and with its words for what does not fit and where."""

from __future__ import annotations

import contextlib
import enum
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from .errors import ValidationError
from .structure import Meta, Struct, types_of

_NAMES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", dict: "object", list: "array"}


def convert(value: Any, type: Any) -> Any:  # noqa: A002 - msgspec's word
    """A value of the type, of what JSON has.

    Raises:
        ValidationError: it is not of the type.
    """
    return _convert(value, type, "$")


def to_builtins(value: Any, *, finite: bool = False) -> Any:
    """What JSON has in place of a value; ``finite`` has None where a number has no JSON.

    Raises:
        TypeError: there is nothing for it.
    """
    if isinstance(value, Struct):
        cls = type(value)
        inner = {name: to_builtins(getattr(value, name), finite=finite) for name in cls.__struct_fields__}
        options = cls.__struct_options__
        if options.array_like:
            return [*([options.tag] if options.tag is not None else []), *inner.values()]
        return inner if options.tag is None else {"type": options.tag, **inner}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) or not finite else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {_key(name): to_builtins(each, finite=finite) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_builtins(each, finite=finite) for each in value]
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"Only dicts with str keys are supported, not {type(name).__name__}")
    return name


def _convert(value: Any, kind: Any, at: str) -> Any:
    if kind is Any:
        return value
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        inner, *bounds = typing.get_args(kind)
        found = _convert(value, inner, at)
        for bound in bounds:
            if isinstance(bound, Meta):
                _hold(found, bound, at)
        return found
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, typing.get_args(kind), at)
    if origin is typing.Literal:
        if not any(value == each and type(value) is type(each) for each in typing.get_args(kind)):
            _refuse_literal(value, kind, at)
        return value
    if origin is tuple or kind is tuple:
        return tuple(_items(value, typing.get_args(kind) or (Any, ...), at))
    if origin is list or kind is list:
        (inner,) = typing.get_args(kind) or (Any,)
        return _items(value, (inner, ...), at)
    if origin is dict or kind is dict:
        return _object(value, typing.get_args(kind) or (str, Any), at)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _struct(value, kind, at)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError as error:
            raise ValidationError(f"Invalid enum value {value!r}{_where(at)}") from error
    if kind in _NAMES:
        return _plain(value, kind, at)
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, PurePath):
        return value
    raise TypeError(f"Type {kind!r} is not supported")


def _plain(value: Any, kind: Any, at: str) -> Any:
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ValidationError(f"Number out of range{_where(at)}") from error
    if type(value) is not kind:
        _refuse(_NAMES[kind], value, at)
    return value


def _one_of(value: Any, kinds: tuple[Any, ...], at: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    tagged = {kind.__struct_options__.tag: kind for kind in others if isinstance(kind, type) and issubclass(kind, Struct)}
    if len(tagged) > 1:
        if not isinstance(value, dict):
            _refuse("object", value, at)
        if "type" not in value:
            raise ValidationError(f"Object missing required field `type`{_where(at)}")
        if value["type"] not in tagged:
            raise ValidationError(f"Invalid value {value['type']!r} - at `{at}.type`")
        return _struct(value, tagged[value["type"]], at)
    for kind in others:  # of plain types the value's own is the one; else the last refusal is the one that is told
        if type(value) is kind:
            return value
    *first, last = others
    for kind in first:
        with contextlib.suppress(ValidationError):
            return _convert(value, kind, at)
    return _convert(value, last, at)


def _items(value: Any, kinds: tuple[Any, ...], at: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        _refuse("array", value, at)
    if kinds[-1] is Ellipsis:
        return [_convert(each, kinds[0], f"{at}[...]") for each in value]
    if len(value) != len(kinds):
        raise ValidationError(f"Expected `array` of length {len(kinds)}, got {len(value)}{_where(at)}")
    return [_convert(each, kind, f"{at}[{index}]") for index, (each, kind) in enumerate(zip(value, kinds, strict=True))]


def _object(value: Any, kinds: tuple[Any, ...], at: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        _refuse("object", value, at)
    return {_convert(name, kinds[0], f"key in `{at}`"): _convert(each, kinds[1], f"{at}[...]") for name, each in value.items()}


def _struct(value: Any, cls: Any, at: str) -> Any:
    if isinstance(value, cls):
        return value
    options, kinds = cls.__struct_options__, types_of(cls)
    if options.array_like:
        if not isinstance(value, list | tuple):
            _refuse("array", value, at)
        least = sum(name not in cls.__struct_defaults__ for name in cls.__struct_fields__)
        if len(value) < least:
            raise ValidationError(f"Expected `array` of at least length {least}, got {len(value)}{_where(at)}")
        if options.forbid_unknown_fields and len(value) > len(kinds):
            raise ValidationError(f"Expected `array` of at most length {len(kinds)}, got {len(value)}{_where(at)}")
        listed = zip(cls.__struct_fields__, value, strict=False)
        return cls(**{name: _convert(each, kinds[name], f"{at}[{index}]") for index, (name, each) in enumerate(listed)})
    if not isinstance(value, dict):
        _refuse("object", value, at)
    if options.tag is not None and value.get("type", options.tag) != options.tag:
        raise ValidationError(f"Invalid value {value['type']!r} - at `{at}.type`")
    found = {}
    for name, each in value.items():
        if name in kinds:
            found[name] = _convert(each, kinds[name], f"{at}.{name}")
        elif options.forbid_unknown_fields and not (options.tag is not None and name == "type"):
            raise ValidationError(f"Object contains unknown field `{name}`{_where(at)}")
    for name in cls.__struct_fields__:
        if name not in found and name not in cls.__struct_defaults__:
            raise ValidationError(f"Object missing required field `{name}`{_where(at)}")
    try:
        return cls(**found)
    except (ValueError, TypeError) as error:  # of __post_init__
        raise ValidationError(f"{error}{_where(at)}") from error


def _hold(value: Any, bound: Meta, at: str) -> None:
    if value is None:
        return
    kind = _NAMES.get(type(value), "array")
    if bound.ge is not None and not value >= bound.ge:
        raise ValidationError(f"Expected `{kind}` >= {bound.ge}{_where(at)}")
    if bound.le is not None and not value <= bound.le:
        raise ValidationError(f"Expected `{kind}` <= {bound.le}{_where(at)}")
    if bound.pattern is not None and re.search(bound.pattern, value) is None:
        raise ValidationError(f"Expected `str` matching regex {bound.pattern!r}{_where(at)}")
    if bound.min_length is not None and len(value) < bound.min_length:
        raise ValidationError(f"Expected `{kind}` of length >= {bound.min_length}{_where(at)}")
    if bound.max_length is not None and len(value) > bound.max_length:
        raise ValidationError(f"Expected `{kind}` of length <= {bound.max_length}{_where(at)}")


def _refuse(expected: str, value: Any, at: str) -> typing.NoReturn:
    raise ValidationError(f"Expected `{expected}`, got `{_NAMES.get(type(value), type(value).__name__)}`{_where(at)}")


def _refuse_literal(value: Any, kind: Any, at: str) -> typing.NoReturn:
    if not isinstance(value, str):
        _refuse("str", value, at)
    raise ValidationError(f"Invalid enum value {value!r}{_where(at)}")


def _where(at: str) -> str:
    return "" if at == "$" else f" - at {at}" if at.startswith("key") else f" - at `{at}`"

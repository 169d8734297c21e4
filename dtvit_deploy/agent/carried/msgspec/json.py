"""JSON by the standard library, with msgspec's rules: no NaN, nothing after the value, floats that JSON lacks written as null."""

from __future__ import annotations

import json
from typing import Any

from .conversion import convert, to_builtins
from .errors import DecodeError


def encode(value: Any, *, order: str | None = None) -> bytes:
    """Compact JSON; ``order="sorted"`` sorts the keys of every object.

    Raises:
        TypeError: a value has no JSON.
    """
    text = json.dumps(to_builtins(value, finite=True), ensure_ascii=False, separators=(",", ":"), sort_keys=order is not None)
    return text.encode()


def decode(content: bytes | str, *, type: Any = Any) -> Any:  # noqa: A002 - msgspec's word
    """A value of the type.

    Raises:
        DecodeError: it is no JSON.
        ValidationError: it is not of the type.
    """
    try:
        text = content if isinstance(content, str) else bytes(content).decode()
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise DecodeError("JSON is malformed: it is nested too deep") from error
    except ValueError as error:
        raise DecodeError(f"JSON is malformed: {error}") from error
    return convert(value, type)


def format(content: bytes, *, indent: int = 2) -> bytes:  # noqa: A001 - msgspec's word
    """The same JSON over several lines."""
    return json.dumps(json.loads(content), ensure_ascii=False, indent=indent).encode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")

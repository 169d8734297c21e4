"""What types say of themselves: of each field of a struct its type in words, what its docstring says of it, and its unit.

Pages about recipes and reports are made of this, so that nothing in them can be missing, wrong or out of date.
"""

from __future__ import annotations

import inspect as python
import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from msgspec import inspect

_ENDINGS = {"ms": "ms", "s": "s", "seconds": "s", "mib": "MiB", "mw": "mW", "millijoules": "mJ", "bytes": "B"}
"""Units that the last word of a field's name says."""


@dataclass(frozen=True)
class Vocabulary:
    """What a page calls what has no name of its own.

    Attributes:
        struct: words for a struct within another.
        mapping: for values by name.
        path: for a path.
    """

    struct: Callable[[inspect.StructType], str]
    mapping: str
    path: str


def in_words(kind: inspect.Type, vocabulary: Vocabulary) -> str:
    """A type as people say it."""
    kind = bare(kind)

    def inner(one: inspect.Type) -> str:
        return in_words(one, vocabulary)

    if isinstance(kind, inspect.UnionType):
        return " or ".join(inner(one) for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.EnumType):
        return "one of " + ", ".join(f"`{spelt(one.value)}`" for one in kind.cls)
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(f"`{spelt(one)}`" for one in kind.values)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        least = f", at least {kind.min_length}" if kind.min_length else ""
        return f"list: {inner(kind.item_type)}{least}"
    if isinstance(kind, inspect.DictType):
        return f"{vocabulary.mapping}: {inner(kind.value_type)}"
    if isinstance(kind, inspect.TupleType):
        kinds = list(map(inner, kind.item_types))
        return f"list of {len(kinds)}: {kinds[0]}" if len(set(kinds)) == 1 else "list: " + ", ".join(kinds)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return ("integer" if isinstance(kind, inspect.IntType) else "number") + _bounds(kind)
    if isinstance(kind, inspect.StructType):
        return vocabulary.struct(kind)
    if isinstance(kind, inspect.CustomType) and kind.cls is Path:
        return vocabulary.path
    return "true or false" if isinstance(kind, inspect.BoolType) else "text"


def spelt(value: Any) -> str:
    """A plain value as JSON and TOML have it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    least = "" if kind.ge is None else f"from {kind.ge}" if kind.gt is None else ""
    above = f"above {kind.gt}" if kind.gt is not None else ""
    most = f"to {kind.le}" if kind.le is not None and kind.le < 1 << 62 else ""
    told = " ".join(part for part in (least, above, most) if part)
    return f", {told}" if told else ""


def bare(kind: inspect.Type) -> inspect.Type:
    """A type without what stands beside it, and without None."""
    if isinstance(kind, inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        some = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return bare(some[0]) if len(some) == 1 else kind
    return kind


def is_absent(kind: inspect.Type) -> bool:
    """Whether a type takes None."""
    if isinstance(kind, inspect.Metadata):
        return is_absent(kind.type)
    return isinstance(kind, inspect.UnionType) and any(isinstance(one, inspect.NoneType) for one in kind.types)


def parts(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The types that a value of a type is put together of, and those that it may be; none of a struct's, which says them itself."""
    if isinstance(kind, inspect.Metadata):
        return (kind.type,)
    if isinstance(kind, inspect.UnionType):
        return kind.types
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return (kind.item_type,)
    if isinstance(kind, inspect.TupleType):
        return kind.item_types
    return (kind.key_type, kind.value_type) if isinstance(kind, inspect.DictType) else ()


def structs_of(kind: inspect.Type) -> tuple[inspect.StructType, ...]:
    """The structs in a value of a type, not those within them."""
    if isinstance(kind, inspect.StructType):
        return (kind,)
    return tuple(one for part in parts(kind) for one in structs_of(part))


def unit_of(name: str, kind: inspect.Type) -> str | None:
    """The unit of the numbers in a field: what stands beside their type, else what its name ends in.

    Returns:
        Empty where it holds no number; None where it does, and nothing tells the unit.
    """
    if not _is_number(kind):
        return ""
    beside = _beside(kind)
    return beside if beside is not None else _ENDINGS.get(name.rpartition("_")[2])


def _is_number(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.IntType | inspect.FloatType) or any(map(_is_number, parts(kind)))


def _beside(kind: inspect.Type) -> str | None:
    if isinstance(kind, inspect.Metadata) and "unit" in (kind.extra_json_schema or {}):
        return str((kind.extra_json_schema or {})["unit"])
    return next((found for one in parts(kind) if (found := _beside(one)) is not None), None)


def attributes(cls: type) -> dict[str, str]:
    """What a class's docstring says of each of its attributes."""
    _, _, section = (python.getdoc(cls) or "").partition("\nAttributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    inside = takewhile(lambda line: not line or line.startswith(" "), section.splitlines())
    for line in textwrap.dedent("\n".join(inside)).splitlines():
        if match := re.fullmatch(r"([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


def summary(cls: type) -> str:
    """The first paragraph of a class's docstring, in one line."""
    return " ".join((python.getdoc(cls) or "").partition("\n\n")[0].split())


def plain(text: str) -> str:
    """A docstring's words without its mark-up."""
    text = re.sub(r":\w+:`~?([^`]*)`", lambda role: role[1].rpartition(".")[2], text)
    text = text.replace("``", "`").rstrip(".")
    return text[:1].upper() + text[1:] + "." if text else ""

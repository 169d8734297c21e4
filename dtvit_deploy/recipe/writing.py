"""A request as the TOML that would be read into it."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.recipe.tables import Recipe


def toml(value: Any) -> str:
    """A value as TOML has it. JSON's texts are TOML's too, but for one character."""
    if isinstance(value, enum.Enum):
        return toml(value.value)
    if isinstance(value, msgspec.Struct):
        return toml(msgspec.to_builtins(value))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def written(recipe: Recipe, beside: Path) -> str:
    """What a recipe says that no default says, for a file in the folder ``beside``."""
    return "\n".join(_lines(recipe, Recipe(), (), beside)) + "\n"


def _lines(table: msgspec.Struct, usual: msgspec.Struct, path: tuple[str, ...], beside: Path) -> Iterator[str]:
    fields = [(name, value, getattr(usual, name)) for name, value in msgspec.structs.asdict(table).items()]
    own = [
        f"{name} = {toml(_from(value, beside))}" for name, value, default in fields if value != default and not _is_table(value) and path
    ]
    if own:
        yield from (f"[{'.'.join(path)}]", *own, "")
    for name, value, default in fields:
        if _is_table(value) and value != default:
            yield from _lines(value, default, (*path, name), beside)
        elif not path and value != default:  # a list of tables; one within a table is written as a key of that
            for one in value:
                yield from (f"[[{name}]]", *(f"{key} = {toml(_from(said, beside))}" for key, said in _said(one)), "")


def _said(table: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """The keys of a table that no default says."""
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        if field.required or value != field.default:
            yield field.encode_name, value


def _is_table(value: object) -> bool:
    return isinstance(value, msgspec.Struct)


def _from(value: Any, beside: Path) -> Any:
    """A path as the recipe has it: relative to its own folder, unless it was absolute."""
    return os.path.relpath(value, beside) if isinstance(value, Path) and not value.is_absolute() else value


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else json.dumps(name, ensure_ascii=False)

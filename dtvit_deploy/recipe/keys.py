"""Every key of a recipe, with its type, its default, an example and what it means, read out of the types that recipes are read into."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
from msgspec import inspect

from dtvit_deploy.artifacts.described import Vocabulary, attributes, bare, in_words, plain, summary
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.recipe.writing import toml

WIDTH = 116
"""Characters of a line of a written recipe."""


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: without its table.
        kind: its type, in words.
        default: as TOML; None where there is none, which is to leave the key out.
        required: whether it must be there.
        text: what it means.
        example: as TOML.
    """

    name: str
    kind: str
    default: str | None
    required: bool
    text: str
    example: str


@dataclass(frozen=True)
class Table:
    """One table, or several of the same keys.

    Attributes:
        paths: names, like ``gates.fp32``.
        repeated: whether it is one of a list of tables.
        text: what it is about.
        keys: in the order of the type.
    """

    paths: tuple[str, ...]
    repeated: bool
    text: str
    keys: tuple[Key, ...]

    def header(self, path: str) -> str:
        return f"[[{path}]]" if self.repeated else f"[{path}]"


def tables() -> tuple[Table, ...]:
    """Every table of a recipe, those inside others after them."""
    return tuple(_tables(_struct(inspect.type_info(Recipe)), ()))


def _tables(kind: inspect.StructType, path: tuple[str, ...]) -> Iterator[Table]:
    inner = [(field, found) for field in kind.fields if (found := _table_of(field.type)) is not None]
    for (cls, repeated), group in groupby(inner, key=lambda one: (one[1][0].cls, one[1][1])):
        fields = [field for field, _ in group]
        struct = _struct(inspect.type_info(cls))
        texts = attributes(cls)
        keys = tuple(_key(field, texts.get(field.name, "")) for field in struct.fields if _is_key(field))
        paths = tuple(".".join((*path, field.name)) for field in fields)
        if keys:
            yield Table(paths, repeated, plain(summary(cls)), keys)
        yield from _tables(struct, (*path, fields[0].name))


def _table_of(kind: inspect.Type) -> tuple[inspect.StructType, bool] | None:
    """The table that a field is, and whether it is a list of them; None for a plain key."""
    kind = bare(kind)
    if isinstance(kind, inspect.StructType):
        return kind, False
    if isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(item := bare(kind.item_type), inspect.StructType):
        return item, True
    return None


def _is_key(field: inspect.Field) -> bool:
    found = _table_of(field.type)
    return found is None or found[1]  # a list of tables may be written as a key too


def _key(field: inspect.Field, text: str) -> Key:
    default = None if field.required else field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    shown = None if default is None else toml(default)
    example = not default if isinstance(default, bool) else default or _example(field.type)
    return Key(field.encode_name, in_words(field.type, _WORDS), shown, field.required, plain(text), toml(example))


def _table_in_words(kind: inspect.StructType) -> str:
    return "table: " + ", ".join(f"`{field.encode_name}`" for field in kind.fields)


_WORDS = Vocabulary(struct=_table_in_words, mapping="table by name", path="path, relative to the recipe")


def _struct(kind: inspect.Type) -> inspect.StructType:
    assert isinstance(kind, inspect.StructType)
    return kind


def _given_example(kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.Metadata):
        return next(iter((kind.extra_json_schema or {}).get("examples", ())), None) or _given_example(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next((found for one in kind.types if (found := _given_example(one)) is not None), None)
    return None


def _example(kind: inspect.Type) -> Any:
    """The example beside the type, else the least value of it that says something."""
    if (given := _given_example(kind)) is not None:
        return given
    kind = bare(kind)
    if isinstance(kind, inspect.EnumType):
        return next(iter(kind.cls))
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return [_example(kind.item_type)]
    if isinstance(kind, inspect.TupleType):
        return [_example(one) for one in kind.item_types]
    if isinstance(kind, inspect.IntType):
        return kind.ge or 0
    if isinstance(kind, inspect.FloatType):
        return float(kind.ge or kind.le or 1)
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: _example(field.type) for field in kind.fields if field.required}
    return True if isinstance(kind, inspect.BoolType) else "…"


def reference() -> str:
    """``docs/recipe.md``."""
    lines = [
        "# Recipes",
        "",
        "Every key of a recipe, which is a page of TOML for `dtvit-deploy run`. `dtvit-deploy init` writes one for a model, with these",
        "explanations in it. A key that is not here is refused. *None* is to leave a key out.",
        "",
        "This page is made from the types by `make docs`; what is said here is said there.",
    ]
    for table in tables():
        lines += ["", "## " + ", ".join(f"`{table.header(path)}`" for path in table.paths), "", table.text, ""]
        lines += ["| key | type | default | example | |", "|---|---|---|---|---|"]
        for key in table.keys:
            default = "required" if key.required else "none" if key.default is None else f"`{key.default}`"
            cells = (f"`{key.name}`", key.kind, default, f"`{key.name} = {key.example}`", key.text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def commented(given: Mapping[str, Any], heading: str) -> str:
    """A recipe with the values of ``given``, by dotted key, and every other key as a comment."""
    heading = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in heading)  # a name may hold a new line
    lines = [f"# {heading}", "# Lines that begin with # are defaults, or examples where a key is left out by default (None)."]
    for table in tables():
        for path in table.paths:
            first = path == table.paths[0]
            header = table.header(path)
            lines += ["", *(_comment(table.text) if first else ()), f"# {header}" if table.repeated else header]
            for key in table.keys:
                value = given.get(f"{path}.{key.name}")
                lines += _comment(f"{key.text} ({key.kind})") if first else ()
                usual = key.example if key.default in (None, "[]", '""') else key.default
                lines.append(f"# {key.name} = {usual}" if value is None else f"{key.name} = {toml(value)}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text.replace("`", ""), WIDTH, initial_indent="# ", subsequent_indent="# ")

"""What report.json holds, for its readers: a page of every field, and a JSON schema, both made of the types of reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from dtvit_deploy.artifacts.described import Vocabulary, attributes, in_words, is_absent, plain, structs_of, summary, unit_of
from dtvit_deploy.report.schema import SCHEMA, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INTRODUCTION = f"""\
# report.json

Every field of a report, with its unit. `run` writes `report.json`, and so do `verify`, `evaluate` and `profile` with `--out`; Markdown and
HTML are made from it, and `dtvit-deploy report` makes them again. [report.schema.json](report.schema.json) is the same as a JSON schema,
which `dtvit-deploy report --schema` prints. This is schema {SCHEMA}; a report of another one is refused.

All fields of a type are written, those without a value as `null`. A number that is not finite (an SQNR where nothing differs) is the
largest double, since JSON has none. `1` is the unit of a ratio, `count` that of a number of things; other units are spelt out.

This page is made from the types by `make docs`; what is said here is said there."""


class Field(NamedTuple):
    """One field of a type.

    Attributes:
        unit: of its numbers; empty where it holds none, None where nothing tells it.
        text: what it means; empty where nothing says.
    """

    name: str
    kind: str
    unit: str | None
    text: str


class Kind(NamedTuple):
    """One type of object in a report."""

    name: str
    text: str
    fields: tuple[Field, ...]


def kinds() -> tuple[Kind, ...]:
    """Every type of object, the report's own first, each before those within it."""
    return tuple(_kind(one) for one in _structs())


def _structs() -> Iterator[inspect.StructType]:
    known: set[type] = set()
    left = list(structs_of(inspect.type_info(Report)))
    while left:
        one = left.pop(0)
        if one.cls in known:
            continue
        known.add(one.cls)
        yield one
        left = [inner for field in one.fields for inner in structs_of(field.type)] + left


def _kind(one: inspect.StructType) -> Kind:
    texts = attributes(one.cls)
    fields = (
        Field(
            field.encode_name,
            in_words(field.type, _WORDS) + (", or null" if is_absent(field.type) else ""),
            unit_of(field.encode_name, field.type),
            plain(texts.get(field.name, "")),
        )
        for field in one.fields
    )
    return Kind(one.cls.__name__, plain(summary(one.cls)), tuple(fields))


def _link(kind: inspect.StructType) -> str:
    return f"[{kind.cls.__name__}](#{kind.cls.__name__.lower()})"


_WORDS = Vocabulary(struct=_link, mapping="by name", path="path")


def page() -> str:
    """``docs/report.md``."""
    lines = [_INTRODUCTION]
    for kind in kinds():
        lines += ["", f"## {kind.name}", "", kind.text, "", "| field | type | unit | |", "|---|---|---|---|"]
        for field in kind.fields:
            cells = f"`{field.name}`", field.kind, field.unit or "", field.text
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """The schema that every report keeps to, with the page's words."""
    (top,), types = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    for kind in kinds():
        described = types[kind.name]
        described["description"] = kind.text
        for field in kind.fields:
            about = {"description": field.text} | ({"unit": field.unit} if field.unit else {})
            described["properties"][field.name].update(about)
    types[Report.__name__]["properties"]["schema"]["const"] = SCHEMA
    return {"$schema": DIALECT, "title": "report.json of dtvit-deploy", **top, "$defs": types}

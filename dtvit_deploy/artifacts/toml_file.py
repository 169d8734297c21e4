"""A TOML file that a person wrote, or somebody else for them: read within bounds of size and depth."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from dtvit_deploy.artifacts.nesting import require_shallow_toml
from dtvit_deploy.errors import InputError

LARGEST = 1 << 20
"""Bytes: what people write is a page of text."""
_QUOTES = "'"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a file.

    Args:
        what: it should be, for messages: ``a recipe``.

    Raises:
        InputError: it cannot be read, is too large or too deep, or no TOML.
    """
    name = what.partition(" ")[2]
    if not path.is_file():  # also a device or a pipe, which might never end
        raise InputError(f"there is no {name} at {path}", remedy="give a TOML file")
    text = ""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise InputError(f"{path} is larger than {LARGEST:,} bytes; no {name} is that large")
        # By name, since mypy checks for 3.10, which has no tomllib, in environments that need no tomli.
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        text = content.decode()
        require_shallow_toml(text)
        raw: dict[str, Any] = toml.loads(text)
    except ValueError as error:
        if again := _said_twice(str(error), text):
            raise InputError(f"{path}: {again[0]} ({error})", remedy=again[1]) from error
        raise InputError(f"{path} is not {what}: {error}", remedy="give a TOML file in UTF-8") from error
    except (OSError, RecursionError) as error:
        raise InputError(f"{path} is not {what}: {error}", remedy="give a TOML file in UTF-8") from error
    return raw


def _said_twice(told: str, text: str) -> tuple[str, str] | None:
    """What a file says twice, and what to do, where it is that which the parser tells of; the parser names a place, and seldom the key."""
    if found := re.match(r"Cannot declare \((.*?),?\) twice", told):
        table = ".".join(re.findall(r"'([^']*)'", found[1]))
        return (
            f"[{table}] is there twice, or beside keys of it that were written elsewhere",
            f"write one [{table}], and all its keys below it",
        )
    if found := re.match(r"Duplicate inline table key (.*?) \(at", told):
        return f"the key {found[1].strip(_QUOTES)} is there twice in one table", "keep one of the two"
    if not told.startswith("Cannot overwrite a value"):
        return None
    place = re.search(r"at line (\d+)", told)
    before = text.split("\n")[: int(place[1]) if place else None]
    for line in reversed(before):  # a value may have several lines, and the parser names the last
        if line.lstrip().startswith("[") and "=" not in line:
            return f"{line.strip()} is a table, and has a value already", "keep one of the two"
        if "=" in line:
            return f"the key {line.partition('=')[0].strip()} is there twice", "keep one of the two"
    return None

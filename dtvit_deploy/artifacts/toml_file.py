"""A TOML file that a person wrote, or somebody else for them: read within bounds of size and depth."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from dtvit_deploy.artifacts.nesting import require_shallow_toml
from dtvit_deploy.errors import InputError

LARGEST = 1 << 20
"""Bytes: what people write is a page of text."""


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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not {what}: {error}", remedy="give a TOML file in UTF-8") from error
    return raw

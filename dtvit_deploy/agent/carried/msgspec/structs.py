"""Changing a struct that does not change."""

from __future__ import annotations

from typing import Any

from .structure import Struct


def replace(struct: Struct, /, **changes: Any) -> Any:
    """A copy with other values of some fields.

    Raises:
        TypeError: there is no such field.
    """
    return type(struct)(**{**asdict(struct), **changes})


def asdict(struct: Struct) -> dict[str, Any]:
    """Values by field; those within are as they are."""
    return {name: getattr(struct, name) for name in struct.__struct_fields__}

"""The part of msgspec that the agent's modules use, in Python alone: a device has no such package, and the agent installs none.

In the agent's archive this folder is the package ``msgspec``. Every struct of the agent behaves in it as with msgspec itself, which a test
holds it to; what the agent does not use is not here, and fails as it is imported.
"""

from __future__ import annotations

from . import json, structs
from .conversion import convert, to_builtins
from .errors import DecodeError, MsgspecError, ValidationError
from .structure import Meta, Struct, defstruct, field

__all__ = [
    "DecodeError",
    "Meta",
    "MsgspecError",
    "Struct",
    "ValidationError",
    "convert",
    "defstruct",
    "field",
    "json",
    "structs",
    "to_builtins",
]

"""What a recipe calls the flags that a message names: who wrote a recipe typed none of them."""

from __future__ import annotations

import re

from dtvit_deploy.cli import flags
from dtvit_deploy.cli.flag import Flag


def keys_of(text: str) -> str:
    """``--arm64 is export.cpu``, for each flag in a text whose key is not in it too; empty where there is none."""
    told = []
    for word in dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)):
        keys = _keys().get(word, ())
        if keys and not any(key in text for key in keys):
            told.append(f"{word} is {' or '.join(keys)}")
    return "; ".join(told)


def _keys() -> dict[str, list[str]]:
    """Keys by what is typed for them; commands may type one word for several."""
    found: dict[str, list[str]] = {}
    for value in vars(flags).values():
        for flag in value if isinstance(value, tuple) else (value,):
            if isinstance(flag, Flag):
                for word in (word for typed in flag.typed for word in typed.split("/")):
                    keys = found.setdefault(word, [])
                    keys += [flag.key] if flag.key not in keys else []
    return found

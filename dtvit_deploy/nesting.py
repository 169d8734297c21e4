"""How deep a text file may be nested, found before it is parsed: depth costs a parser memory and time that no limit on size bounds.

A dotted key of 20,000 parts is 40 kB of TOML, and takes Python's parser two gigabytes; JSON that is nested a thousand times is read, and
then ends whoever walks through it.
"""

from __future__ import annotations

import re

DEEPEST = 64
"""Levels. A recipe has three, a report twelve."""
_JSON_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*"?', re.DOTALL)  # also without its end, or each quote would be looked for to the end
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TOML_STRING = re.compile(
    r'"""(?:[^"\\]+|\\.|"(?!""))*(?:""")?'  # of several lines
    r"|'''(?:[^']+|'(?!''))*(?:''')?"
    r'|"(?:[^"\\\n]+|\\.)*"?'
    r"|'[^'\n]*'?"
    r"|\#[^\n]*",
    re.DOTALL,
)
_TOML_TOKEN = re.compile(r"[.=,\n\[\]{}]")


def require_shallow_json(content: bytes) -> None:
    """Refuse JSON that is nested deeper than `DEEPEST`.

    Raises:
        ValueError: it is.
    """
    if content.count(b"[") + content.count(b"{") <= DEEPEST:
        return
    depth = 0
    for bracket in _JSON_STRING.sub(b"", content).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        _require_depth(depth)


def require_shallow_toml(text: str) -> None:
    """Refuse TOML whose keys have more than `DEEPEST` parts, or whose values are nested deeper; each part of a key is a table.

    Raises:
        ValueError: it is.
    """
    depth = parts = 0
    for token in _TOML_TOKEN.findall(_TOML_STRING.sub("s", text)):
        if token == ".":
            parts += 1
            _require_depth(parts)
            continue
        parts = 0
        if token in "[{":
            depth += 1
            _require_depth(depth)
        elif token in "]}":
            depth -= 1


def _require_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")

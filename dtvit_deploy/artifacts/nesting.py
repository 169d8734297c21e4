"""How deep a text file may be nested, found before it is parsed: depth costs a parser memory and time that no limit on size bounds.

A dotted key of 20,000 parts is 40 kB of TOML, and takes Python's parser two gigabytes; JSON that is nested a thousand times is read, and
then ends whoever walks through it.
"""

from __future__ import annotations

import re

DEEPEST = 64
"""Levels. A recipe has three, a report twelve."""
# Patterns repeat single characters alone: whoever repeats a choice has Python remember each turn, hundreds of bytes for two of the text.
# That needs texts without escaped quotes. A string may lack its end, or each quote would be looked for to the end of the text.
_JSON_TOKEN = re.compile(rb'"[^"]*"?|[\[{]+|[\]}]+')
_NO_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_TOML_TOKEN = re.compile(
    r'"""[\s\S]*?(?:"{3,5}|\Z)'  # of several lines; it may end in quotes of its own
    r"|'''[\s\S]*?(?:'{3,5}|\Z)"
    r'|"[^"\n]*"?'
    r"|'[^'\n]*'?"
    r"|\#[^\n]*"
    r"|[.=,\n\[\]{}]"
)


def require_shallow_json(content: bytes) -> None:
    """Refuse JSON that is nested deeper than `DEEPEST`.

    Raises:
        ValueError: it is.
    """
    if content.count(b"[") + content.count(b"{") <= DEEPEST:
        return
    quoted = content.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_STRUCTURE)
    depth = 0
    for token in _JSON_TOKEN.finditer(quoted.replace(b'""', b"")):  # two quotes in a row change nothing of what is between others
        run = token[0]
        if not run.startswith(b'"'):
            depth += len(run) if run[:1] in b"[{" else -len(run)
            _require_depth(depth)


def require_shallow_toml(text: str) -> None:
    """Refuse TOML whose keys have more than `DEEPEST` parts, or whose values are nested deeper; each part of a key is a table.

    Raises:
        ValueError: it is.
    """
    depth = parts = 0
    # An escape becomes a letter: without it, the quotes on its sides could be three.
    for found in _TOML_TOKEN.finditer(text.replace("\\\\", "s").replace('\\"', "s")):
        token = found[0]
        if token[0] in "\"'#":
            continue
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

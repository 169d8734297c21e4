"""What a device or a program says, as far as it may be shown: from elsewhere, so that it is cut, and cannot move a cursor."""

from __future__ import annotations

LONGEST = 300
"""Letters."""


def shown(said: bytes | str, longest: int = LONGEST) -> str:
    """Text in one line, without anything that a terminal would obey."""
    text = said[: 8 * longest].decode(errors="replace") if isinstance(said, bytes) else said[: 8 * longest]
    text = "".join(each if each.isprintable() else " " for each in text)
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def last_line(said: bytes) -> str:
    """The last line that says something, as it may be shown: programs end with the reason."""
    lines = (shown(line) for line in reversed(said.splitlines()[-20:]))
    return next((line for line in lines if line), "")

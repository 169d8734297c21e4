"""Text from elsewhere, as it may be shown: what a device or a program says is not trusted on a terminal, in HTML or in a log."""

from __future__ import annotations

from collections.abc import Mapping

LONGEST = 2000
"""Letters of a text; what is longer is cut."""
BRIEF = 300
"""Letters of what is quoted within a message."""
_MOST_FACTS = 200
HALF = "FP16 arithmetic"
"""Fact of a device with ARM cores: whether they have it, ``yes`` or ``no``."""


def clean(text: str, longest: int = LONGEST) -> str:
    """A text from elsewhere for a terminal, a report or a line of a log: printable, of one line, cut."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in text[:longest])


def shown(said: bytes | str) -> str:
    """The same within a message: briefer, words one space apart, and with an ellipsis where it was cut."""
    text = said[: 8 * BRIEF].decode(errors="replace") if isinstance(said, bytes) else said
    text = " ".join(clean(text, 8 * BRIEF).split())
    return text if len(text) <= BRIEF else f"{text[: BRIEF - 1]}…"


def last_line(said: bytes) -> str:
    """The last line that says something, as it may be shown: programs end with the reason."""
    lines = (shown(line) for line in reversed(said.splitlines()[-20:]))
    return next((line for line in lines if line), "")


def cleaned(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts from elsewhere: so many, and each as `clean` leaves it."""
    return {clean(str(name))[:100]: clean(str(each)) for name, each in list(facts.items())[:_MOST_FACTS]}


def text_of(value: object) -> str:
    """The same of whatever JSON has; empty where it is no text."""
    return clean(value) if isinstance(value, str) else ""

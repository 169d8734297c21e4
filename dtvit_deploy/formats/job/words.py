"""Text from elsewhere, as it may be shown: what a device says is not trusted on a terminal, in HTML or in a log."""

from __future__ import annotations

from collections.abc import Mapping

LONGEST = 2000
"""Letters of a text; what is longer is cut."""
_MOST_FACTS = 200
HALF = "FP16 arithmetic"
"""Fact of a device with ARM cores: whether they have it, ``yes`` or ``no``."""


def clean(text: str) -> str:
    """A text from elsewhere for a terminal, a report or a line of a log: printable, of one line, cut."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:LONGEST].replace("\n", " "))


def cleaned(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts from elsewhere: so many, and each as `clean` leaves it."""
    return {clean(str(name))[:100]: clean(str(each)) for name, each in list(facts.items())[:_MOST_FACTS]}


def text_of(value: object) -> str:
    """The same of whatever JSON has; empty where it is no text."""
    return clean(value) if isinstance(value, str) else ""

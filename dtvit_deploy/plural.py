"""How a sentence counts: one token, two tokens; and what it lists: the first few, and how many more."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """``1 token``, ``2 tokens``, ``1,000 tokens``; every noun that is counted here ends in s when there are several."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Iterable[str], most: int = 5, noun: str = "", separator: str = ", ") -> str:
    """``a, b and 3 more``, or ``a, b and 1 more module`` where ``noun`` says what they are: the first ``most``, the rest counted."""
    listed = list(names)
    shown, more = separator.join(listed[:most]), len(listed) - most
    if more <= 0:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {counted(more, f'more {noun}') if noun else f'{more:,} more'}"

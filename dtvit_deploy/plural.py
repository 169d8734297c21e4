"""How a sentence counts: one token, two tokens."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 token``, ``2 tokens``, ``1,000 tokens``; every noun that is counted here ends in s when there are several."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""Figures as text: with as many digits as they deserve, and never rounder than they are."""

from __future__ import annotations

import math
import sys
import unicodedata

ABSENT = "–"
_INFINITE = 1e300
"""From here on a number stands for infinity (see :func:`storable`)."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of text, with which a file name can pretend to be another."""


def storable(value: float) -> float:
    """The number, or the largest double with its sign for what JSON cannot hold; the sign of NaN, which means nothing, is dropped."""
    return value if math.isfinite(value) else -sys.float_info.max if value < 0 else sys.float_info.max


def infinite(value: float) -> bool:
    return not abs(value) < _INFINITE  # NaN too


def plain(text: str) -> str:
    """One line of text that any page can show: control characters, line ends and broken surrogates become visible."""
    if text.isascii() and text.isprintable():
        return text
    text = " ".join(text.split("\n")) if "\n" in text else text
    return "".join("\N{REPLACEMENT CHARACTER}" if _unfit(character) else character for character in text)


def _unfit(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "\ufffe\uffff"


def number(value: float | None) -> str:
    """Three digits with an exponent, as errors are compared by their magnitude."""
    if value is None:
        return ABSENT
    if infinite(value):
        return "−∞" if value < 0 else "∞"
    return "0" if value == 0 else f"{value:.2e}"


def decibel(value: float | None) -> str:
    if value is None:
        return ABSENT
    return number(value) if infinite(value) else f"{value:.1f}"


def cosine(value: float | None) -> str:
    return ABSENT if value is None else _unrounded(value, 6)


def share(value: float | None) -> str:
    """In per cent; only what is all of it reads 100%."""
    if value is None:
        return ABSENT
    return "100%" if value == 1 else f"{_unrounded(value * 100, 2, 100.0)}%"


def _unrounded(value: float, digits: int, whole: float = 1.0) -> str:
    """With more digits where fewer would make it the whole, which it is not."""
    while value < whole and digits < 16 and float(f"{value:.{digits}f}") >= whole:
        digits += 1
    return f"{value:.{digits}f}"


def interval(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"[{value[0] * 100:.1f}–{value[1] * 100:.1f}%]"


def milliseconds(value: float | None) -> str:
    if value is None:
        return ABSENT
    if infinite(value):
        return number(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """Of two times, with three decimals."""
    return ABSENT if value is None else f"{value:.3f}"


def megabytes(size: float | None) -> str:
    """Of a number of bytes; absent for the reference, which is no file."""
    return f"{size / 1e6:.{2 if size >= 1e6 else 3}f}" if size else ABSENT


def change(ratio: float) -> str:
    """A relative change, in per cent with its sign."""
    return f"{ratio * 100:+.1f}%".replace("-", "−") if math.isfinite(ratio) else number(ratio)

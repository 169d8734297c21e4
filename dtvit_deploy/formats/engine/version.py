"""Versions of NVIDIA's libraries, as whoever wrote them down wrote them."""

from __future__ import annotations

_LEAST = 3
"""Numbers without which a version names no release."""


def numbers(version: str) -> tuple[int, ...]:
    """``10.3.0.26`` → (10, 3, 0, 26); what follows the numbers does not count."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits[:9]))  # Python refuses to read thousands of them
        if digits != part:
            break
    return tuple(found) or (0,)


def is_same(library: str, one: str, other: str) -> bool:
    """Whether two are one to a library: TensorRT compares builds too, where both are known; TensorRT-RTX does not.

    A Jetson's Python module gives three numbers, the engines that it builds four.
    """
    ours, theirs = numbers(one), numbers(other)
    known = min(len(ours), len(theirs), _LEAST if library == "tensorrt-rtx" else 4)
    return known >= _LEAST and ours[:known] == theirs[:known]

"""How far apart two answers are: arrays in, figures out, and no judgement of what is too far."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def noise_floor(answers: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Greatest |Δ| of pairs of answers that ought to be equal, in their own units; infinite when an answer is not finite.

    Of whole numbers, the greatest share that differs, 0 to 1.
    """
    floor = 0.0
    for one, other in answers:
        if not np.issubdtype(one.dtype, np.floating):
            floor = max(floor, float((one != other).mean()) if one.size else 0.0)
            continue
        floor = max(floor, magnitude(moved(one.astype(np.float64), other.astype(np.float64))))
    return floor


def sqnr(reference: NDArray[Any], answer: NDArray[Any]) -> float:
    """Signal to noise ratio in dB: 10·log10(Σ reference² / Σ (answer - reference)²), of arrays of one shape.

    Infinite where nothing differs; -∞ where an answer is not finite, or the reference is zero all over.
    """
    one = reference.astype(np.float64)
    signal, noise = float(np.square(one).sum()), float(np.square(moved(one, answer.astype(np.float64))).sum())
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def moved(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """|Δ| of each value."""
    with np.errstate(invalid="ignore"):  # ∞ - ∞ is NaN, and counts as such
        return np.abs(other - one)


def magnitude(values: NDArray[Any]) -> float:
    """The greatest |x|, 0 of no values; infinite when one of them is not finite."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest if math.isfinite(largest) else math.inf


def cosine(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Cosine similarity of two arrays of one shape, -1 to 1; -1 when one of them is not finite."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(two))
    if norms == 0:
        return 1.0 if np.array_equal(one, two) else 0.0
    similarity = float(np.vdot(one, two)) / norms
    return max(-1.0, min(similarity, 1.0)) if math.isfinite(similarity) else -1.0


def top1(reference: NDArray[Any], answer: NDArray[Any], tolerance: float) -> tuple[float | None, int]:
    """Agreement and near-ties of (samples, 1, K) or (samples, K) scores with K ≥ 2; (None, 0) for every other shape."""
    rows = reference.reshape(len(reference), -1)
    if reference.shape[-1] < 2 or rows.shape[1] != reference.shape[-1]:
        return None, 0
    others = answer.reshape(rows.shape)
    finite = np.isfinite(rows).all(1) & np.isfinite(others).all(1)
    best, chosen = rows.argmax(1), others.argmax(1)
    same = (best == chosen) & finite
    row = np.arange(len(rows))
    near = ~same & finite & (moved(rows[row, chosen], rows[row, best]) <= 2 * tolerance)
    return float(same.mean()), int(near.sum())

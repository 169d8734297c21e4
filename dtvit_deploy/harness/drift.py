"""Did a machine change while it was measured?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.harness.apart import percents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNIFICANT = 0.01
"""Chance that a series without any change looks as changed as this one (Pettitt's test); below it, a change is believed."""


def drift_of(samples_ms: Sequence[float], limit: float) -> str | None:
    """Why a series is called changed, if it is: a trend between its outer thirds, or a step anywhere.

    Medians differ by chance when the spread is wide, so a difference counts only when ranks say that it is no chance.
    """
    import numpy as np

    samples: NDArray[np.float64] = np.asarray(samples_ms, np.float64)
    third = len(samples) // 3
    if not third:
        return None
    step, chance = _pettitt(samples)

    def change(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float, float]:
        first, last = float(np.median(before)), float(np.median(after))
        return (last / first - 1 if first else math.inf), first, last

    trend, sides = change(samples[:third], samples[-third:]), change(samples[:step], samples[step:])
    # A step changes the thirds by no more than its sides; a straight line changes them by a third more (2/3 of it against 1/2).
    stepped = abs(sides[0]) > max(limit, 0.85 * abs(trend[0]))
    relative, first, last = sides if stepped else trend
    if chance >= SIGNIFICANT or abs(relative) <= limit:
        return None
    where = f"at a step near sample {step} of {len(samples)}" if stepped else "from the first third of the samples to the last"
    moved, allowed = percents(relative, limit, signed=True)
    return f"drift: the median went {moved}, {first:.4g} → {last:.4g} ms, {where} (limit {allowed})"


def _pettitt(samples: NDArray[np.float64]) -> tuple[int, float]:
    """Pettitt's test (1979): after which sample the level most likely changed, and the chance of as much in a steady series."""
    import numpy as np

    count = len(samples)
    _, value, repeats = np.unique(samples, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(repeats) - (repeats - 1) / 2)[value]  # ties share their mean rank
    statistic = np.abs(2 * np.cumsum(ranks) - np.arange(1, count + 1) * (count + 1))[:-1]
    place = int(np.argmax(statistic))
    return place + 1, min(1.0, 2 * math.exp(-6 * float(statistic[place]) ** 2 / (count**3 + count**2)))

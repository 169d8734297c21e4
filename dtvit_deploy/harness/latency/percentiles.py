"""Percentiles of latencies, and whether there are samples enough to tell them.

A percentile of samples is a guess at that of the device, and a guess from few samples is as often too low as too high. MLPerf's LoadGen
puts another figure beside it, the *early stopping estimate*: a sample so far up that, for independent runs, the device's percentile lies
above it with a chance of at most 1 %. Of n samples the largest t is sought for which ``P(Binomial(n, 1 - p) ≤ t) ≤ 0.01``. That is
LoadGen's ``h(t) + t ≤ n``, with h the smallest count of runs within the percentile that keeps the regularised incomplete beta function
``I(p; h, t + 1)`` at 0.01. The t - 1 slowest samples are discarded, and the estimate is the slowest that is left
(``loadgen/results.cc`` and ``early_stopping.cc`` of mlcommons/inference); it is one sample on the safe side, since the next one would do.

With too few samples for t = 1 there is no estimate, and the percentile itself is withheld: it would be the maximum, or as good as it.
Percentiles are named by their per mille here, so that no rank depends on how a decimal is rounded.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

P50, P90, P99, P99_9 = 500, 900, 990, 999
"""Per mille."""
CHANCE = 0.01
"""Of the device's percentile lying above its early stopping estimate: one less LoadGen's confidence."""


def nearest_rank(ordered: Sequence[float], per_mille: int) -> float:
    """The smallest of the samples, given in ascending order, that at least so many of them do not exceed."""
    return ordered[-(-per_mille * len(ordered) // 1000) - 1]


def percentile(ordered: Sequence[float], per_mille: int) -> float | None:
    """The nearest rank, or None where there are fewer samples than early stopping needs."""
    return nearest_rank(ordered, per_mille) if overlatency(len(ordered), per_mille) >= 1 else None


def early_stopping(ordered: Sequence[float], per_mille: int) -> float | None:
    """LoadGen's early stopping estimate of samples in ascending order, or None where there are too few."""
    slowest = overlatency(len(ordered), per_mille)
    return ordered[-slowest] if slowest >= 1 else None


@functools.lru_cache(maxsize=256)
def overlatency(count: int, per_mille: int) -> int:
    """The largest t of which ``count`` runs have no more beyond their percentile with a chance of at most 1 %; -1 where not even 0.

    LoadGen discards one sample less.
    """
    inside, beyond = per_mille / 1000, (1000 - per_mille) / 1000
    log_chance, total = count * math.log(inside), 0.0  # in logarithms, since 0.9 to the power of 20,000 is no double
    for slow in range(count + 1):
        total += math.exp(log_chance)
        if total > CHANCE:
            return slow - 1
        log_chance += math.log((count - slow) * beyond) - math.log((slow + 1) * inside) if slow < count else 0.0
    return count


@functools.lru_cache(maxsize=8)
def fewest(per_mille: int) -> int:
    """Samples from which a percentile is told: 11 for p50, 64 for p90, 662 for p99, 6,636 for p99.9."""
    return next(count for count in itertools.count(2) if overlatency(count, per_mille) >= 1)

"""Rounds drawn again: how far medians would have been others, had the same machine been measured once more.

Rounds are drawn whole, which keeps what the machine did to all candidates of one, and in blocks of neighbours, since a noisy machine stays
noisy for a while and single draws would look too certain. What differs from one process to the next is in no single run, and in no
interval that comes from one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1000
"""Bootstrap resamples: enough for the second digit of a 95 % interval."""
MOST_AT_ONCE = 200_000
"""Rounds that are drawn in one go: a few megabytes."""
SHORTEST_MS = 1e-12
"""Less than any clock can tell, and enough to divide by."""
INTERVAL = (2.5, 97.5)
"""Per cent of the resamples that lie below its ends."""


def common_rounds(measured: Sequence[Measurement]) -> NDArray[np.float64]:
    """Milliseconds of the rounds that all took part in, a row for each.

    Raises:
        InputError: a sample took no time.
    """
    import numpy as np

    count = min(len(one.samples_ms) for one in measured)
    rounds = np.array([one.samples_ms[:count] for one in measured])
    if (shortest := rounds.min()) < SHORTEST_MS:
        raise InputError(f"a latency of {shortest:.3g} ms has no ratio", remedy="measure with a finer clock")
    return rounds


def medians(rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, by the nearest rank, as p50."""
    import numpy as np

    middle = (rounds.shape[-1] - 1) // 2
    return np.partition(rounds, middle, axis=-1)[..., middle]


def resampled_medians(rounds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of each row, for each resample: shape (`RESAMPLES`, rows)."""
    import numpy as np

    count = rounds.shape[-1]
    block = max(round(count ** (1 / 3)), 1)
    found = np.empty((RESAMPLES, len(rounds)))
    at_once = max(1, MOST_AT_ONCE // count)
    for begin in range(0, RESAMPLES, at_once):
        part = found[begin : begin + at_once]
        starts = rng.integers(count, size=(len(part), -(-count // block), 1))
        places = ((starts + np.arange(block)) % count).reshape(len(part), -1)[:, :count]
        part[:] = medians(rounds[:, places]).T
    return found


def widening(processes: int) -> float:
    """From what resampling so few knows of them to what there is to know.

    A resample's spread is that of the sample, which is less than its source's by √(n − 1) of √n, and a normal distribution's quantile takes
    the place of Student's. That one is Fisher's expansion (Abramowitz and Stegun, 26.7.5), within half a per cent from four degrees on.
    """
    freedom = processes - 1
    z = statistics.NormalDist().inv_cdf(INTERVAL[1] / 100)
    quantile = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return quantile / z * math.sqrt(processes / freedom)

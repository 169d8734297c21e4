"""Two candidates of one ``measure`` against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1000
"""Bootstrap resamples: enough for the second digit of a 95 % interval."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of two medians and its 95 % interval, over ``rounds`` common rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


def ratio(a: Measurement, b: Measurement, *, seed: int = 0) -> Ratio:
    """Median of ``a`` in units of the median of ``b``, over the rounds both took part in.

    The interval is a bootstrap over rounds: a round's samples stay together, which keeps what the machine did to both, and rounds
    are drawn in blocks of neighbours, since a noisy machine stays noisy for a while and single draws would look too certain.

    Raises:
        InputError: a sample took no time.
    """
    import numpy as np

    rounds = min(len(a.samples_ms), len(b.samples_ms))
    pair = np.array([a.samples_ms[:rounds], b.samples_ms[:rounds]])
    middle = (rounds - 1) // 2  # nearest rank, as p50
    if pair.min() <= 0:
        raise InputError("a latency of 0 ms has no ratio", remedy="measure with a finer clock")

    def medians_ratio(drawn: NDArray[np.float64]) -> float:
        above, below = np.partition(drawn, middle, axis=-1)[:, middle]
        return float(above / below)

    rng = np.random.default_rng(seed)
    block = max(round(rounds ** (1 / 3)), 1)
    drawn = []
    for _ in range(RESAMPLES):
        starts = rng.integers(rounds, size=-(-rounds // block))
        rows = ((starts[:, None] + np.arange(block)) % rounds).ravel()[:rounds]
        drawn.append(medians_ratio(pair[:, rows]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Ratio(median=medians_ratio(pair), low=float(low), high=float(high), rounds=rounds)

"""Two candidates of one ``measure`` against each other."""

from __future__ import annotations

import msgspec

from dtvit_deploy.harness.latency.measurement import Measurement
from dtvit_deploy.harness.latency.resampling import INTERVAL, common_rounds, medians, resampled_medians


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of two medians and its 95 % interval, over ``rounds`` common rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


def ratio(a: Measurement, b: Measurement, *, seed: int = 0) -> Ratio:
    """Median of ``a`` in units of the median of ``b``, over the rounds both took part in; the interval is a bootstrap over those rounds.

    Raises:
        InputError: a sample took no time.
    """
    import numpy as np

    rounds = common_rounds((a, b))
    above, below = medians(rounds)
    drawn = resampled_medians(rounds, np.random.default_rng(seed))
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], INTERVAL)
    return Ratio(median=float(above / below), low=float(low), high=float(high), rounds=rounds.shape[-1])

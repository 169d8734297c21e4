"""One candidate in two runs: by how much its median grew, and how well their samples know that.

Runs of different days share no rounds, so each is divided by a yardstick that was measured in its own rounds, where there is one, and
resampled for itself. A machine that became slower as a whole slows the yardstick too, and the ratio stays.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import Measurement
from dtvit_deploy.harness.latency.resampling import INTERVAL, RESAMPLES, common_rounds, medians, resampled_medians, widening

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST_RUNS = 3
"""Earlier runs from which something is known of what differs between runs."""
FEWEST_FOR_SIDES = 5
"""Those from which it is known to which side: of three, one may lie far off, and by luck none on the side that counts."""


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run found: a median in milliseconds, or in units of a yardstick's, with its 95 % interval."""

    median: float
    low: float
    high: float


class Growth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A relative change as a share of what was before, with its 95 % interval; 0.03 is 3 % slower.

    Attributes:
        runs: earlier runs that it is held against.
    """

    share: float
    low: float
    high: float
    runs: int = 1

    def __str__(self) -> str:
        share, low, high = (f"{100 * each:+.1f}".replace("-", "−") for each in (self.share, self.low, self.high))
        return f"{share} % ({low} to {high} %)"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's measurement, and that of its yardstick in the same rounds; None where it is compared in milliseconds."""

    measured: Measurement
    yardstick: Measurement | None = None

    def median(self) -> float:
        """In units of the yardstick's, over the rounds that both took part in.

        Raises:
            InputError: a sample took no time.
        """
        return float(_level(medians(self._rounds())))

    def drawn(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """The same of each resample, `RESAMPLES` of them."""
        return _level(resampled_medians(self._rounds(), rng))

    def level(self, *, seed: int = 0) -> Level:
        """The median with its interval."""
        import numpy as np

        low, high = np.percentile(self.drawn(np.random.default_rng(seed)), INTERVAL)
        return Level(median=self.median(), low=float(low), high=float(high))

    def _rounds(self) -> NDArray[np.float64]:
        return common_rounds([self.measured] if self.yardstick is None else [self.measured, self.yardstick])


def growth(before: Run, after: Run, *, seed: int = 0) -> Growth:
    """By how much ``after`` is slower than ``before``.

    The interval is of these two runs: what differs between processes of the same artefact is not in it, and is what a band is for.

    Raises:
        InputError: a sample took no time.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    low, high = np.percentile(after.drawn(rng) / before.drawn(rng), INTERVAL)
    return Growth(share=after.median() / before.median() - 1, low=float(low) - 1, high=float(high) - 1)


def typical(earlier: Sequence[Level]) -> float:
    """The median of earlier runs, the geometric mean of the middle two where their number is even.

    Raises:
        InputError: there is none, or one of no time.
    """
    if not earlier or any(not 0 < each < math.inf for one in earlier for each in (one.median, one.low, one.high)):
        raise InputError("earlier runs must have taken some time, and there must be one at least")
    return math.exp(statistics.median(math.log(one.median) for one in earlier))


def growth_over(earlier: Sequence[Level], after: Run, *, seed: int = 0) -> Growth:
    """By how much ``after`` is slower than the median of earlier runs.

    Each resample draws as many of the earlier runs as there are, each within its own interval, and takes their median. From
    `FEWEST_RUNS` on the new run is moved by what one of those was off their median by: it is one more draw of whatever differs from run to
    run, which no run's own samples know. Those were taken from a median of their own, and few runs look more alike than they are, so what
    they are off by is widened for both.

    Raises:
        InputError: there is no earlier run, or one of no time; a sample took no time.
    """
    import numpy as np

    base_median = typical(earlier)
    rng = np.random.default_rng(seed)
    logs = np.log([one.median for one in earlier])
    spread = np.log([one.high / one.low for one in earlier]) / (2 * 1.96)  # of each run's own interval, as of a normal one
    places = rng.integers(len(logs), size=(RESAMPLES, len(logs)))
    base = np.median(logs[places] + rng.standard_normal(places.shape) * spread[places], axis=1)
    drawn = np.log(after.drawn(rng))
    if len(logs) >= FEWEST_RUNS:
        off = (logs - np.median(logs)) * widening(len(logs))
        if len(off) < FEWEST_FOR_SIDES:
            off = np.concatenate([off, -off])
        drawn = drawn + rng.choice(off, size=RESAMPLES)
    low, high = np.expm1(np.percentile(drawn - base, INTERVAL))
    return Growth(share=after.median() / base_median - 1, low=float(low), high=float(high), runs=len(earlier))


def _level(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of medians of a candidate, or of a candidate and its yardstick, the one in units of the other."""
    return found[..., 0] / found[..., 1] if found.shape[-1] == 2 else found[..., 0]

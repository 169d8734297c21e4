"""Is B slower than A? Both are measured side by side, in several fresh processes, since a process is luck for as long as it lives.

Where code and weights come to lie, and what shares a cache line with what, is decided when a process loads them, and moves medians by some
per cent that no number of rounds averages out. So there are two levels: rounds within a process, which are resampled in blocks of
neighbours, and processes, which are resampled whole (as T. Kalibera and R. Jones have it in *Rigorous Benchmarking in Reasonable Time*,
2013). Few processes look more alike than they are; the interval is therefore widened from a normal distribution's to a Student's t with
one degree of freedom less than there are processes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.between_runs import Growth, Run
from dtvit_deploy.harness.latency.measurement import FEWEST_SAMPLES, Measurement
from dtvit_deploy.harness.latency.resampling import INTERVAL, RESAMPLES, widening
from dtvit_deploy.harness.verdict import percent
from dtvit_deploy.plural import counted

FEWEST_PROCESSES = 5
BAND = 0.005
"""Share that is no difference to anybody, whatever the interval says."""


class SideBySide(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of two candidates.

    Attributes:
        growth: of B over A, with the 95 % interval over both levels; ``runs`` are the processes.
        processes: B ÷ A in each of them.
        band: share within which a difference is none.
        found: ``slower`` or ``faster`` where the whole interval lies beyond the band, ``alike`` where all of it is within, else
            ``undecided``.
    """

    growth: Growth
    processes: tuple[float, ...]
    band: float
    found: Literal["slower", "faster", "alike", "undecided"]


def side_by_side(pairs: Sequence[tuple[Measurement, Measurement]], *, band: float = BAND, seed: int = 0) -> SideBySide:
    """Judge two candidates that were measured in the same rounds, A first, once in each of several processes.

    Raises:
        InputError: there are fewer than five processes, a sample took no time, or ``band`` is no share.
    """
    import numpy as np

    require_enough(len(pairs), band)
    rng = np.random.default_rng(seed)
    runs = [Run(measured=b, yardstick=a) for a, b in pairs]
    ratios = [run.median() for run in runs]
    rounds = np.log([run.drawn(rng) for run in runs])
    processes = rng.integers(len(runs), size=(RESAMPLES, len(runs)))
    drawn = rounds[processes, rng.integers(RESAMPLES, size=processes.shape)].mean(axis=1)
    centre = statistics.fmean(map(math.log, ratios))
    low, high = centre + widening(len(runs)) * (np.percentile(drawn, INTERVAL) - centre)
    growth = Growth(share=math.expm1(centre), low=math.expm1(low), high=math.expm1(high), runs=len(runs))
    return SideBySide(growth=growth, processes=tuple(ratios), band=band, found=_found(growth, band))


def require_enough(processes: int, band: float) -> None:
    """Refuse what nothing can be said of, before it is measured.

    Raises:
        InputError: there are fewer than five processes, or ``band`` is no share.
    """
    if processes < FEWEST_PROCESSES:
        raise InputError(f"{processes} processes say too little of what differs between them", remedy=f"take {FEWEST_PROCESSES} or more")
    if not 0 <= band < 1:
        told = f", which is {percent(band)}," if math.isfinite(band) else ""
        raise InputError(f"a difference of {band:g}{told} cannot be none", remedy="give a share from 0 to less than 1: 0.2 is 20 %")


def require_enough_samples(samples: int) -> None:
    """Refuse so few that no process could be VALID, before any is measured.

    Raises:
        InputError: they are fewer than a median is believed of.
    """
    if samples < FEWEST_SAMPLES:
        raise InputError(
            f"{counted(samples, 'sample')} asked for in each process; fewer than {FEWEST_SAMPLES} are INVALID, and decide nothing",
            remedy=f"take {FEWEST_SAMPLES} or more",
        )


def _found(growth: Growth, band: float) -> Literal["slower", "faster", "alike", "undecided"]:
    if growth.low > band:
        return "slower"
    if growth.high < -band:
        return "faster"
    return "alike" if -band <= growth.low and growth.high <= band else "undecided"

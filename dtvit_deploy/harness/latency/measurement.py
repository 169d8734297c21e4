"""One candidate's latency: its samples, their percentiles, and whether they can be believed.

At least 64 samples, because that is what MLPerf Inference asks of a single stream (inference rules, early stopping): the fewest
runs from which a 90th percentile can be bounded with 99 % confidence while one of them lies above the bound,
P(Binomial(64, 0.1) ≤ 1) = 0.0096. With fewer, the bound would be the maximum. Our p90 is the plain percentile of the samples.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.drift import drift_of
from dtvit_deploy.harness.state.energy import Energy
from dtvit_deploy.harness.state.record import Watched

FEWEST_SAMPLES = 64
"""Below this a measurement is INVALID, whatever was asked for."""
WARMUP_LIMIT = 0.05
"""Change of the median from one warm-up window to the next, below which the candidate is warm."""
COARSEST_TICK = 0.01
"""The clock's step in units of the median, above which the samples are mostly rounding."""


class MeasureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to measure and what to believe. Seconds are of a candidate's own runs, not of the others'.

    Attributes:
        min_samples, min_seconds: sampling goes on until every candidate has both, or, in place of the seconds, until all together took
            ten times as long. Fewer than 64 samples can be asked for, for a quick look, and are INVALID.
        max_samples, max_seconds: a candidate is sampled no further than either, and is INVALID if that leaves fewer than ``min_samples``.
        warmup_seconds, max_warmup_seconds: shortest and longest warm-up; at least ten runs in any case.
        drift_limit: change of the median within the measurement, relative to where it began.
        spread_limit: interquartile range in units of the median.
        energy_seconds: of a block in which one candidate runs alone while rails are read, where there are any; 0 for none.
    """

    min_samples: int = FEWEST_SAMPLES
    min_seconds: float = 3.0
    max_samples: int = 20_000
    max_seconds: float = 300.0
    warmup_seconds: float = 0.2
    max_warmup_seconds: float = 5.0
    drift_limit: float = 0.10
    spread_limit: float = 0.25
    energy_seconds: float = 2.5

    def __post_init__(self) -> None:
        if not 1 <= self.min_samples <= self.max_samples:
            raise InputError(f"{self.min_samples} samples at least and {self.max_samples} at most cannot both be")
        for low, high, what in (
            (self.min_seconds, self.max_seconds, "measuring"),
            (self.warmup_seconds, self.max_warmup_seconds, "warm-up"),
            (self.energy_seconds, self.energy_seconds, "energy"),
        ):
            if not 0 <= low <= high < math.inf:  # False for NaN too
                raise InputError(f"{what} of {low} s at least and {high} s at most cannot both be")
        if not (self.drift_limit > 0 and self.spread_limit > 0):
            raise InputError(f"the limits of drift and spread must be positive, not {self.drift_limit} and {self.spread_limit}")


class Warmup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came before sampling.

    Attributes:
        change: of the median, from the last window but one to the last.
        first_ms: the very first run, often the slowest by far.
    """

    runs: int
    seconds: float
    change: float
    first_ms: float

    @property
    def stable(self) -> bool:
        return self.change < WARMUP_LIMIT


class DeviceTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the clock of a device said of the same runs: the network alone, where the host's clock has transfers and calls in it too.

    Attributes:
        samples_ms: one for each of the host's samples; percentiles are nearest-rank.
    """

    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    p50: Amount
    p90: Amount
    p99: Amount


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The latency of one candidate, in milliseconds.

    Percentiles are nearest-rank: the smallest sample that at least q % of the samples do not exceed. It is a latency that really
    occurred, and it errs towards slow; interpolation would invent a value between the two modes of a machine that has two.

    Attributes:
        samples_ms: every sample, in the order taken. Sample i of all candidates of one ``measure`` is from the same round.
        stamps_s: when each began, in seconds since sampling began.
        iqr: p75 – p25.
        reasons: why it is INVALID, with figures; empty when VALID.
        notes: what a reader of the figures must know even when they are VALID.
        conditions: runtime, version, threads, precision, device: of the session, added by the caller.
        load_ms, peak_memory_mib: added by the caller, from a process of their own (:mod:`dtvit_deploy.runtimes.cold`).
        first_ms: the first run that ``measure`` made, unless the caller puts that of such a process in its place.
        device: the same runs by the device's own clock; None where there is none.
        state: of the machine around it; None where nobody watched.
        energy: of one inference, for each rail that could be read, the one that delivers most first.
    """

    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    stamps_s: tuple[Amount, ...]
    warmup_runs: Count
    stable: bool
    p50: Amount
    p90: Amount
    p99: Amount
    mean: Amount
    iqr: Amount
    min: Amount
    max: Amount
    status: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    conditions: dict[str, str] = {}
    load_ms: Amount | None = None
    first_ms: Amount | None = None
    peak_memory_mib: Amount | None = None
    device: DeviceTime | None = None
    state: Watched | None = None
    energy: tuple[Energy, ...] = ()

    @property
    def why_invalid(self) -> str:
        """``INVALID (drift, spread)``: what was wrong, without the figures, which ``reasons`` have; empty when VALID."""
        named = ", ".join(reason.partition(":")[0] for reason in self.reasons)
        return "" if self.status == "VALID" else f"INVALID ({named})"


class Samples(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of one candidate, wherever that was; everything that is said of it follows from this.

    Attributes:
        samples_ms, stamps_s: as of a `Measurement`.
        device_ms: the same runs by a device's own clock; empty where there is none.
        tick_ms: step of the clock that took the samples.
    """

    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    stamps_s: tuple[Amount, ...]
    warmup: Warmup
    tick_ms: Amount
    device_ms: tuple[Amount, ...] = ()

    def summary(self, options: MeasureOptions) -> Measurement:
        """Percentiles and validity."""
        found = summarise(self.samples_ms, self.stamps_s, options, warmup=self.warmup, tick_ms=self.tick_ms)
        return msgspec.structs.replace(found, device=device_time(self.device_ms)) if self.device_ms else found


def summarise(
    samples_ms: Sequence[float], stamps_s: Sequence[float], options: MeasureOptions, *, warmup: Warmup, tick_ms: float = 0.0
) -> Measurement:
    """Percentiles and validity of raw samples, wherever they were taken; ``tick_ms`` is the step of the clock that took them.

    Raises:
        InputError: there is no sample.
    """
    if not samples_ms:
        raise InputError("there is no latency sample to summarise")
    ordered = sorted(samples_ms)
    quartile, median, three_quarters = (_percentile(ordered, q) for q in (25, 50, 75))
    iqr = three_quarters - quartile
    reasons = []
    asked = max(options.min_samples, FEWEST_SAMPLES)
    if len(ordered) < asked:
        reasons.append(f"too few samples: {len(ordered)} of {asked} (in {sum(ordered) / 1e3:.1f} s of runs)")
    if not warmup.stable:
        reasons.append(
            f"warm-up: after {warmup.runs} runs and {warmup.seconds:.1f} s the median still changed by {warmup.change:.0%}"
            f" from one window to the next (limit {WARMUP_LIMIT:.0%})"
        )
    if median <= 0 or tick_ms > COARSEST_TICK * median:
        reasons.append(f"timer: the clock's step, {tick_ms:.3g} ms, is too coarse for a median of {median:.3g} ms")
    else:
        if drift := drift_of(samples_ms, options.drift_limit):
            reasons.append(drift)
        if iqr > options.spread_limit * median:
            reasons.append(f"spread: the IQR of {iqr:.3g} ms is {iqr / median:.0%} of the median (limit {options.spread_limit:.0%})")
    few = len(ordered) < 100
    return Measurement(
        samples_ms=tuple(samples_ms),
        stamps_s=tuple(stamps_s),
        warmup_runs=warmup.runs,
        stable=warmup.stable,
        p50=median,
        p90=_percentile(ordered, 90),
        p99=_percentile(ordered, 99),
        mean=statistics.fmean(ordered),
        iqr=iqr,
        min=ordered[0],
        max=ordered[-1],
        status="INVALID" if reasons else "VALID",
        reasons=tuple(reasons),
        notes=(f"p99 is the maximum: {len(ordered)} samples, and a 99th percentile needs 100",) if few else (),
        first_ms=warmup.first_ms,
    )


def device_time(samples_ms: Sequence[float]) -> DeviceTime:
    """Percentiles of a device's own times."""
    ordered = sorted(samples_ms)
    p50, p90, p99 = (_percentile(ordered, q) for q in (50, 90, 99))
    return DeviceTime(samples_ms=tuple(samples_ms), p50=p50, p90=p90, p99=p99)


def _percentile(ordered: Sequence[float], q: int) -> float:
    return ordered[-(-q * len(ordered) // 100) - 1]

"""One candidate's latency: its samples, their percentiles, and whether they can be believed.

At least 64 samples, because that is what MLPerf Inference asks of a single stream (inference rules, early stopping): the fewest
runs from which a 90th percentile can be told with 99 % confidence, P(Binomial(64, 0.1) ≤ 1) = 0.0096. Percentiles further out need
more, and are withheld without them (:mod:`dtvit_deploy.harness.latency.percentiles`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count, Milliseconds
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.apart import percents
from dtvit_deploy.harness.drift import drift_of
from dtvit_deploy.harness.latency.percentiles import P50, P90, P99, P99_9, early_stopping, fewest, nearest_rank, percentile
from dtvit_deploy.harness.latency.starts import Starts
from dtvit_deploy.harness.latency.sustained import Sustained, sustained
from dtvit_deploy.harness.state.energy import Energy
from dtvit_deploy.harness.state.record import Watched

FEWEST_SAMPLES = 64
"""Below this a measurement is INVALID, whatever was asked for."""
TOO_FEW = "too few samples"
"""What the reason begins with."""
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
        sustained_seconds: how long the load of all candidates together is to last, however many samples there are by then; of more rounds
            than ``max_samples``, evenly spaced ones are kept. 0 for no longer than the others ask.
        warmup_seconds, max_warmup_seconds: shortest and longest warm-up; at least ten runs in any case.
        drift_limit: change of the median within the measurement, relative to where it began.
        spread_limit: interquartile range in units of the median.
        energy_seconds: of a block in which one candidate runs alone while rails are read, where there are any; 0 for none.
    """

    min_samples: int = FEWEST_SAMPLES
    min_seconds: float = 3.0
    max_samples: int = 20_000
    max_seconds: float = 300.0
    sustained_seconds: float = 0.0
    warmup_seconds: float = 0.2
    max_warmup_seconds: float = 5.0
    drift_limit: float = 0.10
    spread_limit: float = 0.25
    energy_seconds: float = 2.5

    def __post_init__(self) -> None:
        if not 1 <= self.min_samples <= self.max_samples:
            raise InputError(
                f"{self.min_samples} samples at least and {self.max_samples} at most cannot both be",
                remedy=f"ask for 1 to {self.max_samples}",
            )
        for low, high, what in (
            (self.min_seconds, self.max_seconds, "measuring"),
            (self.warmup_seconds, self.max_warmup_seconds, "warm-up"),
            (self.energy_seconds, self.energy_seconds, "energy"),
        ):
            if not 0 <= low <= high < math.inf:  # False for NaN too
                raise InputError(f"{what} of {low} s at least and {high} s at most cannot both be")
        if not 0 <= self.sustained_seconds < math.inf:
            raise InputError(f"a load of {self.sustained_seconds} s cannot be")
        if self.sustained_seconds and self.max_samples < FEWEST_SAMPLES:
            raise InputError(f"a load that lasts needs {FEWEST_SAMPLES} samples at least, and {self.max_samples} are allowed")
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
        p50: their median.
        transfer_p50: median of what the host's clock counts beyond the device's in the same run: copies into pinned memory, transfers to
            the device and back, the calls, and the wait; None where the way to the device is no part of the host's samples.
        p90, p99: None where there are too few samples for them.
    """

    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    p50: Milliseconds
    p90: Milliseconds | None
    p99: Milliseconds | None
    transfer_p50: Milliseconds | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The latency of one candidate, in milliseconds.

    Percentiles are nearest-rank: the smallest sample that at least q % of the samples do not exceed. It is a latency that really
    occurred, and it errs towards slow; interpolation would invent a value between the two modes of a machine that has two.

    Attributes:
        samples_ms: every sample, in the order taken. Sample i of all candidates of one ``measure`` is from the same round.
        stamps_s: when each began, in seconds since sampling began.
        warmup_runs: runs before the first sample.
        stable: whether the median had settled by then.
        p50: the median.
        p90, p99, p99_9: None where there are fewer samples than early stopping needs: 64, 662 and 6,636. The median is always told, since
            everything is divided by it; below 64 samples it is INVALID as the rest.
        p90_early_stopping, p99_early_stopping, p99_9_early_stopping: what the device's own percentile exceeds with a chance of at most
            1 %, as LoadGen has it, for runs that are independent; None as above.
        mean, min, max: of all samples.
        iqr: p75 – p25.
        status: whether the figures can be believed.
        reasons: why it is INVALID, with figures; empty when VALID.
        notes: what a reader of the figures must know even when they are VALID.
        conditions: runtime, version, threads, precision, device: of the session, added by the caller.
        first_ms: the first run of the session that was sampled, before its warm-up.
        starts: load, first inference and memory, added by the caller, from processes of their own (:mod:`dtvit_deploy.runtimes.cold`).
        device: the same runs by the device's own clock; None where there is none.
        sustained: of its first second and of what it came to; None where no lasting load was asked for.
        state: of the machine around it; None where nobody watched.
        energy: of one inference, for each rail that could be read, the one that delivers most first.
    """

    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    stamps_s: tuple[Amount, ...]
    warmup_runs: Count
    stable: bool
    p50: Milliseconds
    p90: Milliseconds | None
    p99: Milliseconds | None
    p99_9: Milliseconds | None
    p90_early_stopping: Milliseconds | None
    p99_early_stopping: Milliseconds | None
    p99_9_early_stopping: Milliseconds | None
    mean: Milliseconds
    iqr: Milliseconds
    min: Milliseconds
    max: Milliseconds
    status: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    conditions: dict[str, str] = {}
    first_ms: Amount | None = None
    starts: Starts | None = None
    device: DeviceTime | None = None
    sustained: Sustained | None = None
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
        return msgspec.structs.replace(found, device=device_time(self.device_ms, self.samples_ms)) if self.device_ms else found


def summarise(
    samples_ms: Sequence[float], stamps_s: Sequence[float], options: MeasureOptions, *, warmup: Warmup, tick_ms: float = 0.0
) -> Measurement:
    """Percentiles and validity of raw samples, wherever they were taken; ``tick_ms`` is the step of the clock that took them.

    Raises:
        InputError: there is no sample, or one that no clock takes.
    """
    if not samples_ms:
        raise InputError("there is no latency sample to summarise")
    _require_times(samples_ms)
    ordered = sorted(samples_ms)
    quartile, median, three_quarters = (nearest_rank(ordered, per_mille) for per_mille in (250, P50, 750))
    iqr = three_quarters - quartile
    reasons = []
    asked = max(options.min_samples, FEWEST_SAMPLES)
    if len(ordered) < asked:
        reasons.append(f"{TOO_FEW}: {len(ordered)} of {asked} (in {sum(ordered) / 1e3:.1f} s of runs)")
    if not warmup.stable:
        changed, allowed = percents(warmup.change, WARMUP_LIMIT)
        reasons.append(
            f"warm-up: after {warmup.runs} runs and {warmup.seconds:.1f} s the median still changed by {changed}"
            f" from one window to the next (limit {allowed})"
        )
    if median <= 0 or tick_ms > COARSEST_TICK * median:
        reasons.append(f"timer: the clock's step, {tick_ms:.3g} ms, is too coarse for a median of {median:.3g} ms")
    else:
        if drift := drift_of(samples_ms, options.drift_limit):
            reasons.append(drift)
        if iqr > options.spread_limit * median:
            share, allowed = percents(iqr / median, options.spread_limit)
            reasons.append(f"spread: the IQR of {iqr:.3g} ms is {share} of the median (limit {allowed})")
    p90, p99, p99_9 = (percentile(ordered, per_mille) for per_mille in (P90, P99, P99_9))
    p90_early, p99_early, p99_9_early = (early_stopping(ordered, per_mille) for per_mille in (P90, P99, P99_9))
    return Measurement(
        samples_ms=tuple(samples_ms),
        stamps_s=tuple(stamps_s),
        warmup_runs=warmup.runs,
        stable=warmup.stable,
        p50=median,
        p90=p90,
        p99=p99,
        p99_9=p99_9,
        p90_early_stopping=p90_early,
        p99_early_stopping=p99_early,
        p99_9_early_stopping=p99_9_early,
        mean=statistics.fmean(ordered),
        iqr=iqr,
        min=ordered[0],
        max=ordered[-1],
        status="INVALID" if reasons else "VALID",
        reasons=tuple(reasons),
        notes=_withheld({"p90": (p90, P90), "p99": (p99, P99), "p99.9": (p99_9, P99_9)}),
        first_ms=warmup.first_ms,
        sustained=sustained(samples_ms, stamps_s, options.sustained_seconds) if options.sustained_seconds else None,
    )


def device_time(samples_ms: Sequence[float], host_ms: Sequence[float] = ()) -> DeviceTime:
    """Percentiles of a device's own times, and of what the host's clock counts beyond them in the same runs.

    Raises:
        InputError: one that no clock takes.
    """
    _require_times([*samples_ms, *host_ms])
    ordered = sorted(samples_ms)
    beyond = sorted(max(0.0, host - device) for host, device in zip(host_ms, samples_ms, strict=bool(host_ms)))
    return DeviceTime(
        samples_ms=tuple(samples_ms),
        p50=nearest_rank(ordered, P50),
        p90=percentile(ordered, P90),
        p99=percentile(ordered, P99),
        transfer_p50=nearest_rank(beyond, P50) if any(beyond) else None,  # a device far away has no samples of the host
    )


def _require_times(samples_ms: Sequence[float]) -> None:
    """Refuse what no clock takes: one infinity is every mean, and NaN has no place in an order."""
    odd = next((place for place, one in enumerate(samples_ms) if not 0 <= one < math.inf), None)  # not so for NaN
    if odd is not None:
        raise InputError(
            f"latency sample {odd + 1} of {len(samples_ms)} is {samples_ms[odd]} ms, which is no time", remedy="measure with another clock"
        )


def _withheld(found: Mapping[str, tuple[float | None, int]]) -> tuple[str, ...]:
    """A note on the percentiles that are not told, and from how many samples on they would be."""
    named = [f"{name} (from {fewest(per_mille):,} on)" for name, (value, per_mille) in found.items() if value is None]
    return (f"too few samples for {', '.join(named)}",) if named else ()

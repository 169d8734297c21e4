"""How long one inference takes, and whether the measurement can be believed.

Candidates are sampled in turn, one run of each in a round, so that a machine that slows down slows all of them and their ratio
survives. A measurement carries its raw samples and its own verdict: VALID, or INVALID with the reasons and their figures.

At least 64 samples, because that is what MLPerf Inference asks of a single stream (inference rules, early stopping): the fewest
runs from which a 90th percentile can be bounded with 99 % confidence while one of them lies above the bound,
P(Binomial(64, 0.1) ≤ 1) = 0.0096. With fewer, the bound would be the maximum. Our p90 is the plain percentile of the samples.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from dtvit_deploy.bounds import Amount, Count
from dtvit_deploy.drift import drift_of
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Clock = Callable[[], float]
"""Seconds from any origin, never going back."""

FEWEST_SAMPLES = 64
"""Below this a measurement is INVALID, whatever was asked for."""
WARMUP_WINDOW = 5
"""Runs: the smallest window of which a median is compared in warm-up."""
WARMUP_LIMIT = 0.05
"""Change of the median from one warm-up window to the next, below which the candidate is warm."""
COARSEST_TICK = 0.01
"""The clock's step in units of the median, above which the samples are mostly rounding."""
TICK_LOOKS = 200_000
"""Looks at a clock that does not move: some 10 ms of a real one."""
RESAMPLES = 1000
"""Bootstrap resamples: enough for the second digit of a 95 % interval."""


class MeasureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to measure and what to believe. Seconds are of a candidate's own runs, not of the others'.

    Attributes:
        min_samples, min_seconds: a candidate is sampled until it has both. Fewer than 64 samples can be asked for, for a quick
            look, and are INVALID.
        max_samples, max_seconds: sampling stops at either, and is INVALID if that leaves fewer than ``min_samples``.
        warmup_seconds, max_warmup_seconds: shortest and longest warm-up; at least ten runs in any case.
        drift_limit: change of the median within the measurement, relative to where it began.
        spread_limit: interquartile range in units of the median.
    """

    min_samples: int = FEWEST_SAMPLES
    min_seconds: float = 3.0
    max_samples: int = 20_000
    max_seconds: float = 300.0
    warmup_seconds: float = 0.2
    max_warmup_seconds: float = 5.0
    drift_limit: float = 0.10
    spread_limit: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.min_samples <= self.max_samples:
            raise InputError(f"{self.min_samples} samples at least and {self.max_samples} at most cannot both be")
        for low, high, what in (
            (self.min_seconds, self.max_seconds, "measuring"),
            (self.warmup_seconds, self.max_warmup_seconds, "warm-up"),
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
        load_ms, peak_memory_mib: added by the caller, from a process of their own (:mod:`dtvit_deploy.runtimes.probe`).
        first_ms: the first run that ``measure`` made, unless the caller puts that of such a process in its place.
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


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of two medians and its 95 % interval, over ``rounds`` common rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


def measure(
    runs: Mapping[str, Callable[[], object]],
    options: MeasureOptions | None = None,
    clock: Clock = time.perf_counter,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Measurement]:
    """Warm up each candidate, then sample all of them in turn.

    A candidate leaves the rounds when it has enough, so that a slow one is not run a thousand times for a fast one's seconds.
    Each call of a run is one inference; whatever it raises comes through. ``progress`` is told the finished fraction, 0 to 1,
    once a round and outside what is timed.

    Raises:
        InputError: there is nothing to measure.
    """
    if not runs:
        raise InputError("there is nothing to measure: no candidate was given")
    options = options or MeasureOptions()
    tell = progress or (lambda fraction: None)
    tell(0.0)
    tick_ms = _tick(clock) * 1e3
    warmups = {name: _warm_up(run, options, clock) for name, run in runs.items()}
    series = {name: _Series() for name in runs}
    names, unfinished, turn, origin = list(runs), set(runs), 0, clock()
    while unfinished:
        for index in _order(len(names), turn):
            if (name := names[index]) in unfinished:
                series[name].take(runs[name], clock, origin)
        unfinished = {name for name in unfinished if series[name].done(options) < 1}
        turn += 1
        tell(statistics.fmean(one.done(options) for one in series.values()))
    return {name: summarise(one.samples_ms, one.stamps_s, options, warmup=warmups[name], tick_ms=tick_ms) for name, one in series.items()}


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


class _Series:
    """The samples of one candidate while they are taken."""

    def __init__(self) -> None:
        self.samples_ms: list[float] = []
        self.stamps_s: list[float] = []
        self.seconds = 0.0

    def take(self, run: Callable[[], object], clock: Clock, origin: float) -> None:
        start = clock()
        run()
        seconds = clock() - start
        self.samples_ms.append(seconds * 1e3)
        self.stamps_s.append(start - origin)
        self.seconds += seconds

    def done(self, options: MeasureOptions) -> float:
        """Fraction of what is asked for; 1 when there is enough, or no more is allowed."""
        count = len(self.samples_ms)
        enough = min(count / options.min_samples, _part(self.seconds, options.min_seconds))
        return min(max(enough, count / options.max_samples, _part(self.seconds, options.max_seconds)), 1.0)


def _part(seconds: float, whole: float) -> float:
    return seconds / whole if whole else 1.0


def _order(count: int, turn: int) -> Iterable[int]:
    """Order of the candidates in a round: a Williams design, in which each follows each other one equally often.

    Plain rotation would not do: there B follows A in all rounds but one.
    """
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(count)]
    row = [(step + turn) % count for step in zigzag]
    return row if turn // count % 2 == 0 else reversed(row)  # the mirrored half makes odd counts balanced too


def _warm_up(run: Callable[[], object], options: MeasureOptions, clock: Clock) -> Warmup:
    """Run until the median of the last quarter of the runs is close to that of the quarter before."""
    durations: list[float] = []
    began, due = clock(), 2 * WARMUP_WINDOW
    while True:
        start = clock()
        run()
        now = clock()
        durations.append(now - start)
        count, spent = len(durations), now - began
        late = spent >= options.max_warmup_seconds or count >= options.max_samples
        if count < 2 * WARMUP_WINDOW or (not late and (count < due or spent < options.warmup_seconds)):
            continue  # a slow network gets its ten runs, however late it is
        due = count + count // 8 + 1  # so that many short runs are not spent on medians
        width = max(WARMUP_WINDOW, count // 4)
        before, last = statistics.median(durations[-2 * width : -width]), statistics.median(durations[-width:])
        change = abs(last - before) / before if before > 0 else 0.0
        if late or change < WARMUP_LIMIT:
            return Warmup(runs=count, seconds=spent, change=change, first_ms=durations[0] * 1e3)


def _tick(clock: Clock) -> float:
    """Seconds by which the clock moves at least, looking included; 0 for one that stands still."""
    moves: list[float] = []
    last = clock()
    for _ in range(TICK_LOOKS):
        now = clock()
        if now > last:
            moves.append(now - last)
            last = now
        if len(moves) == 10:  # the first looks are slow
            break
    return min(moves, default=0.0)


def _percentile(ordered: Sequence[float], q: int) -> float:
    return ordered[-(-q * len(ordered) // 100) - 1]

"""Rounds: every candidate runs once in each, so that each sample of one has a sample of every other beside it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import WARMUP_LIMIT, Measurement, MeasureOptions, Samples, Warmup

Clock = Callable[[], float]
"""Seconds from any origin, never going back."""

WARMUP_WINDOW = 5
"""Runs: the smallest window of which a median is compared in warm-up."""
PATIENCE = 10
"""Rounds that lasted so many times ``min_seconds`` are enough for a fast candidate too: a slow one would run for minutes beside it."""
TICK_LOOKS = 200_000
"""Looks at a clock that does not move: some 10 ms of a real one."""


def measure(
    runs: Mapping[str, Callable[[], object]],
    options: MeasureOptions | None = None,
    clock: Clock = time.perf_counter,
    progress: Callable[[float], None] | None = None,
    devices: Mapping[str, Callable[[], float]] = MappingProxyType({}),
    remote: Collection[str] = (),
    begins: Callable[[], None] = lambda: None,
) -> dict[str, Measurement]:
    """Warm up each candidate, sample all of them in rounds until the last has enough, and summarise; see `sample`."""
    options = options or MeasureOptions()
    return {name: one.summary(options) for name, one in sample(runs, options, clock, progress, devices, remote, begins).items()}


def sample(
    runs: Mapping[str, Callable[[], object]],
    options: MeasureOptions,
    clock: Clock = time.perf_counter,
    progress: Callable[[float], None] | None = None,
    devices: Mapping[str, Callable[[], float]] = MappingProxyType({}),
    remote: Collection[str] = (),
    begins: Callable[[], None] = lambda: None,
) -> dict[str, Samples]:
    """Warm up each candidate, then sample all of them in rounds until the last has enough.

    None leaves when it has enough itself: the rest would be measured beside fewer. Only one that may not run any longer does
    (``max_samples``, ``max_seconds``), and then its samples are fewer than the others'.
    Each call of a run is one inference; whatever it raises comes through. ``progress`` is told the finished fraction, 0 to 1,
    once a round and outside what is timed. ``devices`` has, for candidates that run on a device with its own clock, what tells the
    milliseconds of the last run by it; it is asked after each sample, outside what is timed. For those of them that are ``remote``, its
    times are the samples, in warm-up too: this machine's clock says how long the way there takes, only limits on seconds are held to it.
    ``begins`` is called at the moment that stamps count from, after warm-up.

    Raises:
        InputError: there is nothing to measure.
    """
    if not runs:
        raise InputError("there is nothing to measure: no candidate was given")
    tell = progress or (lambda fraction: None)
    tell(0.0)
    tick_ms = _tick(clock) * 1e3
    own = {name: devices[name] for name in remote}
    warmups = {name: _warm_up(run, options, clock, own.get(name)) for name, run in runs.items()}
    series = {name: _Series(remote=name in own) for name in runs}
    lots = random.Random(0)
    begins()
    names, done, turn, every, origin = list(runs), 0.0, 0, 1, clock()
    while done < 1:
        # By lot under a load that lasts: of every other round, and of every other of those, some orders would be all that is kept.
        row = lots.randrange(2 * len(names)) if options.sustained_seconds else turn
        for index in _order(len(names), row):
            if series[name := names[index]].used(options) < 1:
                series[name].take(runs[name], clock, origin, devices.get(name), keep=turn % every == 0)
        turn += 1
        lasted = clock() - origin
        if lasted < options.sustained_seconds and any(one.full(options) for one in series.values()):
            every *= 2
            for one in series.values():  # all of them, so that samples of one round stay together
                one.halve()
        done = min(one.done(options, lasted) for one in series.values())
        tell(done)
    return {name: one.taken(warmups[name], 0.0 if one.remote else tick_ms) for name, one in series.items()}


def interleaved(name: str, measured: Mapping[str, Measurement]) -> str:
    """With how many others, and for how many samples: one that took all the time that it may have leaves the others earlier."""
    mine, others = len(measured[name].samples_ms), len(measured) - 1
    common = min(len(one.samples_ms) for one in measured.values())
    told = f"interleaved with {others} other{'s' * (others != 1)}"
    return told if common == mine else f"{told}, the first {common} of {mine} samples with all of them"


class _Series:
    """The samples of one candidate while they are taken: by this machine's clock, or by that of a remote device alone."""

    def __init__(self, *, remote: bool) -> None:
        self.remote = remote
        self.samples_ms: list[float] = []
        self.stamps_s: list[float] = []
        self.device_ms: list[float] = []
        self.seconds = 0.0

    def take(self, run: Callable[[], object], clock: Clock, origin: float, device: Callable[[], float] | None, *, keep: bool) -> None:
        start = clock()
        run()
        seconds = clock() - start
        self.seconds += seconds
        if not keep:
            return
        self.stamps_s.append(start - origin)
        if device is not None:
            self.device_ms.append(device())
        self.samples_ms.append(self.device_ms[-1] if self.remote else seconds * 1e3)

    def full(self, options: MeasureOptions) -> bool:
        """Whether it has as many samples as it may have."""
        return len(self.samples_ms) >= options.max_samples

    def halve(self) -> None:
        """Keep every other sample: a load goes on that samples enough were taken of."""
        for kept in (self.samples_ms, self.stamps_s, self.device_ms):
            del kept[1::2]

    def taken(self, warmup: Warmup, tick_ms: float) -> Samples:
        return Samples(
            samples_ms=tuple(self.samples_ms),
            stamps_s=tuple(self.stamps_s),
            device_ms=tuple(self.device_ms),
            warmup=warmup,
            tick_ms=tick_ms,
        )

    def done(self, options: MeasureOptions, lasted: float) -> float:
        """Fraction of what is asked for, in rounds that lasted so many seconds; 1 when there is enough, or no more is allowed.

        A load that is to last does so whatever is allowed.
        """
        seconds = max(_part(self.seconds, options.min_seconds), _part(lasted, PATIENCE * options.min_seconds))
        enough = min(len(self.samples_ms) / options.min_samples, seconds)
        return min(max(enough, self.used(options)), _part(lasted, options.sustained_seconds), 1.0)

    def used(self, options: MeasureOptions) -> float:
        """Fraction of what is allowed."""
        longest = max(options.max_seconds, options.sustained_seconds)
        return max(len(self.samples_ms) / options.max_samples, _part(self.seconds, longest))


def _part(seconds: float, whole: float) -> float:
    return seconds / whole if whole else 1.0


def _order(count: int, turn: int) -> Iterable[int]:
    """Order of the candidates in a round: a Williams design, in which each follows each other one equally often.

    Plain rotation would not do: there B follows A in all rounds but one.
    """
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(count)]
    row = [(step + turn) % count for step in zigzag]
    return row if turn // count % 2 == 0 else reversed(row)  # the mirrored half makes odd counts balanced too


def _warm_up(run: Callable[[], object], options: MeasureOptions, clock: Clock, own: Callable[[], float] | None) -> Warmup:
    """Run until the median of the last quarter of the runs is close to that of the quarter before."""
    durations: list[float] = []
    began, due = clock(), 2 * WARMUP_WINDOW
    while True:
        start = clock()
        run()
        now = clock()
        durations.append(now - start if own is None else own() / 1e3)
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

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.apart import percents
from dtvit_deploy.harness.latency import (
    Measurement,
    MeasureOptions,
    Warmup,
    measure,
    ratio,
    summarise,
)
from dtvit_deploy.harness.latency.measurement import device_time
from dtvit_deploy.harness.latency.starts import Start, Taken, starts_of
from dtvit_deploy.runtimes.fake import FakeClock

WARM = Warmup(runs=10, seconds=0.3, change=0.01, first_ms=30.0)
SHORT = MeasureOptions(min_seconds=0, warmup_seconds=0)


def summary(samples_ms: Sequence[float] | NDArray[np.float64], **options: float) -> Measurement:
    stamps = [float(i) for i in range(len(samples_ms))]
    return summarise([float(sample) for sample in samples_ms], stamps, msgspec.structs.replace(SHORT, **options), warmup=WARM)


def noisy(count: int, relative: float = 0.03, seed: int = 0) -> NDArray[np.float64]:
    return np.asarray(10 * np.exp(relative * np.random.default_rng(seed).standard_normal(count)))


def taking(clock: FakeClock, seconds: Callable[[int], float], log: list[str] | None = None, name: str = "") -> Callable[[], None]:
    """A run whose n-th call takes seconds(n) of the clock, without sleeping."""
    calls = itertools.count()

    def run() -> None:
        clock.advance(seconds(next(calls)))
        if log is not None:
            log.append(name)

    return run


def measured(seconds: Callable[[int], float], options: MeasureOptions | None = None) -> Measurement:
    clock = FakeClock()
    return measure({"it": taking(clock, seconds)}, options, clock.now)["it"]


def test_a_device_says_what_each_of_its_own_runs_took_and_nothing_of_the_others() -> None:
    clock, told = FakeClock(), itertools.count()
    runs = {"here": taking(clock, lambda n: 0.010), "there": taking(clock, lambda n: 0.012)}
    found = measure(runs, MeasureOptions(max_seconds=100), clock.now, devices={"there": lambda: float(next(told))})
    assert found["here"].device is None
    device = found["there"].device
    assert device is not None
    count = len(found["there"].samples_ms)
    assert device.samples_ms == tuple(map(float, range(count)))  # asked once a sample, and not in warm-up
    assert (device.p50, device.p90) == (math.ceil(count / 2) - 1, math.ceil(0.9 * count) - 1)
    assert found["there"].p50 == pytest.approx(12)


def test_of_a_remote_device_its_own_clock_is_the_measure_and_this_machines_only_the_limit() -> None:
    """A run takes 3 s to get there and back; nobody waits for hours, and how the way there wanders is no fault of the network."""
    clock, way, told = FakeClock(), itertools.cycle((1.0, 5.0)), itertools.chain([9.0], itertools.repeat(1.5))
    runs = {"here": lambda: clock.advance(0.01), "there": lambda: clock.advance(next(way))}
    found = measure(runs, MeasureOptions(), clock.now, devices={"there": lambda: next(told)}, remote=("there",))
    assert clock.now() < 300 + 15 * 3
    there = found["there"]
    assert (there.p50, there.iqr, there.first_ms, there.status) == (1.5, 0.0, 9.0, "VALID"), there.reasons
    assert there.stamps_s[-1] > 100
    assert found["here"].p50 == pytest.approx(10)


class TestValidity:
    def test_steady_runs_are_valid(self) -> None:
        steady = measured(lambda n: 0.010)
        assert (steady.status, steady.reasons) == ("VALID", ())
        assert steady.p50 == steady.p90 == pytest.approx(10)
        assert steady.stable

    @pytest.mark.parametrize("seed", range(20))
    def test_ordinary_noise_is_valid(self, seed: int) -> None:
        assert summary(noisy(64, 0.06, seed)).reasons == ()

    def test_rare_outliers_are_the_business_of_p99_alone(self) -> None:
        samples = noisy(700)
        samples[::20] *= 4
        found = summary(samples)
        assert found.status == "VALID"
        assert found.p99 is not None
        assert found.p90 is not None
        assert found.p99 > 30 > found.p90

    def test_a_linear_drift(self) -> None:
        found = summary(noisy(100) * np.linspace(1, 1.3, 100))
        assert found.status == "INVALID"
        (reason,) = found.reasons
        assert reason.startswith("drift: the median went +2")
        assert "first third" in reason
        assert "limit 10%" in reason

    def test_a_drift_towards_faster_is_one_too(self) -> None:
        (reason,) = summary(noisy(100) * np.linspace(1.3, 1, 100)).reasons
        assert reason.startswith("drift: the median went -")

    @pytest.mark.parametrize("at", [14, 30, 60, 82])
    def test_a_single_step_is_caught_and_placed(self, at: int) -> None:
        found = summary(noisy(100) * np.where(np.arange(100) < at, 1, 1.3))
        drift = [reason for reason in found.reasons if reason.startswith("drift")]
        placed = re.search(r"at a step near sample (\d+) of 100", drift[0])
        assert placed is not None
        assert abs(int(placed[1]) - at) <= 5

    def test_a_drift_within_the_limit_is_accepted(self) -> None:
        assert summary(noisy(100) * np.linspace(1, 1.08, 100)).status == "VALID"
        assert summary(noisy(100) * np.linspace(1, 1.08, 100), drift_limit=0.02).status == "INVALID"

    def test_a_wide_spread_is_called_spread_and_not_drift(self) -> None:
        for seed in range(20):
            (reason,) = summary(noisy(64, 0.5, seed)).reasons
            assert reason.startswith("spread: the IQR of ")
            assert reason.endswith("of the median (limit 25%)")

    @pytest.mark.parametrize(
        ("figure", "limit", "told"),
        [
            (0.2504, 0.25, ("25.04%", "25%")),
            (0.2500000001, 0.25, ("25.00000001%", "25%")),
            (0.4, 0.25, ("40%", "25%")),
            (0.0512, 0.05, ("5.1%", "5%")),
        ],
    )
    def test_a_figure_beyond_its_limit_never_reads_as_that_limit(self, figure: float, limit: float, told: tuple[str, str]) -> None:
        assert percents(figure, limit) == told
        assert percents(-figure, limit, signed=True)[0] == f"-{told[0]}"

    def test_a_spread_that_is_beyond_by_little_says_by_what(self) -> None:
        samples = [10.0] * 16 + [11.0] * 31 + [12.76] * 17  # 2.76 of 11 is 25.09 %
        (reason,) = summary(samples[::2] + samples[1::2]).reasons
        assert reason == "spread: the IQR of 2.76 ms is 25.1% of the median (limit 25%)"

    def test_two_equal_modes_are_a_spread(self) -> None:
        (reason,) = summary([10.0, 20.0] * 50).reasons
        assert reason == "spread: the IQR of 10 ms is 100% of the median (limit 25%)"

    def test_a_slow_network_that_runs_out_of_time_has_too_few_samples(self) -> None:
        found = measured(lambda n: 10.0, MeasureOptions(max_seconds=200))
        assert len(found.samples_ms) == 20
        assert found.reasons == ("too few samples: 20 of 64 (in 200.0 s of runs)",)

    def test_a_quick_look_is_never_valid(self) -> None:
        found = measured(lambda n: 0.01, MeasureOptions(min_samples=5, min_seconds=0))
        assert len(found.samples_ms) == 5
        assert found.reasons == ("too few samples: 5 of 64 (in 0.1 s of runs)",)

    def test_a_warm_up_that_never_settles(self) -> None:
        # Each run doubles until sampling begins: no two windows agree.
        warming = itertools.chain((0.01 * 2**n for n in range(10)), itertools.repeat(0.01))
        found = measured(lambda n: next(warming), MeasureOptions(max_warmup_seconds=1))
        (reason,) = found.reasons
        assert not found.stable
        assert reason.startswith("warm-up: after 10 runs and 10.2 s the median still changed by 3100%")

    def test_a_clock_too_coarse_for_what_it_times(self) -> None:
        looks = itertools.count()

        def clock() -> float:  # ten microseconds a look, but it shows whole milliseconds
            return next(looks) // 100 / 1000

        found = measure({"it": lambda: [clock() for _ in range(500)]}, SHORT, clock)["it"]
        (reason,) = (reason for reason in found.reasons if reason.startswith("timer"))
        assert reason == "timer: the clock's step, 1 ms, is too coarse for a median of 5 ms"

    def test_runs_that_take_no_time_are_a_matter_of_the_clock(self) -> None:
        found = measured(lambda n: 0.0, MeasureOptions(max_samples=100))
        assert found.reasons == ("timer: the clock's step, 0 ms, is too coarse for a median of 0 ms",)

    def test_every_reason_is_given(self) -> None:
        found = summary([1.0] * 10 + [9.0] * 10)
        assert [reason.split(":")[0] for reason in found.reasons] == ["too few samples", "drift", "spread"]


class TestWarmUp:
    def test_the_slow_beginning_is_not_sampled(self) -> None:
        found = measured(lambda n: 0.5 if n == 0 else 0.05 if n < 5 else 0.01)
        assert found.first_ms == pytest.approx(500)
        assert found.max == pytest.approx(10)

    def test_a_slow_network_gets_its_ten_runs_and_is_stable(self) -> None:
        found = measured(lambda n: 4.0)
        assert (found.warmup_runs, found.stable, found.status) == (10, True, "VALID")

    def test_a_fast_one_is_run_for_the_shortest_time(self) -> None:
        assert measured(lambda n: 0.001).warmup_runs >= 200


class TestSampling:
    def test_both_the_samples_and_the_seconds_are_reached(self) -> None:
        assert len(measured(lambda n: 0.01).samples_ms) == pytest.approx(300, abs=1)  # 3 s of 10 ms
        assert len(measured(lambda n: 0.2).samples_ms) == 64  # 12.8 s

    def test_samples_stop_at_their_greatest_number(self) -> None:
        found = measured(lambda n: 1e-5, MeasureOptions(max_samples=1000))
        assert len(found.samples_ms) == 1000
        assert found.status == "VALID"

    @pytest.mark.parametrize("count", [2, 3, 4, 5])
    def test_every_candidate_follows_every_other_equally_often(self, count: int) -> None:
        clock, log = FakeClock(), list[str]()
        names = "abcde"[:count]
        options = MeasureOptions(min_samples=4 * count, min_seconds=0)
        measure({name: taking(clock, lambda n: 0.01, log, name) for name in names}, options, clock.now)
        rounds = np.array(log[-4 * count * count :]).reshape(-1, count)
        assert all(sorted(one) == list(names) for one in rounds)
        after = Counter((str(a), str(b)) for one in rounds for a, b in itertools.pairwise(one))
        assert len(after) == count * (count - 1)
        assert len(set(after.values())) == 1

    @pytest.mark.parametrize(("slower", "rounds"), [(1, 300), (2, 300), (9, 300), (10, 273), (50, 64), (400, 64)])
    def test_every_candidate_is_in_every_round_until_the_fastest_has_its_seconds_or_all_have_taken_ten_times_as_long(
        self, slower: int, rounds: int
    ) -> None:
        clock = FakeClock()
        runs = {"fast": taking(clock, lambda n: 0.01), "slow": taking(clock, lambda n: 0.01 * slower)}
        found = measure(runs, clock=clock.now)
        counts = {len(one.samples_ms) for one in found.values()}
        assert len(counts) == 1
        assert counts.pop() == pytest.approx(rounds, abs=1)
        assert all(abs(a - b) < 0.02 * slower for a, b in zip(found["fast"].stamps_s, found["slow"].stamps_s, strict=True))

    def test_one_that_may_not_run_any_longer_leaves_and_the_others_get_what_they_need(self) -> None:
        clock = FakeClock()
        runs = {"slow": taking(clock, lambda n: 10.0), "fast": taking(clock, lambda n: 0.01), "third": taking(clock, lambda n: 0.02)}
        found = measure(runs, MeasureOptions(max_seconds=200), clock.now)
        assert {name: (len(one.samples_ms), one.status) for name, one in found.items()} == {
            "slow": (20, "INVALID"),
            "fast": (64, "VALID"),
            "third": (64, "VALID"),
        }

    def test_a_machine_that_slows_down_leaves_the_ratio_alone(self) -> None:
        clock = FakeClock()

        def slowed(milliseconds: float) -> Callable[[int], float]:
            return lambda n: milliseconds / 1e3 * (1 + clock.now() / 20)

        runs = {"a": taking(clock, slowed(30)), "b": taking(clock, slowed(20))}
        found = measure(runs, clock=clock.now)
        assert found["a"].reasons
        assert found["a"].reasons[0].startswith("drift")
        assert ratio(found["a"], found["b"]).median == pytest.approx(1.5, rel=0.01)

    def test_stamps_begin_at_zero_and_lie_a_round_apart(self) -> None:
        clock = FakeClock()
        runs = {"a": taking(clock, lambda n: 0.01), "b": taking(clock, lambda n: 0.03)}
        found = measure(runs, MeasureOptions(min_seconds=0), clock.now)
        assert found["a"].stamps_s[0] == 0
        assert found["b"].stamps_s[0] == pytest.approx(0.01)
        assert found["b"].stamps_s[1] == pytest.approx(0.04)  # the second round begins with b
        assert len(found["a"].stamps_s) == len(found["a"].samples_ms)

    def test_progress_rises_from_nothing_to_all(self) -> None:
        clock, seen = FakeClock(), list[float]()
        runs = {"a": taking(clock, lambda n: 0.01), "b": taking(clock, lambda n: 0.5)}
        measure(runs, clock=clock.now, progress=seen.append)
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0, 1)

    def test_what_a_run_raises_comes_through(self) -> None:
        def broken() -> None:
            raise RuntimeError("the device is gone")

        with pytest.raises(RuntimeError, match="the device is gone"):
            measure({"it": broken})

    def test_nothing_to_measure_is_refused(self) -> None:
        with pytest.raises(InputError, match="nothing to measure"):
            measure({})
        with pytest.raises(InputError, match="no latency sample"):
            summary([])


class TestPercentiles:
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 63, 64, 101, 333, 662, 6_700])
    def test_they_are_those_of_numpy_by_nearest_rank(self, count: int) -> None:
        samples = noisy(count, 0.3)
        found = summary(samples)
        expected = np.percentile(samples, [25, 50, 75, 90, 99, 99.9], method="inverted_cdf")
        told = (found.p50, found.p90, found.p99, found.p99_9)
        assert told == tuple(
            value if count >= least else None for value, least in zip(expected[[1, 3, 4, 5]], (1, 64, 662, 6_636), strict=True)
        )
        assert found.iqr == expected[2] - expected[0]
        assert found.mean == pytest.approx(samples.mean())

    @given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300))
    def test_a_percentile_is_the_least_sample_that_enough_do_not_exceed(self, samples: list[float]) -> None:
        found = summary(samples)
        for value, share in ((found.p50, 50), (found.p90, 90)):
            if value is None:
                assert len(samples) < 64
                continue
            assert value in samples
            assert 100 * sum(sample <= value for sample in samples) >= share * len(samples)
            assert 100 * sum(sample < value for sample in samples) < share * len(samples)


@pytest.mark.parametrize(
    "options",
    [
        {"min_samples": 0},
        {"min_samples": 100, "max_samples": 99},
        {"min_seconds": -1},
        {"min_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"warmup_seconds": 6},
        {"drift_limit": 0},
        {"spread_limit": float("nan")},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        MeasureOptions(**options)  # type: ignore[arg-type]


def test_a_measurement_survives_its_report() -> None:
    found = msgspec.structs.replace(
        summary(noisy(64)), conditions={"runtime": "fake 1"}, starts=starts_of(Taken(first=(Start(load_ms=1.5, first_ms=2.0),)))
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measurement) == found


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -5.0])
def test_a_sample_that_no_clock_takes_is_refused_by_its_place(odd: float) -> None:
    with pytest.raises(InputError, match=r"latency sample 41 of 101 is .* ms, which is no time"):
        summary([5.0] * 40 + [odd] + [6.0] * 60)
    with pytest.raises(InputError, match="latency sample 2 of 2"):
        device_time([5.0, odd])

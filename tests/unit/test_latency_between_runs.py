"""How much a median grew from one run to another, and how far runs of one artefact lie apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Growth, Level, Measurement, MeasureOptions, Run, Warmup, growth, growth_over, summarise


def measured(samples_ms: NDArray[np.float64] | list[float]) -> Measurement:
    warmup = Warmup(runs=10, seconds=0.3, change=0.0, first_ms=20.0)
    return summarise([float(one) for one in samples_ms], [0.0] * len(samples_ms), MeasureOptions(), warmup=warmup)


def run(level: float = 1.0, machine: float = 1.0, *, count: int = 300, noise: float = 0.01, seed: int = 0, alone: bool = False) -> Run:
    """An artefact of 10 ms beside a torch of 20 ms, on a machine that wanders by some per cent, slowly."""
    rng = np.random.default_rng(seed)
    wander = np.exp(np.convolve(0.02 * rng.standard_normal(count + 9), np.full(10, 0.4), "valid"))
    mine, torch = (np.exp(noise * rng.standard_normal((2, count))) * wander) * machine
    return Run(measured=measured(10 * level * mine), yardstick=None if alone else measured(20 * torch))


def level(median: float, width: float = 0.001) -> Level:
    return Level(median=median, low=median * (1 - width), high=median * (1 + width))


class TestTwoRuns:
    @pytest.mark.parametrize("true", [-0.03, 0.0, 0.03])
    def test_the_interval_holds_the_true_growth_whatever_became_of_the_machine(self, true: float) -> None:
        held = 0
        for seed in range(20):
            found = growth(run(seed=seed), run(1 + true, 1.3, seed=100 + seed))
            held += found.low <= true <= found.high
            assert found.low <= found.share <= found.high
            assert found.high - found.low < 0.02
        assert held >= 17  # 19 expected of a 95 % interval

    def test_without_a_yardstick_it_is_the_machine_s_growth_as_well(self) -> None:
        found = growth(run(alone=True), run(machine=1.3, seed=1, alone=True))
        assert found.low < 0.3 < found.high

    def test_few_samples_say_less(self) -> None:
        narrow, wide = (growth(run(count=count), run(count=count, seed=1)) for count in (2000, 64))
        assert wide.high - wide.low > 3 * (narrow.high - narrow.low)

    def test_two_runs_are_drawn_apart_even_of_the_same_samples(self) -> None:
        found = growth(run(), run())
        assert found.share == 0
        assert found.low < 0 < found.high

    def test_it_is_the_same_every_time_and_reads_as_per_cent(self) -> None:
        assert growth(run(), run(seed=1)) == growth(run(), run(seed=1))
        assert str(Growth(share=0.031, low=-0.004, high=0.0661)) == "+3.1 % (−0.4 to +6.6 %)"

    @pytest.mark.parametrize("shortest", [0.0, 5e-324])
    def test_no_time_at_all_has_no_growth(self, shortest: float) -> None:
        with pytest.raises(InputError, match="has no ratio"):
            growth(Run(measured=measured([shortest] * 64)), run(alone=True))


class TestManyRuns:
    def test_what_differs_from_run_to_run_is_in_the_interval(self) -> None:
        """Each run knows its own median to 0.1 %, and they lie 2 % apart: one more such run is no surprise, and one 10 % off is."""
        rng = np.random.default_rng(0)
        earlier = [level(0.5 * math.exp(0.02 * rng.standard_normal())) for _ in range(10)]
        usual, slow = (growth_over(earlier, run(1 + more, seed=3)) for more in (0.02, 0.10))
        assert usual.low < 0.02 < usual.high
        assert usual.high - usual.low > 0.03
        assert slow.low > 0.02
        assert usual.runs == 10

    def test_steady_runs_leave_a_narrow_one(self) -> None:
        found = growth_over([level(0.5)] * 10, run(1.03, seed=3))
        assert 0.02 < found.low < 0.03 < found.high < 0.04

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_one_or_two_nothing_is_known_of_what_lies_between_them(self, count: int) -> None:
        found = growth_over([level(0.5), level(0.51)][:count], run(seed=3))
        assert found.high - found.low < 0.04

    def test_one_slow_run_among_ten_moves_nothing(self) -> None:
        steady, disturbed = (growth_over([level(0.5)] * 9 + [level(last)], run(seed=3)) for last in (0.5, 0.8))
        assert disturbed.share == pytest.approx(steady.share)

    def test_one_more_of_the_same_runs_is_rarely_called_slower(self) -> None:
        """Of 200 series of eleven runs that lie 1 % apart, the last is beyond a band of 2 % with all of its interval in two at most."""
        alarms = 0
        newest = run(seed=3, count=100)
        rng = np.random.default_rng(7)
        for seed in range(200):
            spread = np.exp(0.01 * rng.standard_normal(11))
            earlier = [level(newest.median() * float(one / spread[-1])) for one in spread[:-1]]
            alarms += growth_over(earlier, newest, seed=seed).low > 0.02
        assert alarms <= 2

    @pytest.mark.parametrize("bad", [[], [level(0.0)], [level(math.inf)]])
    def test_runs_of_no_time_or_none_at_all_are_refused(self, bad: list[Level]) -> None:
        with pytest.raises(InputError, match="must have taken some time"):
            growth_over(bad, run())

"""A difference between two artefacts is one of their processes, too: what one process says is luck, and five say how much of it."""

from __future__ import annotations

import numpy as np
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.ab import SideBySide, side_by_side
from dtvit_deploy.harness.latency.resampling import widening


def measured(samples_ms: list[float]) -> Measurement:
    warmup = Warmup(runs=10, seconds=0.3, change=0.0, first_ms=20.0)
    return summarise(samples_ms, [0.0] * len(samples_ms), MeasureOptions(), warmup=warmup)


def compared(
    difference: float, *, layout: float = 0.005, processes: int = 6, rounds: int = 100, seed: int = 0, noise: float = 0.02
) -> SideBySide:
    """A of 10 ms and B, on a machine that wanders, in processes of which each has moved either by some share for its whole life."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(processes):
        wander = np.convolve(0.01 * rng.standard_normal(rounds + 19), np.ones(20), "valid")
        level = np.log([10, 10 * (1 + difference)]) + layout * rng.standard_normal(2)
        a, b = np.exp(level[:, None] + wander + noise * rng.standard_normal((2, rounds)))
        pairs.append((measured(a.tolist()), measured(b.tolist())))
    return side_by_side(pairs)


class TestTheVerdict:
    def test_equal_artefacts_are_never_called_different_though_every_process_says_so(self) -> None:
        """Each process is sure of a difference of its own: by its rounds alone, most of them would be alarms."""
        for seed in range(40):
            found = compared(0.0, layout=0.01, noise=0.005, seed=seed)
            assert found.found in ("alike", "undecided")
            assert max(abs(ratio - 1) for ratio in found.processes) > 0.005

    def test_two_per_cent_are_found(self) -> None:
        found = [compared(0.02, seed=seed).found for seed in range(20)]
        assert found.count("slower") >= 16
        assert "faster" not in found

    def test_faster_is_told_from_slower(self) -> None:
        assert compared(-0.05).found == "faster"
        assert compared(0.05).found == "slower"

    def test_equal_ones_on_a_quiet_machine_are_alike_which_is_more_than_not_different(self) -> None:
        found = compared(0.0, layout=0.0, noise=0.005, rounds=400)
        assert found.found == "alike"
        assert -found.band < found.growth.low < found.growth.high < found.band

    def test_a_difference_within_the_band_is_none(self) -> None:
        assert compared(0.002, layout=0.0, noise=0.001, rounds=400).found == "alike"

    def test_the_interval_holds_the_true_difference(self) -> None:
        held = 0
        for seed in range(40):
            found = compared(0.01, seed=seed)
            held += found.growth.low <= 0.01 <= found.growth.high
        assert held >= 36  # 38 expected of a 95 % interval

    def test_more_processes_know_more(self) -> None:
        few, many = compared(0.0, processes=5), compared(0.0, processes=20)
        assert many.growth.high - many.growth.low < 0.6 * (few.growth.high - few.growth.low)
        assert (few.growth.runs, len(many.processes)) == (5, 20)

    def test_it_is_the_same_every_time(self) -> None:
        assert compared(0.01) == compared(0.01)


def test_the_widening_is_a_student_s_t_beside_a_normal_distribution() -> None:
    """Quantiles of the tables: 2.776 for four degrees of freedom, 2.262 for nine, 2.045 for twenty-nine."""
    for processes, quantile in ((5, 2.776), (10, 2.262), (30, 2.045)):
        assert widening(processes) == pytest.approx(quantile / 1.960 * (processes / (processes - 1)) ** 0.5, rel=0.005)


def test_fewer_than_five_processes_and_no_time_at_all_are_refused() -> None:
    pair = (measured([10.0] * 64), measured([10.0] * 64))
    with pytest.raises(InputError, match="4 processes say too little") as caught:
        side_by_side([pair] * 4)
    assert caught.value.remedy == "take 5 or more"
    with pytest.raises(InputError, match="a latency of 0 ms has no ratio"):
        side_by_side([*[pair] * 4, (measured([0.0] * 64), pair[1])])
    with pytest.raises(InputError, match="cannot be none"):
        side_by_side([pair] * 5, band=-1)

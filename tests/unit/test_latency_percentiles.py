"""Early stopping is LoadGen's, to the sample, and a percentile that few samples cannot tell is not told."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.harness.latency import MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.measurement import FEWEST_SAMPLES, Measurement, device_time
from dtvit_deploy.harness.latency.percentiles import (
    P50,
    P90,
    P99,
    P99_9,
    early_stopping,
    fewest,
    nearest_rank,
    overlatency,
    percentile,
)


def of(count: int) -> Measurement:
    samples = [10 + index / count for index in range(count)]
    return summarise(samples, [0.0] * count, MeasureOptions(), warmup=Warmup(runs=10, seconds=0.3, change=0.0, first_ms=20.0))


class TestTheRule:
    @pytest.mark.parametrize(("per_mille", "count"), [(P50, 11), (P90, 64), (P99, 662), (P99_9, 6_636)])
    def test_the_fewest_samples_are_those_of_mlperf(self, per_mille: int, count: int) -> None:
        assert fewest(per_mille) == count
        assert overlatency(count - 1, per_mille) < 1 <= overlatency(count, per_mille)

    @pytest.mark.parametrize(
        ("count", "per_mille", "discarded"),
        [
            (201, P90, 9),
            (659, P90, 47),
            (708, P90, 51),
            (2_048, P90, 172),
            (2_116, P90, 178),
            (7_469, P90, 685),
            (79_944, P90, 7_796),
            (1_179_125, P99, 11_539),
        ],
    )
    def test_as_many_are_discarded_as_published_logs_of_loadgen_say(self, count: int, per_mille: int, discarded: int) -> None:
        """Lines ``Processed at least N queries (COUNT)`` and ``Would discard DISCARDED highest latency queries`` of published runs."""
        assert overlatency(count, per_mille) - 1 == discarded
        assert early_stopping(range(count), per_mille) == count - 1 - discarded

    @given(st.integers(1, 900), st.sampled_from([P50, 750, P90, P99, P99_9]))
    @settings(deadline=None)
    def test_it_is_the_binomial_distribution_in_exact_arithmetic(self, count: int, per_mille: int) -> None:
        inside = Fraction(per_mille, 1000)
        total, slowest = Fraction(0), -1
        for slow in range(count + 1):
            total += math.comb(count, slow) * (1 - inside) ** slow * inside ** (count - slow)
            if total > Fraction(1, 100):
                break
            slowest = slow
        assert overlatency(count, per_mille) == slowest

    @given(st.integers(1, 30_000), st.sampled_from([P50, P90, P99, P99_9]))
    @settings(deadline=None)
    def test_more_samples_never_leave_less_to_discard_and_the_estimate_is_never_below_the_percentile(
        self, count: int, per_mille: int
    ) -> None:
        assert 0 <= overlatency(count + 1, per_mille) - overlatency(count, per_mille) <= 1
        estimate = early_stopping(range(count), per_mille)
        if estimate is not None:
            assert estimate >= nearest_rank(range(count), per_mille)

    @pytest.mark.parametrize(("count", "per_mille"), [(64, P90), (300, P90), (662, P99), (3_000, P99)])
    def test_the_device_s_percentile_lies_above_it_in_one_of_a_hundred_series_at_most(self, count: int, per_mille: int) -> None:
        series = np.sort(np.random.default_rng(count).random((2_000, count)), axis=1)
        above = np.mean([early_stopping(list(one), per_mille) < per_mille / 1000 for one in series])
        assert above <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 2_000)


class TestWhatIsWithheld:
    @pytest.mark.parametrize(
        ("count", "told"),
        [
            (10, []),
            (63, []),
            (64, ["p90"]),
            (661, ["p90"]),
            (662, ["p90", "p99"]),
            (6_635, ["p90", "p99"]),
            (6_636, ["p90", "p99", "p99_9"]),
        ],
    )
    def test_a_percentile_is_told_with_its_estimate_or_neither(self, count: int, told: list[str]) -> None:
        found = of(count)
        names = ("p90", "p99", "p99_9")
        assert [name for name in names if getattr(found, name) is not None] == told
        assert [name for name in names if getattr(found, f"{name}_early_stopping") is not None] == told
        assert found.p50 is not None

    def test_a_note_says_from_how_many_samples_on_it_would_be_told(self) -> None:
        assert of(661).notes == ("too few samples for p99 (from 662 on), p99.9 (from 6,636 on)",)
        assert of(662).notes == ("too few samples for p99.9 (from 6,636 on)",)
        assert of(6_636).notes == ()

    def test_a_device_s_own_percentiles_are_held_to_the_same(self) -> None:
        few, enough = device_time([1.0] * 63), device_time([1.0] * 662)
        assert (few.p50, few.p90, few.p99) == (1.0, None, None)
        assert (enough.p50, enough.p90, enough.p99) == (1.0, 1.0, 1.0)

    def test_a_valid_measurement_has_its_p90(self) -> None:
        assert fewest(P90) == FEWEST_SAMPLES

    def test_estimates_at_the_edge_are_the_maximum_and_fall_towards_the_percentile(self) -> None:
        edge, many = of(64), of(20_000)
        assert edge.p90_early_stopping == edge.max
        assert edge.p90 is not None
        assert edge.p90 < edge.max
        assert many.p90 is not None
        assert many.p90_early_stopping == pytest.approx(many.p90, rel=1e-3)

    @given(st.lists(st.floats(0.001, 1e6), min_size=64, max_size=100))
    @settings(max_examples=25, deadline=None)
    def test_where_told_it_is_the_nearest_rank(self, samples: list[float]) -> None:
        assert percentile(sorted(samples), P90) == np.percentile(samples, 90, method="inverted_cdf")

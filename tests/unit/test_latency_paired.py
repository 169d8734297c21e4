"""A ratio of two medians is known as well as the rounds that both took part in allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, ratio, summarise

WARM = Warmup(runs=10, seconds=0.3, change=0.01, first_ms=30.0)


def summary(samples_ms: Sequence[float] | NDArray[np.float64]) -> Measurement:
    stamps = [float(i) for i in range(len(samples_ms))]
    return summarise([float(sample) for sample in samples_ms], stamps, MeasureOptions(), warmup=WARM)


def noisy(count: int, relative: float = 0.03, seed: int = 0) -> NDArray[np.float64]:
    return np.asarray(10 * np.exp(relative * np.random.default_rng(seed).standard_normal(count)))


def test_the_interval_holds_the_true_ratio_and_is_narrow() -> None:
    held = 0
    for seed in range(40):
        found = ratio(summary(1.1 * noisy(100, 0.1, seed)), summary(noisy(100, 0.1, 1000 + seed)))
        held += found.low <= 1.1 <= found.high
        assert found.low <= found.median <= found.high
        assert found.high - found.low < 0.15
    assert held >= 34  # 38 expected of a 95 % interval


def test_what_both_suffered_together_widens_nothing() -> None:
    common = np.repeat([1.0, 1.5, 1.0, 2.0], 25)
    found = ratio(summary(1.1 * noisy(100, 0.01) * common), summary(noisy(100, 0.01, 1) * common))
    assert found.low < 1.1 < found.high
    assert found.high - found.low < 0.05


def test_only_common_rounds_count() -> None:
    found = ratio(summary([20.0] * 64), summary([10.0] * 64 + [40.0] * 200))
    assert (found.median, found.rounds) == (2, 64)


def test_it_is_the_same_every_time() -> None:
    a, b = summary(noisy(64)), summary(noisy(64, seed=1))
    assert ratio(a, b) == ratio(a, b)
    assert str(ratio(a, a)) == "1.000 (1.000–1.000)"


def test_no_time_at_all_has_no_ratio() -> None:
    with pytest.raises(InputError, match="0 ms has no ratio"):
        ratio(summary([1.0] * 64), summary([0.0] * 64))

"""Thresholds from a histogram are those that one finds on the values themselves, by trying."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dtvit_deploy.calibration.histogram import SIDE, Histograms
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.thresholds import LEVELS, changes, clipped, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Values = NDArray[np.float32]

COUNT = 20_000
SHAPES: dict[str, Callable[[np.random.RandomState], NDArray[np.float64]]] = {
    "normal": lambda random: random.standard_normal(COUNT),
    "laplace": lambda random: random.laplace(size=COUNT),
    "uniform": lambda random: random.uniform(-3, 5, COUNT),
    "heavy tails": lambda random: random.standard_t(2, COUNT),
    "one-sided": lambda random: random.exponential(size=COUNT),
    "all negative": lambda random: -2 - random.exponential(size=COUNT),
    "gelu": lambda random: (lambda x: x / (1 + np.exp(-1.7 * x)))(2 * random.standard_normal(COUNT)),
    "mostly zero": lambda random: np.maximum(random.standard_normal(COUNT) - 1, 0),
    "an outlier on one side": lambda random: np.append(random.standard_normal(COUNT - 1), -40),
    "probabilities": lambda random: random.dirichlet(np.full(50, 0.1), COUNT // 50).ravel(),
}


def values_of(shape: str) -> Values:
    return SHAPES[shape](np.random.RandomState(0)).astype(np.float32)


def histogram_of(*tensors: Values) -> Histograms:
    histograms = Histograms([len(values) for values in tensors])
    extremes = (np.array([end(values) for values in tensors], np.float32) for end in (np.min, np.max))
    histograms.add(np.concatenate(tensors), *extremes)
    return histograms


def ranges(values: Values, percentile: float = 99.99) -> dict[Method, tuple[float, float]]:
    return {method: (float(found[0, 0]), float(found[0, 1])) for method, found in ranges_of(histogram_of(values), percentile).items()}


def squared_error(values: Values, low: float, high: float) -> float:
    """Of the values after a round trip through 8 bits, with a zero point."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (LEVELS - 1)
    zero = np.round(low / scale)
    return float(np.square(np.clip(np.round(values / scale), zero, zero + LEVELS - 1) * scale - values.astype(np.float64)).mean())


def kept_by(values: Values, magnitude: float) -> tuple[float, float]:
    return float(np.clip(values.min(), -magnitude, magnitude)), float(np.clip(values.max(), -magnitude, magnitude))


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_as_good_as_the_best_of_hundreds_that_are_tried_on_the_values(shape: str) -> None:
    values = values_of(shape)
    largest = float(np.abs(values).max())
    best = min(squared_error(values, *kept_by(values, largest * 2 ** (-step / 64))) for step in range(6 * 64))
    assert squared_error(values, *ranges(values)[Method.MSE]) <= 1.03 * best


def divergence(counts: NDArray[np.int64], start: int, end: int) -> float:
    """Word for word: clipped values go to the ends; within each of the levels from zero on, the bins that are not empty become equal."""
    first, last = min(start, SIDE), max(end, SIDE)
    edges = np.round(first + (last - first) * (np.arange(LEVELS + 1) / LEVELS)).astype(int)
    reference = counts[start:end].astype(float)
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    quantised = np.zeros_like(reference)
    for left, right in itertools.pairwise(edges):
        level = slice(max(left, start) - start, max(min(right, end) - start, 0))
        filled = reference[level] > 0
        if filled.any():
            quantised[level][filled] = counts[start:end][level].sum() / filled.sum()
    p, q = reference / reference.sum(), quantised / quantised.sum()
    if (q[p > 0] == 0).any():
        return np.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_the_least_divergence_in_its_neighbourhood(shape: str) -> None:
    values = values_of(shape)
    histograms = histogram_of(values)
    counts, width = histograms.counts[0].copy(), float(histograms.widths[0])
    counts[SIDE] = min(counts[SIDE], counts[SIDE + 1])

    def cost(magnitude: float) -> float:
        low, high = kept_by(values, magnitude)
        start, end = (int(SIDE + np.trunc(bound / width) - (bound < 0)) for bound in (low, high))
        too_few = end + 1 - start < LEVELS and magnitude < largest
        return np.inf if too_few else divergence(counts, start, end + 1)

    largest = float(np.abs(values).max())
    found = cost(float(np.abs(ranges(values)[Method.ENTROPY]).max()))
    coarse = min(cost(largest * 2 ** (-step / 4)) for step in range(24))
    assert found <= coarse + 1e-6 * abs(coarse)


def test_entropy_does_not_see_the_zeros_of_a_sparse_tensor() -> None:
    values = values_of("mostly zero")
    sparser = np.concatenate([values, np.zeros(10 * COUNT, np.float32)])
    assert ranges(values)[Method.ENTROPY] == ranges(sparser)[Method.ENTROPY]


@pytest.mark.parametrize("method", [Method.ENTROPY, Method.MSE])
def test_an_outlier_is_cut_off_on_its_own_side_only(method: Method) -> None:
    values = values_of("an outlier on one side")
    low, high = ranges(values)[method]
    assert -40 < low < -3
    assert 3 < high <= values.max()


@given(
    arrays(np.float32, st.integers(1, 300), elements=st.floats(-1000, 1000, width=32)), st.sampled_from([50.0, 90.0, 99.0, 99.99, 100.0])
)
def test_the_percentile_leaves_out_no_more_than_it_may_and_little_less(values: Values, percentile: float) -> None:
    low, high = ranges(values, percentile)[Method.PERCENTILE]
    width = float(histogram_of(values).widths[0])
    allowed = (100 - percentile) / 200 * len(values)
    assert (values < low).sum() <= allowed
    assert (values > high).sum() <= allowed
    # One bin further in would be too much, unless there is nothing further in. Just as many as it may leave out (10 of 200, say) it may
    # keep, since few shares are exact in floating point.
    assert (values < low + 2 * width).sum() >= allowed or low + 2 * width > values.max()
    assert (values > high - 2 * width).sum() >= allowed or high - 2 * width < values.min()


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_whatever_the_values_every_range_lies_within_them(values: Values) -> None:
    found = ranges(values)
    assert found[Method.MINMAX] == (values.min(), values.max())
    for low, high in found.values():
        assert values.min() <= low <= high <= values.max()


@pytest.mark.parametrize("value", [0.0, -0.0, 5.0, -5.0, 1e-30, 3e38, 2.0**-140])
def test_a_tensor_of_one_value_keeps_it(value: float) -> None:
    values = np.full(10, value, np.float32)
    assert set(ranges(values).values()) == {(float(values[0]), float(values[0]))}


def test_many_tensors_get_what_each_gets_alone() -> None:
    tensors = [values_of(shape) for shape in SHAPES] * 4
    together = ranges_of(histogram_of(*tensors), 99.99)
    for index, values in enumerate(tensors):
        assert {method: tuple(found[index].tolist()) for method, found in together.items()} == ranges(values)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_clipped_share_is_that_of_the_values_to_the_width_of_a_bin(shape: str) -> None:
    values = values_of(shape)
    histograms = histogram_of(values)
    width = float(histograms.widths[0])
    for method, found in ranges_of(histograms, 99.99).items():
        share, (low, high) = float(clipped(histograms, found)[0]), found[0]
        beyond = ((values < low - width) | (values > high + width)).mean()
        outside = ((values < low) | (values > high)).mean()
        assert beyond - 1e-12 <= share <= outside + 1e-12
        assert share == 0 or method is not Method.MINMAX


def test_an_infinite_tensor_spoils_no_other() -> None:
    values = values_of("normal")
    histograms = Histograms([2, COUNT])
    both = np.concatenate([np.array([-np.inf, np.inf], np.float32), values])
    histograms.add(both, np.array([-np.inf, values.min()], np.float32), np.array([np.inf, values.max()], np.float32))
    found = ranges_of(histograms, 99.99)
    assert {method: tuple(bounds[1].tolist()) for method, bounds in found.items()} == ranges(values)
    assert np.isfinite([clipped(histograms, bounds)[1] for bounds in found.values()]).all()


def test_changes_are_relative_to_the_last_range_and_over_all_tensors() -> None:
    final = np.tile(np.array([-1, 3], np.float32), (1, 4, 20, 1))
    before = final.copy()
    before[0, 0, 0] = (-1, 1)  # one of the twenty, by half of the width
    before[0, 1] = (-0.8, 3)  # all, by a twentieth
    found = changes(np.concatenate([before, final]))
    assert found[0, 0].tolist() == pytest.approx([0, 0.025])
    assert found[0, 1].tolist() == pytest.approx([0.05, 0.05])
    assert not found[1].any()


def test_a_tensor_that_is_always_zero_has_not_changed() -> None:
    assert not changes(np.zeros((2, 4, 3, 2), np.float32)).any()

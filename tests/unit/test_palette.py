"""A palette has the values of the weights where there are few, and else about as little error as few values can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dtvit_deploy.export.coreml.palette import palette

# Mean squared error of the best scalar quantiser of a unit normal, by number of levels (Max, "Quantizing for minimum distortion", 1960).
BEST = {4: 0.00950, 6: 0.000645}


@pytest.mark.parametrize(("bits", "best"), BEST.items())
def test_the_error_is_that_of_the_best_quantiser(bits: int, best: float) -> None:
    weights = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    table, places = palette(weights, bits)
    assert np.mean((table[places] - weights.ravel()) ** 2) == pytest.approx(best, rel=0.06)


def test_few_values_are_kept_as_they_are() -> None:
    weights = np.array([[3, -1, 3], [0.5, -1, 3]], np.float16)
    table, places = palette(weights, 4)
    assert (table.shape, table.dtype, places.dtype) == ((16,), np.float16, np.uint8)
    assert np.array_equal(table[places], weights.ravel())


@given(arrays(np.float16, st.tuples(st.integers(1, 5), st.integers(1, 90)), elements=st.floats(-60000, 60000, width=16)))
def test_every_weight_has_the_nearest_of_ascending_values(weights: np.ndarray) -> None:
    table, places = palette(weights, 4)
    assert np.all(np.diff(table.astype(np.float64)) >= 0)
    distances = np.abs(weights.astype(np.float64).ravel()[:, None] - table.astype(np.float64))
    assert np.array_equal(distances[np.arange(weights.size), places], distances.min(1))


def test_a_rare_large_weight_is_not_forgotten() -> None:
    weights = np.concatenate([np.random.default_rng(0).normal(size=10_000), [40.0]]).astype(np.float32)
    table, places = palette(weights, 4)
    assert table[places[-1]] == pytest.approx(40.0)

"""INT8 arithmetic: what a grid can say of its range, and that no weight or bias is beyond its integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtvit_deploy.export.onnx.integers import LEAST_SCALE, Grid, activation_grid, quantized_bias, quantized_weights, weight_scales

RANGES = [(-1.0, 3.0), (-0.17, 6.0), (0.0, 1.0), (-5.0, 0.0), (2.0, 7.0), (-4.0, -3.0), (-1e-30, 1e-30), (-3e4, 2.9e4)]


def there_and_back(values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    limits = np.iinfo(grid.zero_point.dtype)
    steps = np.clip(np.rint(values / float(grid.scale)) + int(grid.zero_point), limits.min, limits.max)
    return np.asarray((steps - int(grid.zero_point)) * float(grid.scale))


class TestActivations:
    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize(("low", "high"), RANGES)
    def test_every_value_of_the_range_is_within_half_a_step(self, low: float, high: float, symmetric: bool) -> None:
        grid = activation_grid(low, high, symmetric=symmetric)
        values = np.linspace(low, high, 1001)
        # The zero point is rounded too, so the grid may lie half a step beside the range.
        assert np.abs(there_and_back(values, grid) - values).max() <= (0.5 if symmetric else 1.0) * float(grid.scale) * (1 + 1e-6)

    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize(("low", "high"), RANGES)
    def test_zero_is_zero(self, low: float, high: float, symmetric: bool) -> None:
        assert there_and_back(np.zeros(1), activation_grid(low, high, symmetric=symmetric)).tolist() == [0]

    def test_a_zero_point_leaves_no_value_unused(self) -> None:
        grid = activation_grid(-1.0, 4.0, symmetric=False)
        assert (grid.zero_point, grid.zero_point.dtype.name) == (51, "uint8")
        assert float(grid.scale) == pytest.approx(5 / 255)

    def test_symmetric_is_int8_around_zero(self) -> None:
        grid = activation_grid(-1.0, 4.0, symmetric=True)
        assert (grid.zero_point, grid.zero_point.dtype.name) == (0, "int8")
        assert float(grid.scale) == pytest.approx(4 / 127)

    @pytest.mark.parametrize(("low", "high", "zero_point"), [(0.5, 2.0, 0), (-2.0, -0.5, 255)])
    def test_one_sided_ranges_take_zero_in(self, low: float, high: float, zero_point: int) -> None:
        grid = activation_grid(low, high, symmetric=False)
        assert grid.zero_point == zero_point
        assert float(grid.scale) == pytest.approx(2 / 255)

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_a_scale_is_never_so_small_that_a_runtime_flushes_it(self, symmetric: bool) -> None:
        assert activation_grid(0.0, 1e-42, symmetric=symmetric).scale == np.float32(LEAST_SCALE)


class TestWeights:
    WEIGHTS = np.array([[1.0, -0.02, 0.0], [-2.0, 0.01, 0.0]], np.float32)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_every_channel_uses_its_whole_range(self, axis: int) -> None:
        values = self.WEIGHTS[:, :2]
        integers = quantized_weights(values, axis, weight_scales(values, axis))
        assert np.abs(integers).max(axis=1 - axis).tolist() == [127, 127]

    def test_channels_of_a_convolution_lie_along_the_first_axis(self) -> None:
        kernel = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32) * np.array([1, 10, 100, 1000])[:, None, None, None]
        scales = weight_scales(kernel, 0)
        integers = quantized_weights(kernel, 0, scales)
        assert integers.shape == kernel.shape
        steps = np.abs(integers * scales[:, None, None, None].astype(np.float64) - kernel) / scales[:, None, None, None]
        assert steps.max() <= 0.5 + 1e-6

    def test_a_channel_of_zeros_is_zeros(self) -> None:
        scales = weight_scales(self.WEIGHTS, 1)
        assert (scales[2], quantized_weights(self.WEIGHTS, 1, scales)[:, 2].tolist()) == (np.float32(LEAST_SCALE), [0, 0])

    def test_minus_128_is_left_out(self) -> None:
        values = np.array([[-1.0, 0.5]], np.float32)
        assert quantized_weights(values, 0, np.array([1 / 128], np.float32)).tolist() == [[-127, 64]]


class TestBiases:
    @pytest.mark.parametrize("bias", [[0.5, -0.5, 3.0], [1e6, -1e6, 1e6]])
    def test_a_bias_survives_whatever_the_weights_are(self, bias: list[float]) -> None:
        """A channel of zeros and an ordinary bias: the bias is beyond INT32 in the scale that would fit the weights alone."""
        weights, values = TestWeights.WEIGHTS, np.array(bias, np.float32)
        scales = weight_scales(weights, 1, values, 0.01)
        sums = (scales * np.float32(0.01)).astype(np.float32)
        integers = quantized_bias(values, sums)
        assert integers.dtype == np.int32
        np.testing.assert_allclose(integers * sums.astype(np.float64), values, rtol=1e-4)

    def test_it_changes_no_scale_that_has_room_for_it(self) -> None:
        values: NDArray[Any] = np.array([0.5, -0.5, 0.0], np.float32)
        assert weight_scales(TestWeights.WEIGHTS, 1, values, 0.01).tolist() == weight_scales(TestWeights.WEIGHTS, 1).tolist()

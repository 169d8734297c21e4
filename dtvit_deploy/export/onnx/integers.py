"""What the integers of an INT8 tensor stand for: real value = scale · (integer − zero point).

Scales are rounded to FP32 before anything is divided by them, since that is the scale the runtime has.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_SCALE = 2.0**-60
"""A product of two scales then is a normal FP32 number: runtimes flush smaller ones to 0, and divide by it."""
LARGEST_BIAS = 2.0**30
"""Half of INT32, so that the sum of the products has the other half: 2³⁰ / (255 · 127) = 33,000 of them."""
LEAST_FP16_SCALE = 2.0**-14
"""FP16's smallest normal number: smaller ones have fewer digits, and a device may take them for 0."""


class Grid(NamedTuple):
    """The 256 values that a tensor can have; the type of ``zero_point`` is that of the integers."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


def activation_grid(low: float, high: float, *, symmetric: bool) -> Grid:
    """The grid for values from ``low`` to ``high``: UINT8 that spends no value beyond them, or INT8 with zero point 0.

    Zero is always among its values, exactly: padding is made of it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return Grid(_scale(max(-low, high) / 127), np.int8(0))
    scale = _scale((high - low) / 255)
    return Grid(scale, np.uint8(np.clip(np.rint(-low / float(scale)), 0, 255)))


def weight_scales(values: NDArray[Any], axis: int, bias: NDArray[Any] | None = None, input_scale: float = 1.0) -> NDArray[np.float32]:
    """One scale for each channel along ``axis``, so that the channel's largest weight is ±127.

    A channel with tiny weights and an ordinary ``bias`` gets a larger one where that bias is to be an INT32 of scale
    ``input_scale`` · weight scale, and would not be representable.
    """
    others = tuple(other for other in range(values.ndim) if other != axis)
    scales = np.abs(values).max(axis=others).astype(np.float64) / 127
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias).astype(np.float64) / (input_scale * LARGEST_BIAS))
    return np.asarray(np.maximum(scales, LEAST_SCALE), np.float32)


def fp16_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest scales that FP16 has as normal numbers; a smaller one is raised, and its tensor uses fewer of the integers.

    One beyond FP16 stays as it is: its tensor does not fit either, and remains FP32 with all that reads it.
    """
    with np.errstate(over="ignore"):
        nearest = np.maximum(scales, np.float32(LEAST_FP16_SCALE)).astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(nearest), nearest, scales).astype(np.float32)


def quantized_weights(values: NDArray[Any], axis: int, scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """INT8 from −127 to 127; −128 has no counterpart above zero and is left out."""
    shape = [-1 if other == axis else 1 for other in range(values.ndim)]
    steps = values.astype(np.float64) / scales.astype(np.float64).reshape(shape)
    return np.clip(np.rint(steps), -127, 127).astype(np.int8)


def quantized_bias(values: NDArray[Any], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    """INT32 in the scale of the sum that it is added to, one for each channel."""
    return np.rint(values.astype(np.float64) / scales.astype(np.float64)).astype(np.int32)


def _scale(step: float) -> np.float32:
    scale: np.float32 = np.float32(max(step, LEAST_SCALE))
    return scale

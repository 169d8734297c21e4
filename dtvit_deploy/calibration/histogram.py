"""Histograms of all tensors of a network at once: fixed memory, integer counts, and the same result in whatever order values come.

Bins are linear and their width is a power of two, so that widening them adds neighbouring pairs and loses nothing: a histogram of all
values, one of the same values in another order, and the sum of two halves' histograms are equal to the last count. That is what makes
an interrupted calibration resumable byte for byte. Minimum and maximum are exact; counts may be of a sample of the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 4096
"""Bins on either side of zero. The largest magnitude lies in the outer half of them, so it is told from zero by 2,048 bins or more."""
BINS = 2 * SIDE
_SIDE_BITS = SIDE.bit_length() - 1
_LEAST, _GREATEST = _SIDE_BITS - 127, 128
"""Exponents between which a bin's width, and its reciprocal, are FP32 numbers; what is smaller than 2⁻¹¹⁵ counts as zero."""


class Histograms:
    """One histogram for each of T tensors.

    Bin ``SIDE + i`` counts the values in [i, i + 1) widths, bin ``SIDE − 1 − i`` those in (−i − 1, −i], but for zero.

    Attributes:
        counts: (T, BINS) int64.
        exponents: (T,) int64; the bins of a tensor cover the magnitudes below ``2**exponent``.
        low, high: (T,) float32, the exact extremes; +∞ and −∞ where nothing was counted yet. Where one is infinite although values
            were counted, the counts mean nothing.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """``lengths`` are how many values of each tensor are counted at a time."""
        tensors = len(lengths)
        self.counts = np.zeros((tensors, BINS), np.int64)
        self.exponents = np.full(tensors, _LEAST, np.int64)
        self.low = np.full(tensors, np.inf, np.float32)
        self.high = np.full(tensors, -np.inf, np.float32)
        self._lengths = tuple(lengths)
        self._zeros = np.repeat(np.arange(tensors) * BINS + SIDE, lengths)

    def __len__(self) -> int:
        return len(self.counts)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, the counts in the least type that holds them: of 16 images, a quarter of the bytes."""
        counts = self.counts.astype(np.min_scalar_type(self.counts.max(initial=0)))
        return {**self.arrays(), "counts": counts, "lengths": self._lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["lengths"])  # type: ignore[misc]  # what follows from the lengths is not sent
        for name, own in self.arrays().items():
            own[...] = state[name]

    @property
    def widths(self) -> NDArray[np.float64]:
        """(T,) width of a bin of each tensor."""
        return np.ldexp(1.0, (self.exponents - _SIDE_BITS).astype(np.int32))

    @property
    def bounded(self) -> NDArray[np.bool_]:
        """(T,) whether both extremes are finite."""
        finite: NDArray[np.bool_] = np.isfinite(self.low) & np.isfinite(self.high)
        return finite

    def add(self, values: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
        """Count values of every tensor, those of one image usually.

        Args:
            values: (sum of the lengths,) those of one tensor after those of the one before.
            low, high: (T,) extremes over all values, also those that are not among ``values``; no NaN.
        """
        self._widen(low, high)
        if not self.bounded.all():
            values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        per_width = np.repeat((1 / self.widths).astype(np.float32), self._lengths)
        codes = (values * per_width).astype(np.int64)  # a product with a power of two: exact, or far below 1
        codes -= values < 0
        codes += self._zeros
        np.add.at(self.counts.reshape(-1), codes, 1)

    def merge(self, other: Histograms) -> None:
        """Count what another has counted of the same tensors; ``other`` stays as it is."""
        self._widen(other.low, other.high)
        doublings = self.exponents - other.exponents
        np.add(self.counts, other.counts, out=self.counts, where=(doublings == 0)[:, None])
        for tensor in np.flatnonzero(doublings):
            self.counts[tensor] += _widened(other.counts[tensor], doublings[tensor])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that was counted, for a file: views, not copies."""
        return {"counts": self.counts, "exponents": self.exponents, "low": self.low, "high": self.high}

    def restore(self, arrays: Mapping[str, NDArray[Any]], times: int) -> None:
        """Go on from what `arrays` gave after `add` was called so many times; shapes and types are the same (the caller has checked).

        Raises:
            ValueError: counts, widths and extremes contradict one another; nothing is taken over then.
        """
        counts, low, high = arrays["counts"], arrays["low"], arrays["high"]
        counted = not (counts < 0).any() and np.array_equal(counts.sum(1), np.multiply(self._lengths, times))
        if not counted or np.isnan([low, high]).any() or (arrays["exponents"] != _exponents(low, high)).any():
            raise ValueError("counts, widths and extremes do not belong together")
        for name, own in self.arrays().items():
            own[...] = arrays[name]

    def _widen(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
        """Take in new extremes, and make the bins wide enough for them."""
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        wanted = _exponents(self.low, self.high)
        for tensor in np.flatnonzero(wanted > self.exponents):
            self.counts[tensor] = _widened(self.counts[tensor], wanted[tensor] - self.exponents[tensor])
        self.exponents[:] = wanted


def _widened(counts: NDArray[np.int64], doublings: np.int64) -> NDArray[np.int64]:
    """(BINS,) the same counts in bins that are twice as wide, so many times over."""
    # Beyond SIDE in one, all of a side falls into the bin next to zero.
    sums = counts.reshape(-1, 1 << min(int(doublings), _SIDE_BITS)).sum(1)
    wide = np.zeros_like(counts)
    wide[SIDE - len(sums) // 2 : SIDE + len(sums) // 2] = sums
    return wide


def _exponents(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.int64]:
    """(T,) the least exponents whose power of two is greater than every magnitude."""
    magnitude = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    counted = low <= high
    exponents = np.frexp(np.where(counted & np.isfinite(magnitude), magnitude, 0.0))[1].astype(np.int64)
    exponents[counted & np.isinf(magnitude)] = _GREATEST
    exponents[~counted | (magnitude == 0)] = _LEAST
    within: NDArray[np.int64] = np.clip(exponents, _LEAST, _GREATEST)
    return within

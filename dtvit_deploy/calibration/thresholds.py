"""Where to clip a tensor before it is rounded to 8 bits: four answers from one histogram, of all tensors at once.

*Min-max* clips nothing. *Percentile* leaves out the outermost values, half of them at either end. *MSE* and *entropy* search a
magnitude t, and keep what of the tensor lies in [−t, t]: so that one outlier is cut off on its own side, and a tensor of one sign keeps
its one side. Both judge a candidate by the 256 levels that span what it keeps and zero, which is the grid of an asymmetric consumer; for
a tensor centred on zero it is the symmetric one too, and for one of one sign a symmetric consumer clips a little less than would be best.

MSE: mean squared difference from the quantised tensor, clipped values included. Entropy: Kullback-Leibler divergence of the histogram
spread evenly within each level from the histogram whose clipped values lie at the ends, as in TensorRT's 8-bit calibration (Migacz, GTC
2017), which is this search over magnitudes with 128 levels and 2,048 bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.calibration.histogram import BINS, SIDE, Histograms
from dtvit_deploy.calibration.method import Method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVELS = 256
OCTAVES = 6
"""Magnitudes are searched down to 1/64 of the largest: an outlier 64 times larger than what is worth keeping, that is."""
COARSE, FINE = 4, 32
"""Candidates in an octave: first everywhere, then around the best."""
_AT_ONCE = 8
"""Tensors whose sums are looked at together: more do not fit into a processor's cache."""


def ranges_of(histograms: Histograms, percentile: float) -> dict[Method, NDArray[np.float32]]:
    """(T, 2) lowest and highest value that each method keeps, within the tensor's own extremes.

    Args:
        histograms: of T tensors; where an extreme is infinite the ranges mean nothing.
        percentile: share of the values that the percentile keeps, in per cent.
    """
    found = {method: np.empty((len(histograms), 2), np.float32) for method in Method}
    extremes = np.stack([histograms.low, histograms.high], 1)
    scaled = np.where(histograms.bounded[:, None], extremes, 0) / histograms.widths[:, None]
    for start in range(0, len(histograms), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        sums = _Sums(histograms.counts[part], scaled[part])
        kept = {
            Method.MINMAX: sums.extremes,
            Method.PERCENTILE: sums.quantiles((1 - percentile / 100) / 2),
            Method.ENTROPY: sums.search(sums.divergence),
            Method.MSE: sums.search(sums.squared_error),
        }
        for method, bounds in kept.items():
            found[method][part] = bounds * histograms.widths[part, None]
    return {method: np.clip(bounds, extremes[:, :1], extremes[:, 1:]) for method, bounds in found.items()}  # FP32 may have rounded outwards


def clipped(histograms: Histograms, bounds: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T,) share of the counted values that (T, 2) finite bounds leave out; a bin that they cut is taken for inside."""
    ends = _bin_of(bounds / histograms.widths[:, None])
    inside = [row[low : high + 1].sum() for row, (low, high) in zip(histograms.counts, ends, strict=True)]
    share: Floats = 1 - np.asarray(inside) / np.maximum(histograms.counts.sum(1), 1)
    return share


def changes(curve: NDArray[np.float32]) -> Floats:
    """(points, methods, 2) median and 95th percentile, over the tensors, of how far ranges are from the last ones, as a share of those.

    Args:
        curve: (points, methods, tensors, 2) ranges.
    """
    last = curve[-1].astype(np.float64)
    span = last[..., 1] - last[..., 0]
    moved = np.abs(curve - last).max(-1) / np.where(span > 0, span, 1.0)
    found: Floats = np.stack([np.median(moved, -1), np.percentile(moved, 95, axis=-1)], -1).round(6)
    return found


class _Sums:
    """Running sums over the bins of some tensors, from which those over any stretch of bins follow. All lengths are in bins."""

    def __init__(self, counts: NDArray[np.int64], extremes: Floats) -> None:
        centres = np.arange(BINS) - SIDE + 0.5
        self.extremes = extremes
        self._magnitude = np.abs(extremes).max(1)
        self._all = _running(counts)[..., 0]
        # Zero is a level of every grid. A tensor that is 0 for the most part would seem to need no other level.
        self.counts = counts.astype(np.float64)
        self.counts[:, SIDE] = np.minimum(self.counts[:, SIDE], self.counts[:, SIDE + 1])
        self.total = self.counts.sum(1)
        self._moments = _running(self.counts, self.counts * centres, self.counts * centres**2)
        self._entropy = _running(self.counts, self.counts > 0, _log_of(self.counts))

    def quantiles(self, share: float) -> Floats:
        """(tensors, 2) the innermost edges of bins outside which lies no more than that share, at either end."""
        below, total = self._all, self._all[:, -1:]
        low = (below <= total * share).sum(1) - 1
        high = BINS - (total - below <= total * share).sum(1) + 1
        kept: Floats = np.clip(np.stack([low, high], 1) - SIDE, self.extremes[:, :1], self.extremes[:, 1:])
        return kept

    def search(self, cost: Callable[[Floats, Floats], Floats]) -> Floats:
        """(tensors, 2) what the magnitude of least cost keeps; of equal ones, the largest."""
        best = self._best(cost, np.tile(np.arange(OCTAVES * COARSE + 1) / COARSE, (len(self.total), 1)))
        nearby = best[:, None] + np.arange(1 - FINE // COARSE, FINE // COARSE) / FINE
        return np.stack(self._kept(self._best(cost, np.maximum(nearby, 0))[:, None]), -1)[:, 0]

    def _best(self, cost: Callable[[Floats, Floats], Floats], octaves: Floats) -> Floats:
        costs = cost(*self._kept(octaves))
        return np.take_along_axis(octaves, costs.argmin(1)[:, None], 1)[:, 0]

    def _kept(self, octaves: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest value that magnitudes so many octaves below the largest keep, each of the shape (tensors, candidates)."""
        magnitude = self._magnitude[:, None] * np.exp2(-octaves)
        low, high = (np.clip(extreme[:, None], -magnitude, magnitude) for extreme in self.extremes.T)
        return low, high

    def squared_error(self, low: Floats, high: Floats) -> Floats:
        """(tensors, candidates) sum of squared differences from the nearest of the levels."""
        levels, edges = _grid(low, high)
        edges[..., 0], edges[..., -1] = 0, BINS
        count, first, second = _between(self._moments, edges)
        error: Floats = (second - 2 * levels * first + levels**2 * count).sum(-1)
        return error

    def divergence(self, low: Floats, high: Floats) -> Floats:
        """(tensors, candidates) Kullback-Leibler divergence; infinite where bins are fewer than levels, or an end of the range is empty."""
        start, end = _bin_of(low), _bin_of(high) + 1
        first, last = np.minimum(start, SIDE)[..., None], np.maximum(end, SIDE)[..., None]
        edges = np.round(first + (last - first) * (np.arange(LEVELS + 1) / LEVELS)).astype(np.int64)
        count, filled, logs = _between(self._entropy, np.clip(edges, start[..., None], end[..., None]))
        rows, running = np.arange(len(self.total))[:, None], self._entropy[..., 0]
        total, entropy, reference = self.total[:, None], logs.sum(-1), count.copy()
        for at, level, outside in ((start, 0, running[rows, start]), (end - 1, -1, total - running[rows, end])):
            there = self.counts[rows, at]
            entropy += _log_of(there + outside) - _log_of(there)
            filled[..., level] += (there == 0) & (outside > 0)
            reference[..., level] += outside
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.where(count > 0, reference * np.log(count / filled), 0.0).sum(-1)
            divergence: Floats = (entropy - spread) / total + np.log(count.sum(-1) / total)
        empty = ((count == 0) & (reference > 0)).any(-1)
        too_few = (end - start < LEVELS) & ((low > self.extremes[:, :1]) | (high < self.extremes[:, 1:]))
        divergence[empty | too_few | np.isnan(divergence)] = np.inf
        return divergence


def _running(*amounts: NDArray[Any]) -> Floats:
    """(tensors, BINS + 1, n) sums over the bins before each edge, of n amounts in every bin; what is asked for together lies together."""
    sums = np.zeros((*amounts[0].shape[:1], BINS + 1, len(amounts)))
    for index, amount in enumerate(amounts):
        np.cumsum(amount, axis=1, out=sums[:, 1:, index])
    return sums


def _between(running: Floats, edges: NDArray[np.int64]) -> Floats:
    """(n, tensors, candidates, stretches) sums over the bins between neighbours of (tensors, candidates, stretches + 1) edges."""
    rows = np.arange(len(edges))[:, None, None] * (BINS + 1)
    at = np.take(running.reshape(-1, running.shape[-1]), edges + rows, axis=0)
    return np.moveaxis(at[:, :, 1:] - at[:, :, :-1], -1, 0)


def _grid(low: Floats, high: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The values of the levels that span [low, high] and zero, zero among them, and the LEVELS + 1 nearest edges of bins around them."""
    first = np.minimum(low, 0)
    step = np.maximum((np.maximum(high, 0) - first) / (LEVELS - 1), np.finfo(np.float64).tiny)
    number, step = np.arange(LEVELS + 1) + np.round(first / step)[..., None], step[..., None]
    edges = np.round((number - 0.5) * step).astype(np.int64) + SIDE
    return number[..., :-1] * step, np.clip(edges, 0, BINS)


def _bin_of(values: Floats) -> NDArray[np.int64]:
    """Index of the bin of values in widths; of the outermost bin, for those beyond."""
    index: NDArray[np.int64] = np.clip(np.trunc(values) + SIDE - (values < 0), 0, BINS - 1).astype(np.int64)
    return index


def _log_of(counts: Floats) -> Floats:
    """Count times its logarithm, 0 for none."""
    product: Floats = counts * np.log(np.maximum(counts, 1))
    return product

"""The palette of a weight tensor: few values, and for each weight the nearest of them, with little squared error in all.

coremltools has k-means by two other libraries, one of which draws its start. In one dimension clusters are runs of neighbours, so that
every sum is a difference of running sums: that takes milliseconds, and is the same on every machine.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 300


def palette(weights: NDArray[Any], bits: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The 2^``bits`` values, ascending and of the weights' own type, and the place of each weight's value, flat."""
    values, places, counts = np.unique(weights.astype(np.float64), return_inverse=True, return_counts=True)
    size = 1 << bits
    if len(values) <= size:
        table = np.concatenate([values, np.full(size - len(values), values[-1])])
        return table.astype(weights.dtype), places.ravel().astype(np.uint8)
    sums = _Sums(values, counts)
    edges = sums.split(size)
    for _ in range(MOST_ROUNDS):  # Lloyd's: means of the clusters, then clusters of the nearest
        centres = sums.means(edges)
        moved = np.concatenate([[0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]])
        if np.array_equal(moved, edges) or (np.diff(moved) == 0).any():
            break
        edges = moved
    table = sums.means(edges).astype(weights.dtype)
    exact = table.astype(np.float64)
    nearest = np.searchsorted((exact[1:] + exact[:-1]) / 2, values)
    return table, nearest[places.ravel()].astype(np.uint8)


class _Sums:
    """Running sums over the distinct values, of how often they occur."""

    def __init__(self, values: NDArray[Any], counts: NDArray[Any]) -> None:
        self._values = values
        self._number, self._total, self._square = (
            np.concatenate([[0.0], np.cumsum(term)]) for term in (counts, values * counts, values**2 * counts)
        )

    def means(self, edges: NDArray[Any]) -> NDArray[Any]:
        means: NDArray[Any] = np.diff(self._total[edges]) / np.diff(self._number[edges])
        return means

    def split(self, size: int) -> NDArray[Any]:
        """Edges of that many clusters: the one with the greatest error is split at its mean, again and again."""
        heap = [(-self._error(0, len(self._values)), 0, len(self._values))]
        while len(heap) < size:
            _, first, end = heapq.heappop(heap)
            mean = self.means(np.array([first, end]))[0]
            middle = int(np.clip(np.searchsorted(self._values, mean), first + 1, end - 1))
            for one, other in ((first, middle), (middle, end)):
                heapq.heappush(heap, (-self._error(one, other), one, other))
        return np.array([*sorted(first for _, first, _ in heap), len(self._values)])

    def _error(self, first: int, end: int) -> float:
        """Sum of the squared distances from the mean; less than none for a single value, which cannot be split."""
        if end - first == 1:
            return -1.0
        number, total, square = (running[end] - running[first] for running in (self._number, self._total, self._square))
        return max(0.0, float(square - total**2 / number))

"""The palette of a weight tensor: few values, and for each weight the nearest of them, with the least sum of squared errors nearby.

coremltools has k-means by two other libraries. In one dimension it is short, exact in its sums, and the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 100


def palette(weights: NDArray[Any], bits: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The 2^``bits`` values, ascending and of the weights' own type, and the place of each weight's value, flat.

    Lloyd's algorithm on the distinct values: clusters of neighbours, so that sums over them are differences of running sums.
    """
    values, places, counts = np.unique(weights.astype(np.float64), return_inverse=True, return_counts=True)
    size = 1 << bits
    if len(values) <= size:
        table = np.concatenate([values, np.full(size - len(values), values[-1])])
        return table.astype(weights.dtype), places.ravel().astype(np.uint8)
    number = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(values * counts)])
    centres = np.quantile(values, (np.arange(size) + 0.5) / size)  # of distinct values: the rare large ones weigh most in the error
    for _ in range(MOST_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]])
        held = number[edges[1:]] - number[edges[:-1]]
        sums = total[edges[1:]] - total[edges[:-1]]
        moved = np.where(held > 0, sums / np.maximum(held, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    table = centres.astype(weights.dtype)
    nearest = np.searchsorted((table[1:].astype(np.float64) + table[:-1].astype(np.float64)) / 2, values)
    return table, nearest[places.ravel()].astype(np.uint8)

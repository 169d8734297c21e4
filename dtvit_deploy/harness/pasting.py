"""Masks of instances that a network finds in their boxes, a few dozen pixels a side, drawn at the size of the original image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.run_lengths import Masks, compressed, runs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pasted(shares: NDArray[Any], boxes: NDArray[Any], size: tuple[int, int], *, threshold: float = 0.5) -> Masks:
    """Masks of an image, one after the other, each from its box.

    A pixel is inside where the share at its centre, interpolated bilinearly, is at least ``threshold``; beyond the outermost centres of the
    small mask it falls off to 0, as MMDetection and Detectron2 have it. A box that is not finite has an empty mask.

    Args:
        shares: (N, h, w) from 0 to 1.
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the original image.
        size: its height and width.
        threshold: from 0 to 1.

    Raises:
        InputError: a shape is another.
    """
    import numpy as np

    if shares.ndim != 3 or 0 in shares.shape[1:] or boxes.shape != (len(shares), 4):
        raise InputError(f"masks of the shape {shares.shape} have boxes of the shape {boxes.shape}; expected (N, height, width) and (N, 4)")
    height, width = size
    runs = []
    for small, (x1, y1, x2, y2) in zip(np.asarray(shares, np.float32), np.asarray(boxes, np.float64), strict=True):
        mask = np.zeros((height, width), np.bool_)
        if np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1:
            top, bottom = max(int(np.floor(min(y1, height))), 0), min(int(np.ceil(max(y2, 0))), height)
            left, right = max(int(np.floor(min(x1, width))), 0), min(int(np.ceil(max(x2, 0))), width)
            rows = (np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * small.shape[0] - 0.5
            columns = (np.arange(left, right) + 0.5 - x1) / (x2 - x1) * small.shape[1] - 0.5
            mask[top:bottom, left:right] = _at(small, rows, columns) >= threshold
        runs.append(compressed(runs_of(mask)))
    return Masks(height, width, tuple(runs))


def _at(values: NDArray[np.float32], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    """Values between pixels' centres; around them is 0."""
    import numpy as np

    around = np.pad(values, 1)
    up, left = (np.clip(np.floor(at) + 1, 0, side - 2).astype(np.int64) for at, side in zip((rows, columns), around.shape, strict=True))
    down, across = np.clip(rows + 1 - up, 0, 1)[:, None], np.clip(columns + 1 - left, 0, 1)
    above, below = around[up], around[up + 1]
    lines = above * (1 - down) + below * down
    found: NDArray[Any] = lines[:, left] * (1 - across) + lines[:, left + 1] * across
    return found

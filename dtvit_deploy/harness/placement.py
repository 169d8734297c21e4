"""Where an image lies in a network's input, and the way back: boxes, scores of classes and labels in pixels of the original image.

Coordinates are of edges: an image of W pixels reaches from 0 to W, and the centre of its first pixel is at 0.5. So resizing is a
multiplication, by the whole numbers of pixels that there were and are, and not by the ratio that was aimed at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STRIP = 1 << 20
"""Pixels of the original image that are looked at together, of all classes one by one."""


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Height and width, in pixels, of the original image, of the same resized, and of the input; and where in that it begins.

    Raises:
        InputError: a side is less than a pixel, or the resized image does not lie in the input.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        inside = all(begin >= 0 and begin + side <= whole for begin, side, whole in zip(self.offset, self.resized, self.size, strict=True))
        if min(*self.original, *self.resized) < 1 or not inside:
            raise InputError(
                f"an image of {_told(self.original)} pixels, resized to {_told(self.resized)}, does not lie in an input of"
                f" {_told(self.size)} at {self.offset}"
            )

    def boxes_in(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """(N, 4) x1 y1 x2 y2 of the original image → in the input."""
        import numpy as np

        scale, begin = self._x_and_y()
        return np.asarray(boxes, np.float64) * scale + begin

    def boxes_out(self, boxes: NDArray[Any], *, clip: bool = True) -> NDArray[np.float64]:
        """(N, 4) x1 y1 x2 y2 in the input → of the original image, and cut at its edges unless ``clip`` is false."""
        import numpy as np

        scale, begin = self._x_and_y()
        found = (np.asarray(boxes, np.float64) - begin) / scale
        height, width = self.original
        return np.clip(found, 0, [width, height, width, height]) if clip else found

    def labels_out(self, labels: NDArray[Any]) -> NDArray[Any]:
        """(h, w) labels of the whole input, at any resolution → (H, W) of the original image: of each pixel's centre, the nearest."""
        import numpy as np

        rows, columns = (
            np.clip(np.floor(at), 0, side - 1).astype(np.int64) for at, side in zip(self._centres(labels.shape), labels.shape, strict=True)
        )
        return labels[rows[:, None], columns]

    def classes_out(self, scores: NDArray[Any]) -> NDArray[np.int16]:
        """(K, h, w) scores of classes over the whole input, at any resolution → (H, W) class of each pixel of the original image.

        Scores are interpolated bilinearly at each pixel's centre, in one step, and then the greatest is taken, of equal ones the first; the
        other way round is something else. -1 where a score is NaN. K × H × W scores are never held.

        Raises:
            InputError: there are no scores, or more classes than 32,767.
        """
        import numpy as np

        if scores.ndim != 3 or 0 in scores.shape or len(scores) > np.iinfo(np.int16).max or scores.dtype.kind != "f":
            raise InputError(f"scores of classes are {scores.shape} {scores.dtype}; expected (classes, height, width) of floats")
        values = np.asarray(scores, np.float32)
        vertical, horizontal = (_neighbours(at, side) for at, side in zip(self._centres(scores.shape[1:]), scores.shape[1:], strict=True))
        height, width = self.original
        found = np.empty((height, width), np.int16)
        strip = max(1, _STRIP // width)
        with np.errstate(invalid="ignore"):  # infinity of FP16: NaN between two of them
            for start in range(0, height, strip):
                part = slice(start, start + strip)
                rows = tuple(each[part] for each in vertical)
                best = _between(values[0], rows, horizontal)
                first, wrong = np.zeros(best.shape, np.int16), np.isnan(best)
                for label in range(1, len(values)):
                    other = _between(values[label], rows, horizontal)
                    wrong |= np.isnan(other)
                    greater = other > best
                    first[greater] = label
                    best = np.where(greater, other, best)
                first[wrong] = -1
                found[part] = first
        return found

    def _x_and_y(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and offset of x1 y1 x2 y2."""
        import numpy as np

        vertical, horizontal = (new / old for new, old in zip(self.resized, self.original, strict=True))
        top, left = self.offset
        return np.asarray([horizontal, vertical] * 2), np.asarray([left, top] * 2, np.float64)

    def _centres(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the centres of the original's rows and columns lie in a map of the input that has another resolution, from its edges."""
        import numpy as np

        def along(axis: int) -> NDArray[np.float64]:
            scale = self.resized[axis] / self.original[axis]
            centres = np.arange(self.original[axis]) + 0.5
            return np.asarray((centres * scale + self.offset[axis]) * (shape[axis] / self.size[axis]), np.float64)

        return along(0), along(1)


def _neighbours(at: NDArray[np.float64], side: int) -> tuple[NDArray[Any], ...]:
    """The places before and after each, and how far it is to the second; beyond the outermost centres, the map goes on as it ends."""
    import numpy as np

    place = np.clip(at - 0.5, 0, side - 1)
    before = np.minimum(np.floor(place).astype(np.int64), max(side - 2, 0))
    return before, np.minimum(before + 1, side - 1), (place - before).astype(np.float32)


def _between(values: NDArray[np.float32], rows: tuple[NDArray[Any], ...], columns: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    above, below, down = rows
    left, right, across = columns
    # Not a + (b - a)·t: of two infinities alike that is NaN.
    lines = values[above] * (1 - down)[:, None] + values[below] * down[:, None]
    found: NDArray[np.float32] = lines[:, left] * (1 - across) + lines[:, right] * across
    return found


def _told(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"

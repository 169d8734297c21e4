"""Masks of instances as lengths of runs, in COCO's own notation: small, and what its tools count with.

The runs go down the columns, the first is of pixels outside. Their compressed text comes from files of others, and is read here before
any native code sees it: the usual reader in C runs past the end of a damaged one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Natural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST_MASK = 100_000_000
"""Pixels: of the largest image that is decoded."""
_LONGEST = 7
"""Characters of one number: 34 bits and a sign, more than a mask has pixels."""


class Masks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The masks of one image's objects, all of the image's size.

    Attributes:
        height, width: of the image, in pixels.
        runs: of each mask, in COCO's compressed notation.

    Raises:
        ValueError: a text is no mask of that size.
    """

    height: Natural
    width: Natural
    runs: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=1 << 20)] = ()

    def __post_init__(self) -> None:
        if self.height * self.width > LARGEST_MASK:
            raise ValueError(f"masks of {self.width}×{self.height} pixels; at most {LARGEST_MASK:,} are counted with")
        for text in self.runs:
            require_runs(expanded(text), self.height, self.width)

    @classmethod
    def of(cls, masks: NDArray[Any]) -> Masks:
        """From (N, H, W) booleans."""
        _, height, width = masks.shape
        return cls(height, width, tuple(compressed(runs_of(mask)) for mask in masks))

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """Each as (H, W) booleans, one at a time: a hundred masks of a photograph are gigabytes."""
        return (filled(expanded(text), self.height, self.width) for text in self.runs)

    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels of each."""
        import numpy as np

        return np.asarray([expanded(text)[1::2].sum() for text in self.runs], np.int64)

    def chosen(self, places: NDArray[Any]) -> Masks:
        """Those at some places, in that order."""
        return Masks(self.height, self.width, tuple(self.runs[int(place)] for place in places))


def runs_of(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Lengths of the runs of an (H, W) mask."""
    import numpy as np

    flat = np.asarray(mask, np.bool_).ravel(order="F")
    runs = np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]]))
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def filled(runs: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """The (H, W) mask whose runs add up to its pixels."""
    import numpy as np

    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def require_runs(runs: NDArray[np.int64], height: int, width: int) -> None:
    """Refuse runs that are none, or do not make up the pixels of an image.

    Raises:
        ValueError: they do not.
    """
    if (runs < 0).any() or (runs > LARGEST_MASK).any() or (total := int(runs.sum())) != height * width:
        counted = "a run of impossible length" if (runs < 0).any() or (runs > LARGEST_MASK).any() else f"{total:,} pixels"
        raise ValueError(f"its runs have {counted}, and an image of {width}×{height} has {height * width:,}")


def compressed(runs: NDArray[np.int64]) -> bytes:
    """COCO's text of runs: differences to the last run but one, five bits a character, the least first."""
    import numpy as np

    left = np.array(runs, np.int64)
    left[3:] -= runs[1:-2]
    places, characters = [], []
    place = np.arange(len(left))
    for turn in range(_LONGEST):
        bits = left & 31
        left = left >> 5
        more = np.where(bits & 16, left != -1, left != 0)
        places.append(place * _LONGEST + turn)
        characters.append(bits + 48 + 32 * more)
        left, place = left[more], place[more]
    order = np.argsort(np.concatenate(places))
    return bytes(np.concatenate(characters)[order].astype(np.uint8))


def expanded(text: bytes) -> NDArray[np.int64]:
    """The runs of COCO's text; what they add up to is not looked at.

    Raises:
        ValueError: it is no such text.
    """
    import numpy as np

    characters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if ((characters < 0) | (characters > 63)).any():
        raise ValueError("its text holds characters that no run-length text has")
    ends = np.flatnonzero(characters < 32)
    if not len(characters) or not len(ends) or ends[-1] != len(characters) - 1:
        raise ValueError("its run-length text is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("its run-length text has a number that no image needs")
    within = np.arange(len(characters)) - np.repeat(starts, lengths)
    values: NDArray[np.int64] = np.add.reduceat((characters & 31) << (5 * within), starts)
    values -= np.where(characters[ends] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):  # from the fourth on, each is what it has more than the last but one
        values[first::2] = np.cumsum(values[first::2])
    return values

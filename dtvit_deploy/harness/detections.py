"""Objects of one image: what a detector found, and what annotations say. Boxes are in pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.run_lengths import Masks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image; N may be 0.

    Attributes:
        boxes: (N, 4) real: x1 y1 x2 y2 in pixels of the original image, whose first pixel reaches from 0 to 1.
        scores: (N,) real; the surer the greater.
        labels: (N,) integers: index of the class, from 0.
        masks: of each, at the size of the original image, empty where such a network finds nothing; None of one that finds boxes alone.

    Raises:
        InputError: a shape or a type is another.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    masks: Masks | None = None

    def __post_init__(self) -> None:
        _check("detections", self.boxes, self.labels, {"scores": self.scores}, self.masks)

    @classmethod
    def none(cls) -> Detections:
        """Of an image in which nothing was found."""
        import numpy as np

        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, places: NDArray[Any]) -> Detections:
        """Those at some places, in that order."""
        masks = None if self.masks is None else self.masks.chosen(places)
        return Detections(self.boxes[places], self.scores[places], self.labels[places], masks)

    def whole(self) -> NDArray[np.bool_]:
        """(N,) which have a box that something can lie in; one of FP16's NaN or infinity is none."""
        return has_inside(self.boxes)


@dataclass(frozen=True, eq=False)
class Truth:
    """What annotations say of one image; M may be 0.

    Attributes:
        boxes: (M, 4) finite, as those of :class:`Detections`.
        labels: (M,) integers: index of the class, from 0.
        areas: (M,) square pixels, by which an object counts as small, medium or large: of its mask, where annotations have that.
        crowd: (M,) booleans: a group that nobody is asked to take apart; what is found in it counts neither for nor against.
        masks: of each, at the size of the image; None where there are boxes alone.

    Raises:
        InputError: a shape or a type is another.
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    areas: NDArray[Any]
    crowd: NDArray[Any]
    masks: Masks | None = None

    def __post_init__(self) -> None:
        _check("annotations", self.boxes, self.labels, {"areas": self.areas, "crowd": self.crowd}, self.masks)

    @classmethod
    def from_detections(cls, found: Detections) -> Truth:
        """The answers of a reference as the truth; boxes that nothing can lie in are left out."""
        import numpy as np

        kept = found.chosen(np.flatnonzero(found.whole()))
        boxes = np.asarray(kept.boxes, np.float64)
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = sides.prod(1) if kept.masks is None else kept.masks.areas().astype(np.float64)
        return cls(boxes, kept.labels, areas, np.zeros(len(boxes), np.bool_), kept.masks)

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, places: NDArray[Any]) -> Truth:
        """What is said at some places, in that order."""
        masks = None if self.masks is None else self.masks.chosen(places)
        return Truth(self.boxes[places], self.labels[places], self.areas[places], self.crowd[places], masks)


def has_inside(boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which of (N, 4) boxes are finite and have an area."""
    import numpy as np

    inside: NDArray[np.bool_] = np.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return inside


def _check(what: str, boxes: NDArray[Any], labels: NDArray[Any], others: dict[str, NDArray[Any]], masks: Masks | None) -> None:
    count = len(labels) if labels.ndim == 1 else -1
    wrong = boxes.shape != (count, 4) or any(other.shape != (count,) for other in others.values())
    if wrong or labels.dtype.kind not in "iu" or any(array.dtype.kind not in "fiub" for array in (boxes, *others.values())):
        arrays = {"boxes": boxes, "labels": labels, **others}
        told = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
        raise InputError(f"{what} of an image have {told}; expected boxes (N, 4), and (N,) of all else, the labels integers")
    if count and labels.min() < 0:
        raise InputError(f"{what} of an image have the class {int(labels.min())}; classes are counted from 0")
    if masks is not None and len(masks) != count:
        raise InputError(f"{what} of an image have {count} boxes and {len(masks)} masks; each object has one of both")

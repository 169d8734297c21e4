"""How many pixels have the right class: a matrix of counts, gathered image by image, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Natural, Share, unit
from dtvit_deploy.errors import InputError
from dtvit_deploy.plural import some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IGNORED = 255
"""The label of pixels that nobody says anything about; they are not counted."""
MOST_CLASSES = IGNORED
"""Classes 0 to 254: the next number means something else."""
NONE = -1
"""A prediction that is no class, as where the logits hold NaN: wrong, and in agreement with nothing."""


class Segmented(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well the pixels of some images were told apart.

    Attributes:
        pixels: how many were counted; those labelled 255 were not.
        accuracy: share of them that has the label's class.
        miou: mean intersection over union of the classes that occur in the labels; None where no pixel was counted.
        by_class: intersection over union of each class; None for one that is neither labelled nor predicted anywhere, 0 for one that is
            only predicted, which ``miou`` leaves out.
    """

    pixels: Annotated[Count, unit("pixel")]
    accuracy: Share | None
    miou: Share | None
    by_class: tuple[Share | None, ...]


class Confusion(msgspec.Struct, forbid_unknown_fields=True):
    """How many pixels of each class were taken for which, counted in 64 bits.

    Counts of other images are merged in any order; it can be encoded and read again. The same matrix of two predictions is their agreement:
    one takes the place of the labels.

    Attributes:
        classes: how many there are, 1 to 254 and one more.
        counts: (classes + 1)² int64 numbers, a row for each label, a column for each prediction; the last of both is of no class.

    Raises:
        ValueError: what was read contradicts itself.
    """

    classes: Natural
    counts: bytes = b""

    def __post_init__(self) -> None:
        if self.classes > MOST_CLASSES:
            raise ValueError(f"{self.classes} classes; at most {MOST_CLASSES} are counted, since {IGNORED} means no label")
        side = self.classes + 1
        self.counts = self.counts or bytes(8 * side * side)
        if len(self.counts) != 8 * side * side or (self.matrix() < 0).any():
            raise ValueError("the counts of a confusion matrix do not belong to its classes")

    def matrix(self) -> NDArray[np.int64]:
        """(classes + 1, classes + 1): rows are labels, columns predictions."""
        import numpy as np

        return np.frombuffer(self.counts, "<i8").astype(np.int64).reshape(self.classes + 1, -1)

    def add(self, predicted: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count one image.

        Args:
            predicted: (H, W) integers: a class, or -1 for none.
            labels: (H, W) integers: a class, or 255 where nothing is said; of a reference's prediction also -1.

        Raises:
            InputError: shapes or types are others, or a number is none of the classes.
        """
        import numpy as np

        if predicted.shape != labels.shape or predicted.ndim != 2 or predicted.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
            raise InputError(
                f"a prediction is {predicted.shape} {predicted.dtype}, and its labels are {labels.shape} {labels.dtype}; expected integers"
                " of one height and width",
                remedy="bring the prediction to the size of the original image",
            )
        side = self.classes + 1
        kept = labels != IGNORED
        rows, columns = (self._places(name, array[kept]) for name, array in (("labels", labels), ("predictions", predicted)))
        counts = np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)
        self.counts = (self.matrix() + counts).astype("<i8").tobytes()

    def merge(self, other: Confusion) -> None:
        """Count what another has counted, which stays as it is.

        Raises:
            ValueError: it is of another number of classes.
        """
        if other.classes != self.classes:
            raise ValueError(f"pixels of {self.classes} classes and of {other.classes} have no common matrix")
        self.counts = (self.matrix() + other.matrix()).astype("<i8").tobytes()

    def result(self) -> Segmented:
        """What was counted so far."""
        matrix = self.matrix()
        hits = matrix.diagonal()[:-1]
        labelled, predicted = matrix.sum(1)[:-1], matrix.sum(0)[:-1]
        either = labelled + predicted - hits
        # Of Python's integers, whose quotient is rounded once: the same figure everywhere.
        shares = [int(hit) / int(union) if union else None for hit, union in zip(hits, either, strict=True)]
        occurring = [share for share, count in zip(shares, labelled, strict=True) if share is not None and count]
        pixels = int(matrix.sum())
        return Segmented(
            pixels=pixels,
            accuracy=int(hits.sum()) / pixels if pixels else None,
            miou=min(sum(occurring) / len(occurring), 1.0) if occurring else None,
            by_class=tuple(shares),
        )

    def _places(self, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
        """Rows or columns of the matrix."""
        import numpy as np

        numbers = values.astype(np.int64)
        outside = (numbers < NONE) | (numbers >= self.classes)
        if outside.any():
            raise InputError(
                f"there are {self.classes} classes, 0 to {self.classes - 1}; {name} say {some(map(str, np.unique(numbers[outside])))}",
                remedy=f"give the data that this network was trained for; {IGNORED} in labels means that nothing is said",
            )
        return np.where(numbers == NONE, self.classes, numbers)

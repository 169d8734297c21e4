"""How well objects are found: average precision against annotations, and against a reference's own detections, which needs no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Natural
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.coco_eval import MOST, Precision, average_precision
from dtvit_deploy.harness.detections import Detections, Truth
from dtvit_deploy.harness.run_lengths import Masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_COMPARED = 1000
"""Detections of an image and a class that are held against a reference's: pycocotools looks at each pair, forty times, in Python."""
_FOUND, _TRUE = 6, 7
"""Numbers of an object: its box, its class, and a score, or an area and whether it is a crowd."""


class Detected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well the objects of some images were found.

    Attributes:
        images: how many were looked at; those without an object count, as what is found there is wrong.
        detections: how many were found in them.
        objects: how many are annotated, crowds not counted; None without annotations.
        boxes, masks: average precision against annotations; None without them, masks None where one side has none.
        box_agreement, mask_agreement: the same against the reference's detections, all of which are taken for true.
    """

    images: Natural
    detections: Count
    objects: Count | None = None
    boxes: Precision | None = None
    masks: Precision | None = None
    box_agreement: Precision | None = None
    mask_agreement: Precision | None = None


class _Objects(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Objects of one image, as another process can be sent them.

    Attributes:
        rows: float64 numbers, :data:`_FOUND` or :data:`_TRUE` of each.
        masks: of each.
    """

    rows: bytes
    masks: Masks | None

    def numbers(self, columns: int) -> NDArray[Any]:
        import numpy as np

        return np.frombuffer(self.rows, "<f8").reshape(-1, columns)

    @classmethod
    def found(cls, found: Detections) -> _Objects:
        return cls(_rows(found.boxes, found.labels, found.scores), found.masks)

    @classmethod
    def true(cls, truth: Truth) -> _Objects:
        return cls(_rows(truth.boxes, truth.labels, truth.areas, truth.crowd), truth.masks)

    def as_found(self) -> Detections:
        rows = self.numbers(_FOUND)
        return Detections(rows[:, :4], rows[:, 5], rows[:, 4].astype("int64"), self.masks)

    def as_true(self) -> Truth:
        rows = self.numbers(_TRUE)
        return Truth(rows[:, :4], rows[:, 4].astype("int64"), rows[:, 5], rows[:, 6] > 0, self.masks)


class _Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    found: _Objects
    truth: _Objects | None
    reference: _Objects | None


class DetectionTally(msgspec.Struct, forbid_unknown_fields=True):
    """What was found in images that come one at a time. Average precision ranks all detections together, so each of them is kept.

    Tallies of consecutive images are merged into that of all of them, whatever the cuts; each can be encoded and read again.

    Raises:
        ValueError: what was read contradicts itself.
    """

    scenes: list[_Scene] = []

    def __post_init__(self) -> None:
        try:
            for scene in self.scenes:
                scene.found.as_found()
                for each in (scene.truth, scene.reference):
                    if each is not None:
                        each.as_true()
        except InputError as error:
            raise ValueError(str(error)) from error
        for present in ({scene.truth is None for scene in self.scenes}, {scene.reference is None for scene in self.scenes}):
            if len(present) > 1:
                raise ValueError("some images of a tally have a truth, and some have none")

    def add(self, found: Detections, truth: Truth | None = None, reference: Detections | None = None) -> None:
        """Count one image.

        Args:
            found: by the artefact.
            truth: what annotations say; of no image, or of every one.
            reference: what the reference found; of no image, or of every one.

        Raises:
            InputError: masks have different sizes, or one image has a truth and another has none.
        """
        expected = None if reference is None else Truth.from_detections(reference)
        for other in (truth, expected):
            if found.masks is not None and other is not None and other.masks is not None:
                _require_size(found.masks, other.masks)
        if self.scenes and (truth is None, reference is None) != (self.scenes[0].truth is None, self.scenes[0].reference is None):
            raise InputError(
                "some images have annotations, or answers of the reference, and some have none", remedy="annotate all, or none"
            )
        self.scenes.append(
            _Scene(
                _Objects.found(found),
                None if truth is None else _Objects.true(truth),
                None if expected is None else _Objects.true(expected),
            )
        )

    def merge(self, after: DetectionTally) -> None:
        """Count what another has counted, which stays as it is: images that follow these.

        Raises:
            ValueError: one has a truth or a reference, and the other has none.
        """
        if self.scenes and after.scenes:
            mine, its = self.scenes[0], after.scenes[0]
            if (mine.truth is None, mine.reference is None) != (its.truth is None, its.reference is None):
                raise ValueError("images with a truth and images without one have no common tally")
        self.scenes.extend(after.scenes)

    def result(self, most: int = MOST) -> Detected:
        """What was counted so far; at least one image must have been.

        Args:
            most: detections of an image and a class that count against annotations. Against a reference all count, up to
                :data:`MOST_COMPARED`: it is the same network.

        Raises:
            MissingError: pycocotools is not here.
        """
        found = [scene.found.as_found() for scene in self.scenes]
        truths = [scene.truth.as_true() for scene in self.scenes if scene.truth is not None]
        expected = [scene.reference.as_true() for scene in self.scenes if scene.reference is not None]
        boxes, masks = _precisions(truths, found, most)
        # The reference's boxes without an inside are not among those to be found; the artefact's must not count against it then.
        every = min(max(map(len, found), default=0) or 1, MOST_COMPARED)
        inside = [one.chosen(one.whole().nonzero()[0]) for one in found]
        box_agreement, mask_agreement = _precisions(expected, inside, every, only_drawn=True)
        return Detected(
            images=len(self.scenes),
            detections=sum(map(len, found)),
            objects=sum(int((~truth.crowd).sum()) for truth in truths) if truths else None,
            boxes=boxes,
            masks=masks,
            box_agreement=box_agreement,
            mask_agreement=mask_agreement,
        )


def _precisions(
    truths: list[Truth], found: list[Detections], most: int, *, only_drawn: bool = False
) -> tuple[Precision | None, Precision | None]:
    """By boxes and by masks, or by those masks that have a pixel; None where there is nothing to compare with."""
    if not truths:
        return None, None
    scenes = list(zip(truths, found, strict=True))
    by_boxes = average_precision(scenes, "bbox", most)
    # An image without objects may come without masks, too.
    masked = all((truth.masks is not None or not len(truth)) and (one.masks is not None or not len(one)) for truth, one in scenes)
    any_mask = any(truth.masks is not None for truth in truths) and any(one.masks is not None for one in found)
    if not masked or not any_mask:
        return by_boxes, None
    if only_drawn:
        scenes = [(truth.chosen(_drawn(truth.masks)), one.chosen(_drawn(one.masks))) for truth, one in scenes]
    return by_boxes, average_precision(scenes, "segm", most)


def _drawn(masks: Masks | None) -> NDArray[Any]:
    """Places of masks that have a pixel."""
    import numpy as np

    return np.zeros(0, np.int64) if masks is None else np.flatnonzero(masks.areas())


def _rows(boxes: NDArray[Any], *columns: NDArray[Any]) -> bytes:
    import numpy as np

    return np.column_stack([np.asarray(array, np.float64) for array in (boxes, *columns)]).astype("<f8").tobytes()


def _require_size(found: Masks, other: Masks) -> None:
    if (found.height, found.width) != (other.height, other.width):
        raise InputError(
            f"masks that were found are {found.width}×{found.height} pixels, and those they are held against {other.width}×{other.height}",
            remedy="bring them to the size of the original image",
        )

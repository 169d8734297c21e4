"""Non-maximum suppression on the host: of boxes that overlap, the surest; as ONNX Runtime's operator has it, box for box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.detections import Detections

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_BOXES = 1 << 18
"""Boxes of an image that are looked at: more than all anchors of RetinaNet at 800×1280."""


def suppressed(
    boxes: NDArray[Any], scores: NDArray[Any], *, overlap: float = 0.5, score: float | None = None, most: int | None = None
) -> NDArray[np.int64]:
    """Places of the boxes of one class that stay, the surest first.

    Greedy, in float32 as the operator: the surest box stays, and takes out every other whose intersection over union with it is greater
    than ``overlap``. Of equal scores the earlier box is first. A box without an area takes out nothing, and nothing takes it out; one with
    NaN neither. A score that is NaN is no detection.

    Args:
        boxes: (N, 4) real; any two opposite corners.
        scores: (N,) real.
        overlap: greatest intersection over union of two that stay, 0 to 1.
        score: a box stays only above it; None for all.
        most: how many stay at most; None for all.

    Raises:
        InputError: a shape is another, a number is out of its range, or there are more than :data:`MOST_BOXES`.
    """
    import numpy as np

    if boxes.shape != (len(scores), 4) or scores.ndim != 1 or len(scores) > MOST_BOXES:
        raise InputError(
            f"boxes of the shape {boxes.shape} have scores of the shape {scores.shape}; expected (N, 4) and (N,), N at most {MOST_BOXES:,}",
            remedy="take the surest of each level first",
        )
    _require_options(overlap, most)
    values = np.asarray(scores, np.float32)
    kept = ~np.isnan(values) if score is None else values > np.float32(score)
    order = np.flatnonzero(kept)
    order = order[np.argsort(-values[order], kind="stable")]
    limit = np.float32(overlap)
    corners = np.asarray(boxes, np.float32)[order]
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity of an FP16 network, which compare as said above
        low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
        left, top, right, bottom = low[:, 0], low[:, 1], high[:, 0], high[:, 1]
        area = (right - left) * (bottom - top)
        stay: list[int] = []
        while len(order) and (most is None or len(stay) < most):
            stay.append(int(order[0]))
            width = np.minimum(right[0], right[1:]) - np.maximum(left[0], left[1:])
            height = np.minimum(bottom[0], bottom[1:]) - np.maximum(top[0], top[1:])
            meet = np.flatnonzero((width > 0) & (height > 0) & (area[1:] > 0) & (area[0] > 0))
            shared = width[meet] * height[meet]
            union = area[0] + area[1 + meet] - shared
            out = meet[(union > 0) & (np.divide(shared, union, out=np.zeros_like(shared), where=union > 0) > limit)]
            if len(out):
                rest = np.ones(len(order), np.bool_)
                rest[0] = False
                rest[1 + out] = False
                order, left, top, right, bottom, area = (array[rest] for array in (order, left, top, right, bottom, area))
            else:
                order, left, top, right, bottom, area = (array[1:] for array in (order, left, top, right, bottom, area))
    return np.asarray(stay, np.int64)


def detected(
    boxes: NDArray[Any], scores: NDArray[Any], *, overlap: float = 0.5, score: float = 0.05, most: int = 100
) -> tuple[Detections, NDArray[np.int64]]:
    """Detections of one image, class by class, and the place among the boxes that each is from.

    The surest ``most`` of all classes stay, the surest first; of equal scores that of the earlier class, then the earlier box.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 for all classes, or (N, C, 4), one for each class.
        scores: (N, C) of each class, background left out.
        overlap: greatest intersection over union of two boxes of a class.
        score: what is not above it is no detection.
        most: detections of the image.

    Raises:
        InputError: as :func:`suppressed`.
    """
    import numpy as np

    if scores.ndim != 2 or boxes.shape not in ((len(scores), 4), (*scores.shape, 4)):
        raise InputError(
            f"boxes of the shape {boxes.shape} have scores of the shape {scores.shape}; expected (N, 4) or (N, C, 4), and (N, C)"
        )
    _require_options(overlap, most)
    places, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label in np.flatnonzero((np.asarray(scores, np.float32) > np.float32(score)).any(0)):
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        chosen = suppressed(own, scores[:, label], overlap=overlap, score=score, most=most)
        places.append(chosen)
        labels.append(np.full(len(chosen), label, np.int64))
    place, label = np.concatenate(places), np.concatenate(labels)
    first = np.argsort(-np.asarray(scores[place, label], np.float32), kind="stable")[:most]
    place, label = place[first], label[first]
    return Detections(boxes[place] if boxes.ndim == 2 else boxes[place, label], scores[place, label], label), place


def _require_options(overlap: float, most: int | None) -> None:
    if not 0 <= overlap <= 1 or (most is not None and most < 0):
        raise InputError(
            f"non-maximum suppression with an overlap of {overlap} and at most {most} boxes",
            remedy="the overlap is from 0 to 1, and the number of boxes not negative",
        )

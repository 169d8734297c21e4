"""Whether several runtimes find the same objects: each box of one against the nearest of the other, in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Magnitude, Natural, unit
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.harness.detections import Detections

WITHIN = 1.0
"""Pixels: what lies farther apart is another detection, and not the same one moved."""


class BoxDifference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the detections of two runtimes lie apart, over some images.

    Attributes:
        images: how many.
        first, second: detections of each.
        matched: pairs of the same class that lie within the limit; each detection is in one pair at most.
        largest: the greatest difference of a coordinate in a pair; 0 without any.
        largest_score: the greatest difference of scores in a pair; 0 without any.
    """

    images: Natural = 1
    first: Count
    second: Count
    matched: Count
    largest: Annotated[Magnitude, unit("pixel")] = 0.0
    largest_score: Magnitude = 0.0

    @property
    def alone(self) -> int:
        """Detections that only one of the two has."""
        return self.first + self.second - 2 * self.matched

    def merged(self, other: BoxDifference) -> BoxDifference:
        """Over the images of both."""
        return BoxDifference(
            images=self.images + other.images,
            first=self.first + other.first,
            second=self.second + other.second,
            matched=self.matched + other.matched,
            largest=max(self.largest, other.largest),
            largest_score=max(self.largest_score, other.largest_score),
        )

    def equal(self, pixels: float) -> bool:
        """Whether both found the same, no coordinate farther apart than so."""
        return not self.alone and self.largest <= pixels


def box_difference(first: Detections, second: Detections, within: float = WITHIN) -> BoxDifference:
    """Of one image. The surest of the first chooses first: the nearest box of its class, of equally near ones that of the nearest score.

    The order in which detections come says nothing: two that are equally sure may stand either way round. A box that is not finite is
    never the same as another.

    Raises:
        InputError: ``within`` is no positive number of pixels.
    """
    import numpy as np

    if not 0 < within < np.inf:
        raise InputError(f"boxes within {within} pixels are to count as the same", remedy="give a positive number")
    order = np.argsort(-np.asarray(first.scores, np.float64), kind="stable")
    boxes, others = (np.asarray(each.boxes, np.float64) for each in (first, second))
    scores, other_scores = (np.asarray(each.scores, np.float64) for each in (first, second))
    matched, largest, largest_score = 0, 0.0, 0.0
    usable = np.isfinite(others).all(1)
    left = {int(label): np.flatnonzero((second.labels == label) & usable) for label in np.unique(second.labels)}
    across = np.ascontiguousarray(others.T)
    for place in order[np.isfinite(boxes[order]).all(1)]:
        label = int(first.labels[place])
        candidates: NDArray[Any] = left.get(label, order[:0])
        if not len(candidates):
            continue
        apart = np.abs(across[:, candidates] - boxes[place][:, None]).max(0)
        least = float(apart.min())
        if least <= within:
            near = np.flatnonzero(apart == least)
            score_apart = np.nan_to_num(np.abs(other_scores[candidates[near]] - scores[place]), nan=np.inf)
            nearest = int(score_apart.argmin())
            matched += 1
            largest = max(largest, least)
            largest_score = max(largest_score, min(float(score_apart[nearest]), float(np.finfo(np.float64).max)))
            left[label] = np.delete(candidates, near[nearest])
    return BoxDifference(first=len(first), second=len(second), matched=matched, largest=largest, largest_score=largest_score)

"""Ranked answers side by side: boxes in the order of their scores, labels, indices.

Two scores that are closer than rounding can tell apart may stand in either order, and the one that is cut off may be either. Nothing is
wrong with an artefact that decides so, and no tolerance in pixels would say it. So the reference is put into the order that the artefact
chose, where that is an order that the reference's own scores allow, and everything else is compared as ever: what is no tie stays where it
was, and an answer that another rank has is wrong by as much as the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Outputs


class Span(NamedTuple):
    """The part of an output that is one ranking's, where it puts those of several one after the other: of each level of a pyramid, say."""

    axis: int
    start: int
    stop: int


def cut(output: NDArray[Any], span: Span | None) -> NDArray[Any]:
    """That part, a view; all of it where there is no other."""
    return output if span is None else output[(slice(None),) * span.axis + (slice(span.start, span.stop),)]


@dataclass(frozen=True)
class Ranked:
    """What the reference ranked in one feed, by one operator.

    Attributes:
        scores: what was ranked; higher ones come first.
        axis: along which.
        shape: of the indices.
        indices: that the reference chose.
        tie: scores no further apart than this may change places.
        direct: outputs that are indices.
        rows: for each output that holds what indices chose: the axis along which it has one entry for each rank.
        spans: the part of that output that this ranking's are; None where it is all of it.
        candidates: items (indices along the axis) that could be among the chosen, those that were chosen first, in their order; empty where
            rows cannot be told apart, since more than one row is ranked at once.
        entries: for each such output an array with one entry for each of those candidates, along its axis.
    """

    scores: NDArray[Any]
    axis: int
    shape: tuple[int, ...]
    indices: NDArray[Any]
    tie: float
    direct: tuple[str, ...]
    rows: Mapping[str, int]
    spans: Mapping[str, Span | None]
    candidates: NDArray[Any]
    entries: Outputs


def in_the_answers_order(reference: Outputs, answer: Outputs, ranked: Sequence[Ranked]) -> Outputs:
    """The reference's outputs, ties in the order in which the answer has them."""
    moved = dict(reference)
    for one in ranked:
        for name in one.direct:
            if name in answer and answer[name].shape == reference[name].shape:
                moved[name] = _indices(one, reference[name], answer[name])
        if one.candidates.size and all(name in answer and answer[name].shape == reference[name].shape for name in one.rows):
            for name, rows in _rows(one, answer).items():
                span = one.spans[name]
                whole = moved[name].copy() if span is not None else rows.astype(moved[name].dtype)
                if span is not None:
                    cut(whole, span)[...] = rows
                moved[name] = whole
    return moved


def _indices(one: Ranked, reference: NDArray[Any], answer: NDArray[Any]) -> NDArray[Any]:
    """Indices whose scores are as good as those that stand there in the reference, each chosen once; the reference's elsewhere."""
    keepdim = len(one.shape) == one.scores.ndim
    theirs, ours = answer.reshape(one.shape), reference.reshape(one.shape)
    if not keepdim:
        theirs, ours = np.expand_dims(theirs, one.axis), np.expand_dims(ours, one.axis)
    count = one.scores.shape[one.axis]
    known = (theirs >= 0) & (theirs < count) & (theirs == np.floor(theirs))  # indices may have been cast to float
    # An index that is not known has no score: the reference's own stands in for it, and is then found to be another.
    asked = np.where(known, theirs, ours).astype(np.int64)
    expected, found = (np.take_along_axis(one.scores, index.astype(np.int64), one.axis) for index in (ours, asked))
    allowed = known & (np.abs(found - expected) <= one.tie)
    order = np.sort(asked, axis=one.axis)
    repeated = (np.diff(order, axis=one.axis) == 0).any(one.axis, keepdims=True)
    return np.where(allowed & ~repeated, asked, ours).astype(reference.dtype).reshape(reference.shape)


def _rows(one: Ranked, answer: Outputs) -> dict[str, NDArray[Any]]:
    """Each rank's entry is that of the candidate that the answer is nearest to, of those with a score as good and not yet taken."""
    scores = np.moveaxis(one.scores, one.axis, -1).reshape(-1)[one.candidates]
    ranks = int(np.prod(one.shape))
    distance = np.zeros((ranks, len(scores)))
    for name, axis in one.rows.items():
        mine = np.moveaxis(one.entries[name], axis, 0).reshape(len(scores), -1)
        theirs = np.moveaxis(cut(answer[name], one.spans[name]), axis, 0).reshape(ranks, -1)
        for rank in range(ranks):
            distance[rank] = np.maximum(distance[rank], _apart(theirs[rank], mine))
    distance[np.abs(scores[:ranks, None] - scores[None, :]) > one.tie] = np.inf
    taken: list[int] = []
    for rank in range(ranks):
        best = int(np.argmin(distance[rank]))
        taken.append(best if np.isfinite(distance[rank, best]) else rank)
        distance[:, taken[-1]] = np.inf
    return {name: np.take(one.entries[name], taken, axis=axis) for name, axis in one.rows.items()}


def _apart(row: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """How far a row is from each of others: the largest difference over the largest value, or the share of whole numbers that differ."""
    if not np.issubdtype(others.dtype, np.floating):
        return (others != row).mean(1) if row.size else np.zeros(len(others))
    size = float(np.abs(others).max(initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):
        found = np.abs(others.astype(np.float64) - row).max(1, initial=0.0) / size
    return np.where(np.isnan(found), np.finfo(np.float64).max, found)

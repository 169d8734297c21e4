"""Ties may stand in either order; nothing else may, and an entry goes with its score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtvit_deploy.harness.ranking import Ranked, in_the_answers_order

Array = NDArray[Any]
SCORES = np.array([[0.9, 0.5, 0.5, 0.7, 0.5]])
"""Item 0 first, then 3, and three that share the last place of three."""
BOXES = np.arange(20.0).reshape(1, 5, 4)
TOP = np.array([[0, 3, 1]])


def ranked(tie: float = 1e-6, **more: Any) -> Ranked:
    candidates = np.array([0, 3, 1, 2, 4])
    values: dict[str, Any] = {
        "scores": SCORES, "axis": 1, "shape": (1, 3), "indices": TOP, "tie": tie, "direct": (), "rows": {"boxes": 1},
        "candidates": candidates, "entries": {"boxes": BOXES[:, candidates]},
    }  # fmt: skip
    values |= more
    return Ranked(**values, spans=dict.fromkeys(values["rows"]))


def moved(answer: list[int], one: Ranked | None = None) -> Array:
    """The reference's boxes beside an answer with the boxes of those items."""
    outputs = {"boxes": BOXES[:, TOP[0]]}
    return in_the_answers_order(outputs, {"boxes": BOXES[:, answer]}, [one or ranked()])["boxes"]


def indices(answer: list[int], **more: Any) -> list[int]:
    one = ranked(direct=("order",), rows={}, candidates=np.array([], np.int64), entries={}, **more)
    found: list[int] = in_the_answers_order({"order": TOP}, {"order": np.array([answer])}, [one])["order"][0].tolist()
    return found


class TestRows:
    def test_whichever_of_equal_scores_was_cut_off_is_compared_with_itself(self) -> None:
        for last in (1, 2, 4):
            assert np.array_equal(moved([0, 3, last]), BOXES[:, [0, 3, last]])

    def test_boxes_that_stand_beside_other_scores_are_compared_with_what_belongs_there(self) -> None:
        assert np.array_equal(moved([3, 0, 1]), BOXES[:, TOP[0]])

    def test_a_box_that_none_of_the_equal_ones_has_is_compared_with_the_nearest_and_found_to_be_off(self) -> None:
        answer = BOXES[:, [0, 3, 4]] + [[[0], [0], [0.25]]]
        found = in_the_answers_order({"boxes": BOXES[:, TOP[0]]}, {"boxes": answer}, [ranked()])["boxes"]
        assert np.abs(answer - found).max() == 0.25

    def test_one_item_cannot_stand_in_for_two(self) -> None:
        one = ranked(scores=np.full((1, 5), 0.5))
        assert not np.array_equal(moved([2, 2, 2], one), BOXES[:, [2, 2, 2]])

    def test_scores_that_rounding_can_tell_apart_are_no_tie(self) -> None:
        near = ranked(scores=np.array([[0.9, 0.5, 0.5001, 0.7, 0.5]]))
        assert np.array_equal(moved([0, 3, 2], near), BOXES[:, TOP[0]])
        assert np.array_equal(moved([0, 3, 2], ranked(tie=1e-3, scores=near.scores)), BOXES[:, [0, 3, 2]])

    def test_labels_go_with_their_boxes(self) -> None:
        labels = np.array([[7, 1, 2, 3, 4]])
        both = ranked(rows={"boxes": 1, "labels": 1}, entries={"boxes": BOXES[:, [0, 3, 1, 2, 4]], "labels": labels[:, [0, 3, 1, 2, 4]]})
        reference = {"boxes": BOXES[:, TOP[0]], "labels": labels[:, TOP[0]]}
        mixed = {"boxes": BOXES[:, [0, 3, 2]], "labels": labels[:, [0, 3, 1]]}
        found = in_the_answers_order(reference, mixed, [both])
        assert not (np.array_equal(found["boxes"], mixed["boxes"]) and np.array_equal(found["labels"], mixed["labels"]))

    def test_an_answer_of_another_shape_is_left_for_the_comparison_to_refuse(self) -> None:
        outputs = {"boxes": BOXES[:, TOP[0]]}
        assert in_the_answers_order(outputs, {"boxes": BOXES}, [ranked()])["boxes"] is outputs["boxes"]

    def test_an_answer_that_is_not_finite_moves_nothing(self) -> None:
        answer = np.full((1, 3, 4), np.nan)
        found = in_the_answers_order({"boxes": BOXES[:, TOP[0]]}, {"boxes": answer}, [ranked()])["boxes"]
        assert np.array_equal(found[0, :2], BOXES[0, [0, 3]])


class TestIndices:
    def test_another_index_with_as_good_a_score_is_as_right(self) -> None:
        assert indices([0, 3, 2]) == [0, 3, 2]
        assert indices([0, 3, 4]) == [0, 3, 4]

    def test_one_with_another_score_is_not(self) -> None:
        assert indices([3, 0, 1]) == [0, 3, 1]

    def test_one_that_is_no_index_is_not(self) -> None:
        for answer in ([0, 3, 5], [0, 3, -1]):
            assert indices(answer) == [0, 3, 1]

    def test_one_index_twice_is_not_a_ranking(self) -> None:
        assert indices([2, 2, 2], scores=np.full((1, 5), 0.5)) == TOP[0].tolist()

    def test_a_map_of_the_best_class_is_judged_pixel_by_pixel(self) -> None:
        scores = np.array([[[1.0, 2.0], [1.0, 3.0], [0.0, 3.0]]])  # three classes, two pixels: a tie of 0 and 1, a tie of 1 and 2
        one = ranked(scores=scores, shape=(1, 2), indices=np.array([[0, 1]]), direct=("map",), rows={}, candidates=np.array([], int))
        for answer, expected in (([1, 2], [1, 2]), ([2, 0], [0, 1]), ([1, 0], [1, 1])):
            found = in_the_answers_order({"map": np.array([[0, 1]])}, {"map": np.array([answer])}, [one])["map"]
            assert found.tolist() == [expected]

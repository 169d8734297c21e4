"""Of boxes that overlap the surest stays, class by class; ties fall the same way everywhere. Equality with the operator: integration."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.nms import MOST_BOXES, detected, suppressed

BOXES = np.asarray([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 10]], np.float32)


def test_the_surest_of_what_overlaps_stays() -> None:
    assert suppressed(BOXES, np.asarray([0.8, 0.9, 0.1, 0.7])).tolist() == [1, 2]


def test_of_equally_sure_ones_the_first_stays() -> None:
    assert suppressed(BOXES, np.full(4, 0.5)).tolist() == [0, 2]


def test_an_overlap_of_just_the_limit_stays() -> None:
    boxes = np.asarray([[0, 0, 1, 2], [0, 0, 1, 1]], np.float32)  # IoU is 0.5 to the last bit
    assert suppressed(boxes, np.asarray([0.9, 0.8]), overlap=0.5).tolist() == [0, 1]
    assert suppressed(boxes, np.asarray([0.9, 0.8]), overlap=0.499).tolist() == [0]


def test_a_score_of_just_the_limit_goes() -> None:
    assert suppressed(BOXES, np.asarray([0.5, 0.4, 0.6, 0.1]), score=0.5).tolist() == [2]


def test_only_so_many_stay() -> None:
    assert suppressed(BOXES, np.asarray([0.8, 0.9, 0.1, 0.7]), most=1).tolist() == [1]
    assert suppressed(BOXES, np.ones(4), most=0).tolist() == []


def test_boxes_without_an_area_or_with_nan_touch_nothing() -> None:
    boxes = np.asarray([[0, 0, 0, 10], [0, 0, 0, 10], [np.nan, 0, 1, 1], [0, 0, 10, 10], [0, 0, np.inf, np.inf]], np.float32)
    assert suppressed(boxes, np.asarray([0.9, 0.8, 0.7, 0.6, 0.5])).tolist() == [0, 1, 2, 3, 4]


def test_a_score_that_is_no_number_is_no_detection() -> None:
    assert suppressed(BOXES[:3], np.asarray([np.nan, 0.9, 0.8])).tolist() == [1, 2]


def test_no_boxes_are_no_detections() -> None:
    assert suppressed(np.zeros((0, 4)), np.zeros(0)).tolist() == []
    answer, places = detected(np.zeros((0, 4)), np.zeros((0, 80)))
    assert (len(answer), len(places)) == (0, 0)


def test_classes_do_not_touch_each_other_and_the_surest_of_all_stay() -> None:
    scores = np.asarray([[0.8, 0.3], [0.9, 0.7], [0.1, 0.02], [0.7, 0.6]], np.float32)
    answer, places = detected(BOXES, scores, most=3)
    assert places.tolist() == [1, 1, 2]
    assert answer.labels.tolist() == [0, 1, 0]
    assert answer.scores.tolist() == scores[[1, 1, 2], [0, 1, 0]].tolist()
    assert (answer.boxes == BOXES[places]).all()
    assert len(detected(BOXES, scores, most=2)[0]) == 2


def test_each_class_may_have_boxes_of_its_own() -> None:
    both = np.stack([BOXES, BOXES + 100], 1)
    answer, places = detected(both, np.asarray([[0.9, 0.8], [0, 0], [0, 0.7], [0, 0]], np.float32))
    assert (answer.labels.tolist(), places.tolist()) == ([0, 1, 1], [0, 0, 2])
    assert (answer.boxes == both[[0, 0, 2], [0, 1, 1]]).all()


def test_equal_scores_of_several_classes_stand_in_the_order_of_the_classes() -> None:
    answer, places = detected(BOXES[[0, 2]], np.full((2, 3), 0.5), most=4)
    assert (answer.labels.tolist(), places.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])


@pytest.mark.parametrize("kind", ["apart", "alike", "random"])
def test_ten_thousand_boxes_are_done_in_five_seconds(kind: str) -> None:
    stream = np.random.RandomState(0)
    corners = {"apart": np.stack(np.divmod(np.arange(10_000), 100), 1) * 10.0, "alike": np.zeros((10_000, 2))}
    at = corners.get(kind, stream.rand(10_000, 2) * 1000)
    boxes = np.concatenate([at, at + 8], 1).astype(np.float32)
    before = time.process_time()
    stay = suppressed(boxes, stream.rand(10_000).astype(np.float32))
    assert time.process_time() - before < 5
    assert {"apart": len(stay) == 10_000, "alike": len(stay) == 1}.get(kind, 1 < len(stay) < 10_000)


@pytest.mark.parametrize(
    ("boxes", "scores", "options"),
    [
        (np.zeros((2, 4)), np.zeros(3), {}),
        (np.zeros((2, 3)), np.zeros(2), {}),
        (np.zeros((2, 4)), np.zeros((2, 1)), {}),
        (np.zeros((2, 4)), np.zeros(2), {"overlap": 1.5}),
        (np.zeros((2, 4)), np.zeros(2), {"overlap": np.nan}),
        (np.zeros((2, 4)), np.zeros(2), {"most": -1}),
        (np.zeros((MOST_BOXES + 1, 4)), np.zeros(MOST_BOXES + 1), {}),
    ],
)
def test_what_cannot_be_suppressed_is_refused(boxes: np.ndarray, scores: np.ndarray, options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        suppressed(boxes, scores, **options)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (4, 2, 1)])
def test_scores_of_other_boxes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        detected(BOXES, np.zeros(shape))

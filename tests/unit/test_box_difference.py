"""Two runtimes find the same where each box of one has its own box of the other, and it is said how far apart they are."""

from __future__ import annotations

import numpy as np
import pytest

from detected import Box, found
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.box_difference import BoxDifference, box_difference
from dtvit_deploy.harness.detections import Detections

A: Box = (10, 10, 50, 50)
B: Box = (100, 100, 160, 160)


def test_the_order_of_equally_sure_ones_says_nothing() -> None:
    difference = box_difference(found((A, 0.9), (B, 0.9)), found((B, 0.9), (A, 0.9)))
    assert difference == BoxDifference(first=2, second=2, matched=2)
    assert difference.equal(0)


def test_the_greatest_difference_is_told() -> None:
    difference = box_difference(found((A, 0.5), (B, 0.75)), found(((10, 10, 50, 50.5), 0.5), ((100.25, 100, 160, 160), 0.5)))
    assert (difference.largest, difference.largest_score) == (0.5, 0.25)
    assert difference.equal(0.5)
    assert not difference.equal(0.49)


@pytest.mark.parametrize(
    ("second", "matched"),
    [
        (found((A, 0.9, 1)), 0),
        (found(((12, 10, 50, 50), 0.9)), 0),
        (found(), 0),
        (found((A, 0.9), (A, 0.9)), 1),
        (found(((np.nan, 10, 50, 50), 0.9)), 0),
        (found(((np.inf, 10, 50, 50), 0.9)), 0),
    ],
    ids=["another class", "farther than a pixel", "nothing", "once more", "NaN", "infinity"],
)
def test_what_only_one_has_is_counted(second: Detections, matched: int) -> None:
    for difference in (box_difference(found((A, 0.9)), second), box_difference(second, found((A, 0.9)))):
        assert difference.matched == matched
        assert difference.alone == 1 + len(second) - 2 * matched
        assert not difference.equal(1e9)


def test_equal_boxes_are_told_apart_by_their_scores() -> None:
    assert box_difference(found((A, 0.9), (A, 0.1)), found((A, 0.1), (A, 0.9))).largest_score == 0


def test_a_box_that_is_not_finite_is_not_even_itself() -> None:
    both = found(((np.nan, 0, 1, 1), 0.9), (A, 0.5))
    assert box_difference(both, both).alone == 2


def test_a_score_that_is_no_number_is_a_difference() -> None:
    assert box_difference(found((A, 0.9)), found((A, np.nan))).largest_score > 1e300


def test_images_are_put_together() -> None:
    one = BoxDifference(first=3, second=2, matched=2, largest=0.5, largest_score=0.1)
    other = BoxDifference(first=1, second=1, matched=1, largest=0.1, largest_score=0.3)
    assert one.merged(other) == BoxDifference(images=2, first=4, second=3, matched=3, largest=0.5, largest_score=0.3)


def test_nothing_in_either_is_the_same() -> None:
    assert box_difference(Detections.none(), Detections.none()).equal(0)


@pytest.mark.parametrize("spread", [0, 1000])
def test_thousands_of_boxes_find_their_own(spread: int) -> None:
    stream = np.random.RandomState(0)
    boxes = np.tile(np.asarray([[5.0, 5, 9, 9]]), (3000, 1)) + spread * stream.rand(3000, 1)
    answer = Detections(boxes, stream.rand(3000), np.zeros(3000, np.int64))
    mixed = stream.permutation(3000)
    difference = box_difference(answer, answer.chosen(mixed))
    assert difference.equal(0)
    assert difference.largest_score == 0


@pytest.mark.parametrize("within", [0, -1, np.nan, np.inf])
def test_a_limit_that_is_none_is_refused(within: float) -> None:
    with pytest.raises(InputError, match="pixels are to count as the same"):
        box_difference(found(), found(), within)

"""Small masks are drawn in their boxes at the original size: a pixel is inside where the mask is at its centre."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.pasting import pasted


def naive(small: Any, box: Any, size: tuple[int, int]) -> Any:
    """Pixel by pixel: bilinear between the centres of the small mask's pixels, 0 around it."""
    x1, y1, x2, y2 = box
    found = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            at = (y + 0.5 - y1) / (y2 - y1) * small.shape[0] - 0.5, (x + 0.5 - x1) / (x2 - x1) * small.shape[1] - 0.5
            up, left = math.floor(at[0]), math.floor(at[1])
            for row, column in ((up, left), (up, left + 1), (up + 1, left), (up + 1, left + 1)):
                if 0 <= row < small.shape[0] and 0 <= column < small.shape[1]:
                    found[y, x] += small[row, column] * (1 - abs(at[0] - row)) * (1 - abs(at[1] - column))
    return found


BOXES = {
    "inside": (3.3, 2.1, 20.7, 17.9),
    "whole pixels": (4, 4, 18, 18),
    "over the edges": (-5.5, 10, 12, 50),
    "smaller than a pixel": (5.2, 5.2, 5.9, 5.9),
    "all of it": (0, 0, 30, 24),
    "larger than it": (-20, -20, 60, 60),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_mask_is_at_the_centres_of_its_pixels(name: str) -> None:
    small = np.random.RandomState(0).rand(7, 5)
    masks = pasted(small[None], np.asarray([BOXES[name]]), (24, 30), threshold=0.4)
    expected = naive(small, BOXES[name], (24, 30))
    sure = np.abs(expected - 0.4) > 1e-6
    assert (next(iter(masks)) == (expected >= 0.4))[sure].all()


def test_a_full_mask_fills_its_box() -> None:
    masks = pasted(np.ones((2, 28, 28), np.float32), np.asarray([[10, 5, 20, 15], [0, 0, 30, 24]]), (24, 30))
    assert masks.areas().tolist() == [100, 720]
    assert next(iter(masks))[5:15, 10:20].all()


@pytest.mark.parametrize(
    "box", [(40, 0, 50, 10), (0, -20, 10, -5), (5, 5, 5, 9), (9, 9, 2, 2), (math.nan, 0, 9, 9), (0, 0, math.inf, 9), (1e30, 0, 2e30, 9)]
)
def test_a_box_without_a_pixel_of_the_image_has_an_empty_mask(box: Any) -> None:
    assert pasted(np.ones((1, 28, 28)), np.asarray([box], np.float64), (24, 30)).areas().tolist() == [0]


def test_a_share_that_is_no_number_is_outside() -> None:
    assert pasted(np.full((1, 4, 4), np.nan), np.asarray([[0, 0, 8, 8]]), (8, 8)).areas().tolist() == [0]


def test_no_objects_have_no_masks() -> None:
    assert len(pasted(np.zeros((0, 28, 28)), np.zeros((0, 4)), (24, 30))) == 0


@pytest.mark.parametrize(("shares", "boxes"), [((2, 28, 28), (1, 4)), ((1, 28), (1, 4)), ((1, 0, 28), (1, 4)), ((1, 28, 28), (1, 5))])
def test_shapes_that_do_not_belong_together_are_refused(shares: Any, boxes: Any) -> None:
    with pytest.raises(InputError, match="masks of the shape"):
        pasted(np.zeros(shares), np.zeros(boxes), (24, 30))

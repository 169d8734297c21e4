"""A histogram of many tensors: its counts are those of the values, in whatever order and in however many pieces they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dtvit_deploy.calibration.histogram import BINS, SIDE, Histograms

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTHS = (3, 1, 2)
IMAGES = st.lists(
    arrays(
        np.float32,
        sum(LENGTHS),
        elements=st.one_of(
            st.floats(-8, 8, width=32),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-130]),
        ),
    ),
    min_size=1,
    max_size=6,
)


def parts(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return np.split(image, np.cumsum(LENGTHS)[:-1])


def of(images: Sequence[NDArray[np.float32]]) -> Histograms:
    histograms = Histograms(LENGTHS)
    for image in images:
        histograms.add(image, *(np.array([end(part) for part in parts(image)], np.float32) for end in (np.min, np.max)))
    return histograms


def same(one: Histograms, other: Histograms) -> bool:
    return all(np.array_equal(one.arrays()[name], other.arrays()[name]) for name in one.arrays())


@given(IMAGES)
def test_every_value_is_counted_in_the_bin_that_it_lies_in(images: list[NDArray[np.float32]]) -> None:
    histograms = of(images)
    for tensor, counts in enumerate(histograms.counts):
        values = np.concatenate([parts(image)[tensor] for image in images]).astype(np.float64)
        width = float(histograms.widths[tensor])
        bins = np.where(values < 0, SIDE - 1 - np.floor(-values / width), SIDE + np.floor(values / width)).astype(int)
        assert np.array_equal(counts, np.bincount(bins, minlength=BINS))


@given(IMAGES)
def test_the_extremes_are_exact_and_the_bins_no_wider_than_they_need_be(images: list[NDArray[np.float32]]) -> None:
    histograms = of(images)
    for tensor in range(len(LENGTHS)):
        values = np.concatenate([parts(image)[tensor] for image in images])
        assert histograms.low[tensor] == values.min()
        assert histograms.high[tensor] == values.max()
        reach, covered = float(np.abs(values).max()), float(2.0 ** histograms.exponents[tensor])
        assert reach < covered
        assert covered <= 2 * reach or reach < 2.0**-115
        assert histograms.widths[tensor] == covered / SIDE


@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(images: list[NDArray[np.float32]], random: Any) -> None:
    shuffled = list(images)
    random.shuffle(shuffled)
    assert same(of(images), of(shuffled))


@given(IMAGES, st.data())
def test_two_parts_merged_are_the_whole(images: list[NDArray[np.float32]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(images)))
    first, second = of(images[:cut]), of(images[cut:])
    first.merge(second)
    assert same(first, of(images))


@given(IMAGES, st.data())
def test_interrupted_and_restored_is_the_whole(images: list[NDArray[np.float32]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(images)))
    saved = {name: array.copy() for name, array in of(images[:cut]).arrays().items()}
    resumed = Histograms(LENGTHS)
    resumed.restore(saved, cut)
    for image in images[cut:]:
        resumed.add(image, *(np.array([end(part) for part in parts(image)], np.float32) for end in (np.min, np.max)))
    assert same(resumed, of(images))


def test_a_sample_of_the_values_keeps_the_extremes_of_all() -> None:
    histograms = Histograms([2])
    histograms.add(np.array([0.5, -0.25], np.float32), np.array([-3], np.float32), np.array([100], np.float32))
    assert (histograms.low[0], histograms.high[0], 2 ** histograms.exponents[0]) == (-3, 100, 128)
    assert histograms.counts.sum() == 2


def test_a_magnitude_that_is_a_power_of_two_lies_within_the_bins() -> None:
    values = np.array([4, -4], np.float32)
    histograms = Histograms([2])
    histograms.add(values, values[1:], values[:1])
    assert np.flatnonzero(histograms.counts[0]).tolist() == [SIDE - 1 - SIDE // 2, SIDE + SIDE // 2]


def test_what_was_counted_finely_is_not_lost_when_an_enormous_value_comes() -> None:
    small, huge = np.array([1e-20, -1e-20], np.float32), np.array([3e38, 0], np.float32)
    histograms = Histograms([2])
    histograms.add(small, small[1:], small[:1])
    histograms.add(huge, huge[1:], huge[:1])
    counts = histograms.counts[0]
    assert (counts[SIDE - 1], counts[SIDE], counts[-1200:].sum(), counts.sum()) == (1, 2, 1, 4)


def test_infinity_in_one_tensor_leaves_the_others_as_they_are() -> None:
    histograms = Histograms([2, 2])
    histograms.add(np.array([np.inf, 1, 0.5, 0.75], np.float32), np.array([1, 0.5], np.float32), np.array([np.inf, 0.75], np.float32))
    assert histograms.bounded.tolist() == [False, True]
    assert np.flatnonzero(histograms.counts[1]).tolist() == [SIDE + SIDE // 2, SIDE + SIDE * 3 // 4]


@pytest.mark.parametrize(
    ("name", "value"),
    [("counts", -1), ("counts", 7), ("exponents", 5), ("low", np.nan), ("low", -1e9), ("high", np.inf)],
    ids=lambda given: str(given),
)
def test_a_state_that_contradicts_itself_is_not_taken_over(name: str, value: float) -> None:
    image = np.arange(6, dtype=np.float32)
    saved = {name: array.copy() for name, array in of([image]).arrays().items()}
    saved[name].flat[0] = value
    fresh = Histograms(LENGTHS)
    with pytest.raises(ValueError, match="do not belong together"):
        fresh.restore(saved, 1)
    assert same(fresh, Histograms(LENGTHS))


def test_a_state_of_another_number_of_images_is_not_taken_over() -> None:
    saved = of([np.arange(6, dtype=np.float32)]).arrays()
    with pytest.raises(ValueError, match="do not belong together"):
        Histograms(LENGTHS).restore(saved, 2)

"""What a network is shown of an image lies where it is said to lie, and what it finds there comes back to the pixel it was found at."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dtvit_deploy.calibration.letterbox import Letterbox
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.placement import Placement

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
WAYS: list[dict[str, Any]] = [{"fit": "keep-ratio", "place": "top-left"}, {"fit": "keep-ratio", "place": "centre"}, {"fit": "stretch"}]
SIDE = st.integers(1, 4000)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8))


@given(height=SIDE, width=SIDE, size=st.tuples(st.integers(1, 1400), st.integers(1, 1400)), way=st.sampled_from(WAYS))
@settings(max_examples=300, deadline=None)
def test_corners_come_back(height: int, width: int, size: tuple[int, int], way: dict[str, Any]) -> None:
    placement = Letterbox(size=size, **way).placement(height, width)
    corners = np.asarray(
        [[0, 0, width, height], [0, 0, 1, 1], [width - 1, height - 1, width, height], [width / 3, 0.25, width, height / 7]]
    )
    there = placement.boxes_in(corners)
    (top, left), (rows, columns) = placement.offset, placement.resized
    assert there[0].tolist() == pytest.approx([left, top, left + columns, top + rows], abs=1e-9)
    assert np.abs(placement.boxes_out(there) - corners).max() < 1e-4
    # As float32, which is what runtimes put out, where a pixel of the input is not many of the original.
    if min(rows / height, columns / width) > 0.5:
        assert np.abs(placement.boxes_out(there.astype(np.float32)) - corners).max() < 1e-4 * max(1, max(size) / 512)


@given(height=SIDE, width=SIDE, size=st.tuples(st.integers(1, 1400), st.integers(1, 1400)), place=st.sampled_from(["top-left", "centre"]))
@settings(max_examples=300, deadline=None)
def test_the_ratio_is_kept_to_half_a_pixel_and_one_side_is_filled(height: int, width: int, size: tuple[int, int], place: Any) -> None:
    placement = Letterbox(size=size, place=place).placement(height, width)
    scale = min(size[0] / height, size[1] / width)
    for side, new in zip((height, width), placement.resized, strict=True):
        assert abs(new - side * scale) <= 0.5 + 1e-9 or new == 1
    assert placement.resized[0] == size[0] or placement.resized[1] == size[1]
    free = [whole - new for whole, new in zip(size, placement.resized, strict=True)]
    assert placement.offset == ((free[0] // 2, free[1] // 2) if place == "centre" else (0, 0))


def test_boxes_are_cut_at_the_edges_of_the_original() -> None:
    placement = Letterbox(size=(100, 100), place="centre").placement(50, 100)
    outside = np.asarray([[-5.0, 0, 120, 100]])
    assert placement.boxes_out(outside).tolist() == [[0, 0, 100, 50]]
    assert placement.boxes_out(outside, clip=False).tolist() == [[-5, -25, 120, 75]]
    assert placement.boxes_out(np.zeros((0, 4))).shape == (0, 4)


def test_each_axis_has_the_scale_of_its_whole_pixels() -> None:
    placement = Letterbox(size=(800, 1280)).placement(427, 640)
    assert placement.resized == (800, 1199)
    assert placement.boxes_out(np.asarray([[1199.0, 800, 1199, 800]])).tolist() == [[640, 427, 640, 427]]


@pytest.mark.parametrize("way", WAYS)
def test_the_image_lies_where_it_is_said_to(way: dict[str, Any]) -> None:
    image = picture(37, 23)
    array, placement = Letterbox(size=(64, 96), padding=None if way["fit"] == "stretch" else (0.25, 0.5, 0.75), **PLAIN, **way).apply(image)
    (top, left), (rows, columns) = placement.offset, placement.resized
    resized = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR), np.float32) / np.float32(255)
    assert array.shape == (3, 64, 96)
    assert array.dtype == np.float32
    assert (array[:, top : top + rows, left : left + columns] == resized.transpose(2, 0, 1)).all()
    outside = np.ones((64, 96), np.bool_)
    outside[top : top + rows, left : left + columns] = False
    assert (array[:, outside] == np.asarray([[0.25], [0.5], [0.75]], np.float32)).all()
    assert outside.any() == (way["fit"] != "stretch")


def test_padding_is_the_mean_and_becomes_zero() -> None:
    array, placement = Letterbox(size=(40, 40)).apply(picture(40, 10))
    assert placement.resized == (10, 40)
    assert not array[:, 10:].any()
    assert array[:, :10].any()


def test_the_order_of_channels_is_that_of_the_array() -> None:
    image = Image.new("RGB", (4, 2), (255, 0, 51))
    letterbox = Letterbox(size=(4, 4), channels="bgr", padding=(1, 0, 0.2), mean=(0.2, 0.0, 0.5), std=(1.0, 1.0, 0.5))
    array, _ = letterbox.apply(image)
    assert array[:, 0, 0].tolist() == pytest.approx([0, 0, 1])
    assert array[:, 3, 0].tolist() == pytest.approx([0, 0, 1])


def test_an_image_of_the_inputs_size_passes_exactly() -> None:
    image = picture(48, 32)
    for way in WAYS:
        array, placement = Letterbox(size=(32, 48), **PLAIN, **way).apply(image)
        assert (array == np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)).all()
        assert placement.boxes_out(np.asarray([[1.5, 2, 3, 4]])).tolist() == [[1.5, 2, 3, 4]]


@pytest.mark.parametrize(("width", "height"), [(1, 3000), (3000, 1), (1, 1)])
def test_strips_and_dots_have_a_pixel_at_least(width: int, height: int) -> None:
    array, placement = Letterbox(size=(32, 64)).apply(Image.new("RGB", (width, height)))
    assert array.shape == (3, 32, 64)
    assert min(placement.resized) >= 1


@pytest.mark.parametrize("way", WAYS)
def test_labels_come_back_to_the_pixels_that_they_are_of(way: dict[str, Any]) -> None:
    labels = np.random.RandomState(0).randint(0, 9, (20, 30)).astype(np.uint8)
    placement = Letterbox(size=(64, 96), **way).placement(20, 30)
    (top, left), (rows, columns) = placement.offset, placement.resized
    there = np.full((64, 96), 99, np.uint8)
    shown = Image.fromarray(labels).resize((columns, rows), Image.Resampling.NEAREST)
    there[top : top + rows, left : left + columns] = np.asarray(shown)
    assert (placement.labels_out(there) == labels).all()


def naive(scores: Any, placement: Placement) -> Any:
    """Scores at each pixel's centre, pixel by pixel."""
    count, rows, columns = scores.shape
    height, width = placement.original
    found = np.empty((count, height, width))
    for y in range(height):
        for x in range(width):
            at = []
            for place, axis, side in ((y, 0, rows), (x, 1, columns)):
                there = (place + 0.5) * placement.resized[axis] / placement.original[axis] + placement.offset[axis]
                at.append(min(max(there * side / placement.size[axis] - 0.5, 0), side - 1))
            (up, left), (down, right) = [math.floor(one) for one in at], [math.ceil(one) for one in at]
            v, u = at[0] - up, at[1] - left
            upper = scores[:, up, left] * (1 - u) + scores[:, up, right] * u
            lower = scores[:, down, left] * (1 - u) + scores[:, down, right] * u
            found[:, y, x] = upper * (1 - v) + lower * v
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [(2, 3), (1, 1), (64, 96), (5, 1)])
def test_classes_come_back_by_their_scores_between_pixels(way: dict[str, Any], side: tuple[int, int]) -> None:
    placement = Letterbox(size=(64, 96), **way).placement(41, 33)
    scores = np.random.RandomState(1).standard_normal((6, *side)).astype(np.float32)
    expected = naive(scores.astype(np.float64), placement)
    found = placement.classes_out(scores)
    assert found.shape == (41, 33)
    # Where two scores cross, float32 may see the other one ahead.
    chosen = np.take_along_axis(expected, found[None].astype(np.int64), 0)[0]
    assert (expected.max(0) - chosen).max() < 1e-5


def test_of_equal_scores_the_first_class_is_taken_and_nan_is_none() -> None:
    placement = Letterbox(size=(4, 4)).placement(4, 4)
    scores = np.zeros((3, 4, 4), np.float32)
    scores[2, 3] = 1
    scores[1, 0, 0] = np.nan
    found = placement.classes_out(scores)
    assert found[0, 0] == -1
    assert found[1:, 2:].tolist() == [[0, 0], [0, 0], [2, 2]]


def test_a_large_photograph_comes_back_in_strips() -> None:
    placement = Letterbox(size=(32, 32)).placement(3000, 2500)
    scores = np.zeros((2, 32, 32), np.float32)
    scores[1, :16] = scores[0, 16:] = 1
    found = placement.classes_out(scores)
    # Half of the input is half of the photograph.
    assert (found[:1499] == 1).all()
    assert (found[1501:] == 0).all()


@pytest.mark.parametrize(
    "scores",
    [np.zeros((4, 4), np.float32), np.zeros((0, 4, 4), np.float32), np.zeros((2, 0, 4), np.float32), np.zeros((2, 4, 4), np.int64)],
)
def test_what_are_no_scores_is_refused(scores: Any) -> None:
    with pytest.raises(InputError, match="scores of classes are"):
        Letterbox(size=(4, 4)).placement(4, 4).classes_out(scores)


@pytest.mark.parametrize(
    "options",
    [
        {"size": (0, 4)},
        {"size": (4, 9000)},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (math.nan, 1.0, 1.0)},
        {"mean": (math.inf, 0.0, 0.0)},
        {"padding": (114.0, 114.0, 114.0)},
        {"padding": (math.nan, 0.0, 0.0)},
        {"fit": "stretch", "place": "centre"},
        {"fit": "stretch", "padding": (0.0, 0.0, 0.0)},
    ],
)
def test_options_that_make_no_input_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="letterbox"):
        Letterbox(**{"size": (4, 4), **options})


def test_the_digest_says_that_it_is_the_same_preprocessing() -> None:
    one = Letterbox(size=(512, 512), mean=(0, 0, 0))
    assert one.digest == msgspec.json.decode(msgspec.json.encode(one), type=Letterbox).digest
    assert one.digest != Letterbox(size=(512, 512), mean=(0, 0, 0), place="centre").digest


@pytest.mark.parametrize(
    "changed", [{"original": (0, 4)}, {"resized": (5, 4)}, {"offset": (1, 0)}, {"offset": (-1, 0)}, {"resized": (0, 4)}]
)
def test_a_placement_outside_of_the_input_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="does not lie in an input"):
        Placement(**{"original": (4, 4), "resized": (4, 4), "size": (4, 4), **changed})

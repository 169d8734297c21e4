"""Preprocessing says exactly which pixels a network sees, and the digest says that it is the same preprocessing."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dtvit_deploy.calibration.preprocessing import LARGEST_SIDE, Preprocessing
from dtvit_deploy.errors import InputError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8))


@given(
    width=st.integers(1, 1200),
    height=st.integers(1, 1200),
    crop=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    more=st.integers(0, 40),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
@settings(max_examples=150, deadline=None)
def test_any_image_becomes_the_crop(width: int, height: int, crop: tuple[int, int], more: int, interpolation: str) -> None:
    preprocessing = msgspec.convert({"resize": min(crop) + more, "crop": crop, "interpolation": interpolation}, Preprocessing)
    try:
        array = preprocessing.apply(Image.new("RGB", (width, height), (10, 200, 90)))
    except InputError:
        assert max(width, height) / min(width, height) * max(*crop, preprocessing.resize) > LARGEST_SIDE
        return
    assert array.shape == (3, *crop)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    # The crop lies wholly inside the picture: had it crept over an edge, black would show.
    assert np.ptp(array, axis=(1, 2)).max() == 0


def test_pixels_that_need_no_resizing_pass_exactly() -> None:
    image = picture(6, 4)
    array = Preprocessing(resize=4, crop=(4, 6), **PLAIN).apply(image)
    assert (array == np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)).all()


def test_the_crop_is_the_centre() -> None:
    image = picture(9, 5)
    array = Preprocessing(resize=5, crop=(3, 3), **PLAIN).apply(image)
    assert (array == np.asarray(image, np.float32)[1:4, 3:6].transpose(2, 0, 1) / np.float32(255)).all()


def test_the_default_is_imagenet_evaluation() -> None:
    image = picture(400, 300)
    expected = np.asarray(image.resize((341, 256), Image.Resampling.BICUBIC), np.float64)[16:240, 58:282] / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(Preprocessing().apply(image) - expected.transpose(2, 0, 1)).max() < 1e-5


def test_normalisation_and_order_of_channels() -> None:
    image = Image.new("RGB", (2, 2), (255, 51, 0))
    values = {"resize": 2, "crop": (2, 2), "mean": (0.5, 0.0, 1.0), "std": (0.5, 0.1, 2.0)}
    assert Preprocessing(**values).apply(image)[:, 0, 0] == pytest.approx([1, 2, -0.5])
    # mean and std are in the order of the channels as the network has them.
    assert Preprocessing(**values, channels="bgr").apply(image)[:, 0, 0] == pytest.approx([-1, 2, 0])


def test_a_portrait_fills_a_landscape_crop() -> None:
    image = Image.new("RGB", (10, 40), "red")
    array = Preprocessing(resize=16, crop=(16, 64), **PLAIN).apply(image)
    assert array.shape == (3, 16, 64)
    assert (array[0] == 1).all()


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_strip_is_refused_before_it_becomes_gigabytes(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{size[0]}×{size[1]} pixels would be resized"):
        Preprocessing().apply(Image.new("RGB", size))


def test_enlarging_to_fill_the_crop_has_the_same_limit() -> None:
    # The shorter side is 1 pixel already; filling 8192 rows would make it 8192 × 65 million.
    with pytest.raises(InputError, match="would be resized"):
        Preprocessing(resize=1, crop=(8192, 1)).apply(Image.new("RGB", (8000, 1)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": (0, 5)}, "from 1 to"),
        ({"crop": (224, LARGEST_SIDE + 1)}, "from 1 to"),
        ({"resize": LARGEST_SIDE + 1}, "from 1 to"),
        ({"resize": 100}, "less than the crop"),
        ({"std": (1.0, 0.0, 1.0)}, "positive"),
        ({"std": (1.0, -1.0, 1.0)}, "positive"),
        ({"std": (1.0, math.nan, 1.0)}, "positive"),
        ({"std": (1.0, math.inf, 1.0)}, "positive"),
        ({"mean": (0.0, math.nan, 0.0)}, "finite"),
    ],
)
def test_bad_combinations_are_refused_when_built(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Preprocessing(**options)


@pytest.mark.parametrize("given_as", [{"resize": "big"}, {"interpolation": "cubic"}, {"mean": [0, 0]}, {"colour": "rgb"}])
def test_a_description_from_elsewhere_is_typed(given_as: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given_as, Preprocessing)


def test_another_size_keeps_the_share_of_the_image() -> None:
    assert Preprocessing.for_input(224, 224) == Preprocessing()
    assert Preprocessing.for_input(512, 512).resize == 585
    assert Preprocessing.for_input(800, 1280).apply(picture(640, 480)).shape == (3, 800, 1280)


def test_the_digest_changes_with_every_field_and_with_nothing_else() -> None:
    others = [
        {"resize": 257},
        {"crop": (224, 223)},
        {"interpolation": "bilinear"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"channels": "bgr"},
    ]
    assert {name for other in others for name in other} == set(Preprocessing.__struct_fields__)
    assert len({Preprocessing(**other).digest for other in [{}, *others]}) == len(others) + 1
    # Pinned: range tables and manifests of earlier versions hold it.
    assert Preprocessing().digest == "f8c5cdebe33ae164729c13f5462470a08689857b8f425695d6e3c937d28afb5a"
    assert Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)).digest == Preprocessing(**PLAIN).digest
    again = msgspec.json.decode(msgspec.json.encode(Preprocessing()), type=Preprocessing)
    assert again.digest == Preprocessing().digest

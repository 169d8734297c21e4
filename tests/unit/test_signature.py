from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.errors import InputError

SIGNATURE = Signature(
    (TensorSpec("image", (1, 3, 4, 4)), TensorSpec("pose", (2,), "int64"), TensorSpec("gain", ())),
    (TensorSpec("logits", (1, 5)),),
)
FITTING: dict[str, NDArray[Any]] = {
    "image": np.zeros((1, 3, 4, 4), np.float32),
    "pose": np.zeros(2, np.int64),
    "gain": np.zeros((), np.float32),
}

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
dtypes = st.sampled_from(["float32", "float64", "int64", "uint8", "bool"])


def test_feeds_that_fit_are_taken_in_any_order_and_from_any_view() -> None:
    SIGNATURE.check(FITTING)
    SIGNATURE.check(dict(reversed(FITTING.items())))
    SIGNATURE.check(FITTING | {"image": np.broadcast_to(np.float32(0), (1, 3, 4, 4)), "pose": np.arange(9)[8:4:-3]})


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"image": None}, "image: missing"),
        ({"depth": np.zeros(1)}, "depth: no such input"),
        ({"image": np.zeros((3, 4, 4), np.float32)}, "given image 3×4×4 float32, expected image 1×3×4×4 float32"),
        ({"image": np.zeros((1, 3, 4, 4))}, "given image 1×3×4×4 float64, expected image 1×3×4×4 float32"),
        ({"pose": np.zeros(2, np.int32)}, "given pose 2 int32, expected pose 2 int64"),
        ({"gain": np.zeros(1, np.float32)}, "given gain 1 float32, expected gain scalar float32"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(feeds: dict[str, NDArray[Any] | None], said: str) -> None:
    given = {name: array for name, array in (FITTING | feeds).items() if array is not None}
    with pytest.raises(InputError) as caught:
        SIGNATURE.check(given)
    assert str(caught.value) == f"the feeds do not fit the network: {said}"
    assert caught.value.remedy == "the inputs are image 1×3×4×4 float32, pose 2 int64, gain scalar float32"


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError, match=r"what: no such input; image: missing; given pose scalar int64, expected .*; gain: missing"):
        SIGNATURE.check({"pose": np.zeros((), np.int64), "what": np.zeros(1)})


def test_bytes_in_the_other_order_are_not_what_a_runtime_would_read() -> None:
    swapped = FITTING["image"].astype(np.dtype("float32").newbyteorder())
    with pytest.raises(InputError, match="byte order"):
        SIGNATURE.check(FITTING | {"image": swapped})


@given(shapes, dtypes, shapes, dtypes)
def test_an_array_fits_exactly_when_shape_and_type_are_equal(
    shape: tuple[int, ...], dtype: str, other: tuple[int, ...], other_dtype: str
) -> None:
    signature = Signature((TensorSpec("x", shape, dtype),), ())
    if (shape, dtype) == (other, other_dtype):
        signature.check({"x": np.zeros(other, other_dtype)})
    else:
        with pytest.raises(InputError):
            signature.check({"x": np.zeros(other, other_dtype)})


def test_a_network_without_inputs_takes_none() -> None:
    Signature((), ()).check({})
    with pytest.raises(InputError, match="x: no such input"):
        Signature((), ()).check({"x": np.zeros(1)})


def test_it_survives_its_manifest() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SIGNATURE), type=Signature) == SIGNATURE

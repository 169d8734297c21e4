"""Masks as run lengths are COCO's own, to the byte; a text that is damaged is refused before native code reads it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.harness.run_lengths import Masks, compressed, expanded, require_runs, runs_of

MASKS = {
    "nothing": np.zeros((3, 5), np.bool_),
    "everything": np.ones((3, 5), np.bool_),
    "the first pixel": np.eye(4, 6) * [1, 0, 0, 0, 0, 0] > 0,
    "the last pixel": np.arange(12).reshape(3, 4) == 11,
    "a checkerboard": np.indices((31, 17)).sum(0) % 2 > 0,
    "one pixel": np.ones((1, 1), np.bool_),
    "long runs": np.arange(3_000_000).reshape(1500, 2000) > 2_500_000,
    "noise": np.random.RandomState(0).rand(97, 211) > 0.5,
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_written_as_coco_writes_it_and_read_again(name: str) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle")
    mask = MASKS[name]
    masks = Masks.of(mask[None])
    assert masks.runs[0] == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert (next(iter(masks)) == mask).all()
    assert masks.areas().tolist() == [mask.sum()]


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_runs_come_back(runs: list[int]) -> None:
    assert expanded(compressed(np.asarray(runs))).tolist() == runs


DAMAGED = {
    "nothing": (b"", "cut off"),
    "an end that says there is more": (compressed(runs_of(MASKS["noise"])) + b"P", "cut off"),
    "a character of no such text": (b"12\x003", "characters"),
    "a byte beyond": (b"12\xff", "characters"),
    "a number without end": (b"P" * 50 + b"0", "no image needs"),
    "too few pixels": (compressed(np.asarray([3, 2])), "5 pixels"),
    "too many": (compressed(np.asarray([0, 10**8])), "100,000,000 pixels"),
    "a run below zero": (compressed(np.asarray([20, -5])), "impossible"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_runs_are_refused(name: str) -> None:
    text, told = DAMAGED[name]
    with pytest.raises(ValueError, match=told):
        require_runs(expanded(text), 3, 5)
    with pytest.raises(msgspec.ValidationError, match=told):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"height": 3, "width": 5, "runs": [text]}), type=Masks)


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_runs_of_that_image_or_refused(text: bytes) -> None:
    try:
        masks = Masks(3, 5, (text,))
    except ValueError:
        return
    assert next(iter(masks)).shape == (3, 5)


def test_masks_larger_than_any_image_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Masks(1 << 20, 1 << 20)

"""Tallies of consecutive samples are merged into the tally of all of them, wherever the samples are cut and wherever they are counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtvit_deploy.harness import accuracy
from dtvit_deploy.harness.accuracy import Flip, Kept, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 3
"""Flips that are kept here: some have to go in nearly every example."""


@st.composite
def samples(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """(N, K) logits of an artefact and of a reference with ties, NaN and infinities, and labels or none."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    values = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan])
    table = st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=count, max_size=count)
    labels = st.none() | st.lists(st.integers(0, classes - 1), min_size=count, max_size=count).map(np.array)
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    return np.array(draw(table), dtype), np.array(draw(table), dtype), draw(labels)


def tally(given: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None], part: slice, *, compared: bool = True) -> Tally:
    logits, reference, labels = (None if array is None else array[part] for array in given)
    assert logits is not None
    found = Tally()
    if len(logits):
        names = [f"{index}" for index in range(len(given[0]))][part]
        found.add(logits, labels, reference if compared else None, names)
    return found


def sent(found: Tally) -> Tally:
    """As another process hears of it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Tally)


@given(given=samples(), data=st.data(), compared=st.booleans())
@settings(deadline=None)
def test_any_cut_gives_the_figures_of_one_pass(given: Any, data: st.DataObject, compared: bool) -> None:
    count = len(given[0])
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))  # some of the parts are empty, the first and the last too
    with mock.patch.object(accuracy, "MOST_FLIPS", FEW):
        whole = tally(given, slice(0, count), compared=compared).result()
        merged = Tally()
        for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
            merged.merge(sent(tally(given, slice(start, stop), compared=compared)))
        assert msgspec.json.encode(sent(merged).result()) == msgspec.json.encode(whole)


@given(given=samples(), data=st.data())
@settings(deadline=None)
def test_neighbours_may_be_merged_in_any_order(given: Any, data: st.DataObject) -> None:
    """As a tree of workers does it: what is merged is merged again."""
    count = len(given[0])
    with mock.patch.object(accuracy, "MOST_FLIPS", FEW):
        parts = [tally(given, slice(index, index + 1)) for index in range(count)]
        while len(parts) > 1:
            first = data.draw(st.integers(0, len(parts) - 2))
            parts[first].merge(parts.pop(first + 1))
        assert parts[0].result() == tally(given, slice(0, count)).result()


def test_what_is_merged_stays_as_it_is() -> None:
    given = np.eye(4), -np.eye(4), np.arange(4)
    after = tally(given, slice(2, 4))
    before = msgspec.msgpack.encode(after)
    first = tally(given, slice(0, 2))
    first.merge(after)
    assert msgspec.msgpack.encode(after) == before
    assert [one.place for one in first.flips] != [one.place for one in after.flips]


def test_of_equal_margins_at_the_limit_the_earlier_stay_in_whichever_shard_they_are() -> None:
    given = np.tile([[0.0, 1.0]], (9, 1)), np.tile([[1.0, 0.0]], (9, 1)), None
    with mock.patch.object(accuracy, "MOST_FLIPS", FEW):
        found = tally(given, slice(0, 1))
        for start in (1, 5):
            found.merge(tally(given, slice(start, start + 4)))
        assert [flip.image for flip in found.result().flips] == ["0", "1", "2"]
        assert found.result().flipped == 9


def test_networks_with_different_numbers_of_classes_have_no_common_tally() -> None:
    first = tally((np.eye(3), np.eye(3), None), slice(0, 3))
    with pytest.raises(ValueError, match="3 classes and of 4"):
        first.merge(tally((np.eye(4), np.eye(4), None), slice(0, 4)))
    first.merge(Tally())  # an empty one says nothing of classes
    assert first.samples == 3


FLIP = Flip(image="a", label=None, reference=0, artifact=1, margin=1.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"right": 3},  # more than are among the first five
        {"among5": 5},  # more than there are
        {"agreed": 5},
        {"agreed": 1},  # and then another flip
        {"compared": False},
        {"flips": []},
        {"flips": [Kept(0, FLIP), Kept(0, FLIP)]},
        {"flips": [Kept(0, FLIP), Kept(4, FLIP)]},  # behind the last sample
        {"samples": -1},
    ],
    ids=str,
)
def test_a_tally_that_contradicts_itself_is_not_read(changed: dict[str, Any]) -> None:
    sound = Tally(samples=4, right=1, among5=2, agreed=2, classes=8, labelled=True, compared=True, flips=[Kept(0, FLIP), Kept(3, FLIP)])
    assert sent(sound) == sound
    fields = msgspec.to_builtins(sound) | msgspec.to_builtins(changed)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(fields), type=Tally)

"""Shares and their intervals, against the most naive way to count them."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy, Flip, wilson
from scored import score


@given(st.integers(0, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0, 10))
@example((4, 4), 1.959964)  # rounded, the formula says 0.9999999999999999
@example((0, 1), 1e-100)  # and here that the interval begins above the share
def test_the_interval_stays_in_range_and_holds_the_share(counts: tuple[int, int], z: float) -> None:
    successes, n = counts
    low, high = wilson(successes, n, z)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= successes / n <= high


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_symmetric_and_narrows(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    mirrored = wilson(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)
    wider = wilson(successes * 4, n * 4)
    assert wider[1] - wider[0] < high - low


def test_the_interval_solves_its_own_equation() -> None:
    # Wilson's bounds are where a share p lies z deviations from what was seen.
    for bound in wilson(485, 500):
        assert abs(0.97 - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 500))
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_have_no_interval(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="of"):
        wilson(successes, n)


def ranking(row: list[float]) -> list[int]:
    """Classes from the first to the last; sorting is stable, so equal logits stay in order of index."""
    return [] if any(math.isnan(value) for value in row) else sorted(range(len(row)), key=lambda i: -row[i])


@given(data=st.data(), samples=st.integers(1, 8), classes=st.integers(1, 9), dtype=st.sampled_from([np.float32, np.float16, np.float64]))
@settings(deadline=None)
def test_score_counts_as_one_would_by_hand(data: st.DataObject, samples: int, classes: int, dtype: Any) -> None:
    # Few different values, so that ties are the rule.
    values = st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0, math.inf, -math.inf, math.nan])
    table = st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=samples, max_size=samples)
    logits, reference = data.draw(table), data.draw(table)
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    names = [f"{i}.png" for i in range(samples)]
    found = score(np.array(logits, dtype), np.array(labels), np.array(reference, dtype), names)

    ours, theirs = [ranking(row) for row in logits], [ranking(row) for row in reference]
    right = sum(row[:1] == [label] for row, label in zip(ours, labels, strict=True))
    agree = [bool(mine) and mine[:1] == other[:1] for mine, other in zip(ours, theirs, strict=True)]
    assert found.samples == samples
    assert found.top1 == right / samples
    assert found.interval == wilson(right, samples)
    assert found.agreement == sum(agree) / samples
    assert found.agreement_interval == wilson(sum(agree), samples)
    if classes >= 6:
        assert found.top5 == sum(label in row[:5] for row, label in zip(ours, labels, strict=True)) / samples
        assert found.top1 <= found.top5
    else:
        assert found.top5 is None
    assert [flip.image for flip in found.flips] == [name for name, same in zip(names, agree, strict=True) if not same]
    for flip in found.flips:
        i = names.index(flip.image)
        assert (flip.label, flip.artifact, flip.reference) == (labels[i], *(row[0] if row else -1 for row in (ours[i], theirs[i])))
        assert 0 <= flip.margin < math.inf
    # A report can be written and read again.
    assert msgspec.json.decode(msgspec.json.encode(found), type=Accuracy) == found


def array(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_a_flip_tells_how_near_a_tie_the_reference_was() -> None:
    found = score(array([1, 5, 0], [3, 1, 2]), np.array([1, 0]), array([1, 5, 0], [2, 1, 2.5]), ["a.png", "b.png"])
    assert found.flips == (Flip(image="b.png", label=0, reference=2, artifact=0, margin=0.5),)
    assert (found.top1, found.agreement) == (1, 0.5)


def test_nan_is_wrong_and_agrees_with_nothing_even_with_nan() -> None:
    nan = array([math.nan] * 6)
    found = score(nan, np.array([0]), nan, ["a"])
    assert (found.top1, found.top5, found.agreement) == (0, 0, 0)
    assert found.flips == (Flip(image="a", label=0, reference=-1, artifact=-1, margin=0),)


def test_without_labels_there_is_agreement_only() -> None:
    found = score(np.zeros((3, 8)), None, np.zeros((3, 8)), "abc")
    assert (found.top1, found.top5, found.interval) == (None, None, None)
    assert found.agreement == 1
    flipped = score(array([0, 1]), None, array([1, 0]), ["a"]).flips
    assert flipped == (Flip(image="a", label=None, reference=0, artifact=1, margin=1),)


def test_without_a_reference_there_is_accuracy_only() -> None:
    found = score(np.eye(8), np.arange(8), None, "abcdefgh")
    assert (found.agreement, found.agreement_interval, found.flips) == (None, None, ())
    assert (found.top1, found.top5) == (1, 1)


def test_equal_logits_rank_by_index() -> None:
    found = score(np.zeros((7, 7)), np.arange(7), None, "abcdefg")
    assert found.top1 == pytest.approx(1 / 7)
    assert found.top5 == pytest.approx(5 / 7)


def test_a_name_that_is_not_utf8_can_be_reported() -> None:
    found = score(array([0, 1]), None, array([1, 0]), ["\udcff.png"])
    assert found.flips[0].image == "\\udcff.png"
    assert msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"logits": np.zeros(5)}, r"\(5,\)"),
        ({"logits": np.zeros((2, 3, 4))}, r"\(2, 3, 4\)"),
        ({"logits": np.zeros((0, 3)), "labels": np.zeros(0, int), "reference": None, "names": []}, r"\(0, 3\)"),
        ({"logits": np.zeros((2, 0))}, r"\(2, 0\)"),
        ({"logits": np.zeros((2, 3), complex)}, "complex128"),
        ({"labels": np.zeros(3, int)}, r"labels have the shape \(3,\)"),
        ({"labels": np.zeros((2, 1), int)}, r"labels have the shape \(2, 1\)"),
        ({"labels": np.zeros(2)}, "float64"),
        ({"labels": np.array([0, 3])}, "3 classes, 0 to 2; labels say 3"),
        ({"labels": np.array([-1, 0])}, "labels say -1"),
        ({"reference": np.zeros((2, 4))}, r"\(2, 4\)"),
        ({"reference": np.zeros((3, 3))}, r"\(3, 3\)"),
        ({"names": ["a"]}, "2 samples have 1 names"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        score(**{"logits": np.zeros((2, 3)), "labels": np.zeros(2, int), "reference": np.zeros((2, 3)), "names": ["a", "b"], **options})

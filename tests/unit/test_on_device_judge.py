"""The device's verdict, which a script without numpy gives: against the tolerance, the least SQNR and the recorded decision."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dtvit_deploy.export.tensorrt.on_device_build import CODES, judge, values

NAN, INF = math.nan, math.inf


def verdict(expected: Any, answers: Any, **limits: Any) -> tuple[bool, str]:
    output = {"name": "logits", "dtype": "float32", "tolerance": None, "least_sqnr": None, "top1": False} | limits
    return judge(output, expected, answers)


@pytest.mark.parametrize(
    ("answer", "passed"),
    [([1.0, 2.0], True), ([1.0, 2.25], True), ([1.0, 2.26], False), ([0.74, 2.0], False), ([1.0, -2.0], False)],
)
def test_the_greatest_difference_may_reach_the_tolerance_and_not_exceed_it(answer: list[float], passed: bool) -> None:
    assert verdict([[1.0, 2.0]], [answer], tolerance=0.25)[0] is passed


def test_one_bad_sample_among_good_ones_fails() -> None:
    passed, said = verdict([[1.0], [2.0], [3.0]], [[1.0], [2.5], [3.0]], tolerance=0.1)
    assert not passed
    assert "max |Δ| 0.5, 0.1 allowed" in said


@pytest.mark.parametrize(("expected", "answer"), [(1.0, NAN), (NAN, 1.0), (NAN, NAN), (1.0, INF), (INF, INF), (1.0, -INF)])
@pytest.mark.parametrize("limits", [{"tolerance": INF}, {"least_sqnr": -INF}])
def test_what_is_not_a_number_is_a_failure_whatever_is_allowed(expected: float, answer: float, limits: dict[str, float]) -> None:
    passed, said = verdict([[1.0, expected]], [[1.0, answer]], **limits)
    assert not passed
    assert "1 of 2 values are NaN or infinite" in said


def test_sqnr_is_over_all_samples_in_decibels() -> None:
    expected, answers = [[3.0, 4.0], [0.0, 0.0]], [[3.0, 4.5], [0.0, 0.0]]  # 25 over 0.25: 20 dB
    assert verdict(expected, answers, least_sqnr=20.0) == (True, "logits: SQNR 20 dB, at least 20 dB asked")
    assert not verdict(expected, answers, least_sqnr=20.1)[0]
    assert verdict(expected, expected, least_sqnr=99.0)[0]
    assert not verdict([[0.0]], [[1e-9]], least_sqnr=0.0)[0]  # nothing but noise
    assert verdict([[0.0]], [[0.0]], least_sqnr=99.0)[0]


def test_another_decision_fails_though_the_numbers_are_near() -> None:
    expected, answers = [[1.0, 1.2], [3.0, 1.0]], [[1.2, 1.0], [3.0, 1.0]]
    assert verdict(expected, answers, least_sqnr=10.0)[0]
    passed, said = verdict(expected, answers, least_sqnr=10.0, top1=True)
    assert not passed
    assert "top-1 1 of 2" in said
    assert verdict(expected, answers, tolerance=0.2, top1=True)[0]  # either may be off by 0.2: 1.0 and 1.2 are no decision
    assert not verdict([[1.0, 1.5]], [[1.3, 1.2]], tolerance=0.2, top1=True)[0]  # 0.3 off, and 0.5 apart


def test_of_whole_numbers_the_share_that_differs_counts_and_not_by_how_much() -> None:
    expected, answers = [[7, 7, 7, 7], [7, 7, 7, 7]], [[7, 7, 7, 7], [7, 7, 7, 900]]
    assert verdict(expected, answers, dtype="int64", tolerance=0.25)[0]
    assert not verdict(expected, answers, dtype="int64", tolerance=0.2)[0]
    assert verdict([[True, False]], [[True, False]], dtype="bool", tolerance=0.0)[0]


def test_bytes_of_every_type_are_read_as_numpy_wrote_them() -> None:
    np = pytest.importorskip("numpy")
    for dtype in CODES:
        array = np.array([0, 1, 1, 0]).astype(dtype)
        assert values(array.astype(array.dtype.newbyteorder("<")).tobytes(), dtype) == tuple(array.tolist())

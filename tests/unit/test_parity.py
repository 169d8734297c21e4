"""Numbers whose differences are known beforehand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.distance import noise_floor, sqnr
from dtvit_deploy.harness.parity import FACTOR, LEAST_SQNR, ROUNDOFF, Difference, compare_outputs, difference, stack

FP32, FP16 = Precision.FP32, Precision.FP16
Array = NDArray[Any]

figures = st.floats(-1e6, 1e6, allow_subnormal=False, width=32)
rows = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.lists(figures, min_size=3, max_size=3), min_size=count, max_size=count).map(
        lambda values: np.array(values, np.float32)
    )
)


def compared(reference: Any, answer: Any, floor: float = 0.0, precision: Precision = FP32) -> Difference:
    return difference("logits", "images", np.asarray(reference), np.asarray(answer), floor, precision)


class TestTolerance:
    def test_it_is_the_floor_times_the_factor_of_the_precision(self) -> None:
        one = np.ones((2, 3))
        assert compared(one, one, 1e-4).tolerance == FACTOR[FP32] * 1e-4
        assert compared(one, one, 1e-2, FP16).tolerance == FACTOR[FP16] * 1e-2

    def test_but_never_less_than_what_rounding_the_result_takes(self) -> None:
        found = compared(np.full((2, 3), 100.0), np.full((2, 3), 100.0))
        assert found.tolerance == pytest.approx(FACTOR[FP32] * 100 * 2**-24)
        assert compared([[4.0]], [[4.0]], 0, FP16).tolerance == pytest.approx(FACTOR[FP16] * 4 * 2**-11)

    @pytest.mark.parametrize(("moved", "passed"), [(0.99, True), (1.01, False)])
    @pytest.mark.parametrize("precision", FACTOR)
    def test_just_within_passes_and_just_beyond_fails(self, moved: float, passed: bool, precision: Precision) -> None:
        one = np.full((2, 3), 5.0)
        other = one.copy()
        other[1, 2] -= moved * FACTOR[precision] * 0.1
        assert compared(one, other, 0.1, precision).passed is passed

    def test_an_offset_is_reported_with_its_place_and_what_was_allowed(self) -> None:
        one = np.full((4, 1, 6), 1.0, np.float32)
        other = one.copy()
        other[2, 0, 5] += 0.25
        found = compared(one, other, 1e-6)
        assert not found.passed
        assert found.at == (2, 0, 5)
        assert found.reason == "max |Δ| 0.25 at [2, 0, 5] exceeds the tolerance 8e-06 (8 × floor 1e-06)"
        assert (found.max_abs, found.max_rel, found.mean_abs) == (0.25, 0.25, 0.25 / 24)

    def test_where_rounding_sets_the_limit_the_reason_says_so(self) -> None:
        assert compared([[2.0]], [[3.0]], 1e-12).reason.endswith("exceeds the tolerance 9.54e-07 (8 × the last place of 2)")

    @pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
    def test_whole_numbers_must_be_equal(self, dtype: str) -> None:
        one = np.array([[1, 0, 1]], dtype)
        assert compared(one, one).passed
        assert compared(one, np.array([[1, 1, 1]], dtype)).at == (0, 1)
        assert not compared(one, np.array([[1, 1, 1]], dtype)).passed

    def test_the_next_index_is_as_wrong_as_any_other(self) -> None:
        found = compared(np.array([[999]]), np.array([[998]]), precision=FP16)
        assert (found.passed, found.max_abs, found.tolerance) == (False, 1.0, 0.0)
        assert not compared(np.array([[2**53]]), np.array([[2**53 + 1]])).passed

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (np.array([[2**53]]), np.array([[2**53 + 1]])),
            (np.array([[2**63 - 1]]), np.array([[-(2**63)]])),
            (np.array([[2**64 - 1]], np.uint64), np.array([[2**64 - 2]], np.uint64)),
            (np.array([[True]]), np.array([[False]])),
        ],
        ids=["beyond what a float64 holds", "further apart than an int64 holds", "beyond an int64", "bool"],
    )
    def test_at_the_edges_of_the_types_the_next_is_another_and_the_same_is_the_same(self, one: Array, other: Array) -> None:
        assert compared(one, one.copy()).passed
        assert not compared(one, other).passed
        assert noise_floor([(one, other)]) == 1

    @pytest.mark.parametrize("precision", Precision)
    def test_an_index_that_the_precision_itself_changes_is_not_excused_by_it(self, precision: Precision) -> None:
        floor = noise_floor([(np.array([7]), np.array([7])), (np.array([7]), np.array([8]))])
        for answer in ([[7], [998]], [[7], [8]]):
            found = compared(np.array([[7], [8]]), np.array(answer), floor, precision)
            assert not found.passed
            assert found.reason == f"{precision} cannot carry this output: evaluated in it, 100% of the int64 values change"

    def test_a_mask_may_differ_where_the_precision_itself_moves_it(self) -> None:
        mask = np.zeros((1, 100), np.int64)
        moved = mask.copy()
        moved[0, :3] = 1
        floor = noise_floor([(mask[0], np.eye(1, 100, dtype=np.int64)[0])])
        assert floor == 0.01
        assert compared(mask, moved, floor, FP16).passed
        assert not compared(mask, moved).passed
        assert not compared(mask, 1 - mask, floor, FP16).passed


class TestInt8:
    """It has no noise floor, and so no tolerance: its answers are held to a least SQNR, and the report says which."""

    ONE = np.full((2, 50), 5.0)

    def noisy(self, decibel: float, feeds: str = "images") -> Difference:
        noise = 5.0 * 10 ** (-decibel / 20)
        return difference("mask", feeds, self.ONE, self.ONE + noise, 1e-6, Precision.INT8)

    def test_noise_within_the_limit_passes_whatever_the_floor_of_fp32(self) -> None:
        found = self.noisy(LEAST_SQNR + 0.1)
        assert found.passed
        assert (found.tolerance, found.floor, found.least_sqnr) == (None, None, LEAST_SQNR)
        assert found.reached == "SQNR 10.1 dB, at least 10 dB asked"

    def test_noise_beyond_it_fails_with_both_figures(self) -> None:
        found = self.noisy(LEAST_SQNR - 0.1)
        assert not found.passed
        assert found.reason == "SQNR 9.9 dB is less than the 10 dB that what is quantised is held to"

    def test_far_from_the_calibrated_ranges_it_may_clip_but_not_answer_something_else(self) -> None:
        assert self.noisy(5, "saturated").passed
        assert not self.noisy(-0.1, "saturated").passed

    def test_what_is_not_finite_fails(self) -> None:
        other = self.ONE.copy()
        other[1, 7] = math.nan
        found = difference("mask", "zeros", self.ONE, other, 0.0, Precision.INT8)
        assert found.reason == "1 of 100 values are NaN or infinite"

    def test_no_flip_is_excused_as_a_near_tie(self) -> None:
        found = compared([[2.0, 1.999, 0.0]], [[1.999, 2.0, 0.0]], 0, Precision.INT8)
        assert (found.agreement, found.decided_agreement) == (0.0, 0.0)


class TestPlantedErrors:
    """What planted rounding errors move an answer by is a lower bound of the floor, and never a wide tolerance."""

    ONE = np.full((2, 3), 5.0)

    def held(self, off: float, planted: float, floor: float = 1e-9, largest: float = 0.0) -> Difference:
        return difference("logits", "zeros", self.ONE, self.ONE + off, floor, FP32, planted=planted, largest=largest)

    def test_where_the_measured_floor_is_luck_they_are_the_floor(self) -> None:
        assert self.held(7e-4, 1e-4).passed
        found = self.held(9e-4, 1e-4)
        assert not found.passed
        assert found.floor == 1e-4
        assert found.reason.endswith("(8 × floor 0.0001, by planted rounding errors)")

    def test_where_more_was_measured_they_change_nothing(self) -> None:
        assert self.held(0, 1e-4, floor=1e-3).tolerance == FACTOR[FP32] * 1e-3

    def test_they_allow_a_tenth_of_the_largest_answer_at_most(self) -> None:
        assert self.held(0, 100.0).tolerance == pytest.approx(0.5)
        assert self.held(0, 100.0, largest=20.0).tolerance == pytest.approx(2)
        assert self.held(0, math.inf).tolerance == pytest.approx(FACTOR[FP32] * 5 * ROUNDOFF[FP32])

    def test_an_answer_of_nothing_is_judged_beside_the_others(self) -> None:
        zero = np.zeros((1, 3))
        for feeds, passed in (("zeros", True), ("images", False)):
            found = difference("logits", feeds, zero, zero, 1e-3, FP32, largest=5.0)
            assert found.passed is passed

    def test_they_are_no_matter_of_int8(self) -> None:
        assert difference("logits", "images", self.ONE, self.ONE, 0.0, Precision.INT8, planted=1.0).tolerance is None


class TestToleranceThatIsAsked:
    @pytest.mark.parametrize("precision", Precision)
    def test_it_takes_the_place_of_the_measured_one_in_every_precision(self, precision: Precision) -> None:
        one = np.full((2, 3), 5.0)
        for off, passed in ((0.49, True), (0.51, False)):
            assert difference("boxes", "images", one, one + off, 0.0, precision, asked=0.5).passed is passed

    def test_it_is_the_share_of_whole_numbers_that_may_differ(self) -> None:
        one, other = np.arange(10)[None], np.array([[0, 1, 2, 3, 4, 5, 6, 7, 9, 8]])
        for share, passed in ((0.2, True), (0.1, False)):
            assert difference("order", "images", one, other, 0.0, FP32, asked=share).passed is passed

    def test_a_wide_one_makes_no_near_ties(self) -> None:
        found = difference("logits", "images", np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]), 0.0, FP32, asked=9.0)
        assert (found.passed, found.decided_agreement) == (True, 0.0)

    def test_what_is_not_finite_fails_whatever_is_allowed(self) -> None:
        assert not difference("boxes", "images", np.ones((1, 3)), np.full((1, 3), math.inf), 0.0, FP32, asked=1e9).passed


class TestPrecisionThatCannotCarry:
    def test_a_floor_that_is_a_large_part_of_the_answer_is_no_tolerance(self) -> None:
        one = np.full((2, 3), 5.0)
        found = compared(one, one, 0.6, FP16)
        assert not found.passed
        assert found.reason == "fp16 cannot carry this network: its own noise floor 0.6 is more than 10% of the largest output, 5"
        assert compared(one, one, 0.4, FP16).passed

    def test_one_whose_ideal_is_not_finite_is_told_apart(self) -> None:
        found = compared(np.ones((2, 3)), np.ones((2, 3)), math.inf, FP16)
        assert found.reason == "fp16 cannot carry this network: evaluated in it, the program is no longer finite"

    def test_an_answer_of_nothing_has_no_room_for_noise(self) -> None:
        zero = np.zeros((2, 3), np.float32)
        found = compared(zero, zero, 1e-3)
        assert not found.passed
        assert found.reason.endswith("noise floor 0.001 is more than 10% of the largest output, 0")


class TestZeroReference:
    ZERO = np.zeros((2, 3), np.float32)

    def test_an_equal_answer_passes(self) -> None:
        found = compared(self.ZERO, self.ZERO)
        assert found.passed
        assert (found.max_abs, found.max_rel, found.cosine, found.sqnr, found.tolerance) == (0, 0, 1, math.inf, 0)

    def test_any_other_fails_without_dividing_by_zero(self) -> None:
        other = self.ZERO.copy()
        other[0, 1] = 1e-9
        found = compared(self.ZERO, other)
        assert not found.passed
        assert (found.max_rel, found.cosine, found.sqnr, found.at) == (math.inf, 0, -math.inf, (0, 1))


class TestNotFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_an_answer_fails_at_the_first_such_place(self, value: float) -> None:
        one = np.ones((3, 4), np.float32)
        other = one.copy()
        other[0, 0] = 1e30  # large, but a number
        other[1, 2] = other[2, 3] = value
        found = compared(one, other, 1.0)
        assert not found.passed
        assert found.reason == "2 of 12 values are NaN or infinite"
        assert (found.at, found.max_abs, found.sqnr) == ((1, 2), math.inf, -math.inf)
        assert found.cosine <= 0

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_reference_is_no_fault_of_the_answer(self, value: float) -> None:
        one = np.ones((2, 3), np.float32)
        one[1, 1] = value
        found = compared(one, one, noise_floor([(one, one)]))
        assert not found.passed
        assert found.reason == "the reference itself is NaN or infinite in 1 of 6 values"
        made = difference("logits", "zeros", one, one, 0.0, FP32)
        assert not made.passed
        assert made.reason == f"{found.reason}; where the network is not made for such a feed, --no-adversarial leaves it out"

    def test_it_is_no_agreement(self) -> None:
        one = np.eye(3)
        other = one.copy()
        other[1, 0] = math.nan
        assert compared(one, other).agreement == pytest.approx(2 / 3)
        assert compared(one, other).near_ties == 0


class TestAgreement:
    def test_a_flip_between_classes_that_are_equally_good_is_a_near_tie(self) -> None:
        one = np.array([[1.0, 2.0, 2.0 + 1e-7], [3.0, 0.0, 0.0]])
        other = np.array([[1.0, 2.0 + 1e-7, 2.0], [3.0, 0.0, 0.0]])
        found = compared(one, other, 1e-7)
        assert (found.agreement, found.near_ties, found.decided_agreement) == (0.5, 1, 1.0)
        assert found.passed

    def test_a_flip_to_a_worse_class_is_none(self) -> None:
        found = compared([[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]], 1e-7)
        assert (found.agreement, found.near_ties, found.decided_agreement) == (0, 0, 0)

    def test_a_tie_between_two_excuses_no_third(self) -> None:
        one = np.array([[1.0, 2.0, 2.0]])
        found = compared(one, [[9.0, 2.0, 2.0]], 1e-7)
        assert (found.agreement, found.near_ties) == (0, 0)

    def test_a_wider_floor_makes_more_near_ties(self) -> None:
        one, other = np.array([[1.0, 1.1]]), np.array([[1.1, 1.0]])
        assert compared(one, other, 0.05, FP16).near_ties == 1
        assert compared(one, other, 0.001, FP16).near_ties == 0

    @pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3), (2, 1, 1, 3)])
    def test_rows_of_scores_have_one(self, shape: tuple[int, ...]) -> None:
        one = np.arange(6.0).reshape(shape)
        assert compared(one, one).agreement == 1

    @pytest.mark.parametrize("shape", [(2,), (1,), (2, 1), (2, 3, 4), (2, 2, 1), (1, 2, 2)])
    def test_other_outputs_have_none(self, shape: tuple[int, ...]) -> None:
        one = np.arange(float(np.prod(shape))).reshape(shape)
        found = compared(one, one)
        assert (found.agreement, found.near_ties, found.decided_agreement) == (None, 0, None)

    @given(rows, rows)
    def test_near_ties_never_count_what_already_agrees(self, one: Array, other: Array) -> None:
        found = compared(one, np.resize(other, one.shape), 1.0)
        assert found.agreement is not None
        agreeing = sum(int(a.argmax() == b.argmax()) for a, b in zip(one, np.resize(other, one.shape), strict=True))
        assert found.agreement == agreeing / len(one)
        assert agreeing + found.near_ties <= len(one)


class TestFigures:
    """Against formulas written down a second time, term by term."""

    @given(rows, rows)
    def test_sqnr(self, one: Array, other: Array) -> None:
        other = np.resize(other, one.shape)
        signal = math.fsum(float(value) ** 2 for value in one.flat)
        noise = math.fsum((float(b) - float(a)) ** 2 for a, b in zip(one.flat, other.flat, strict=True))
        if noise == 0:
            assert sqnr(one, other) == math.inf
        elif signal == 0:
            assert sqnr(one, other) == -math.inf
        else:
            assert sqnr(one, other) == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)

    def test_a_tenth_of_the_signal_is_twenty_decibels(self) -> None:
        assert sqnr(np.full(7, 2.0), np.full(7, 2.2)) == pytest.approx(20)

    @given(rows, rows)
    def test_cosine_is_the_least_of_all_samples(self, one: Array, other: Array) -> None:
        other = np.resize(other, one.shape)

        def cosine(a: Array, b: Array) -> float:
            dot = math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))
            norms = math.sqrt(math.fsum(float(x) ** 2 for x in a)) * math.sqrt(math.fsum(float(y) ** 2 for y in b))
            return dot / norms if norms else float(np.array_equal(a, b))

        assert compared(one, other).cosine == pytest.approx(min(map(cosine, one, other)), abs=1e-9)

    @given(rows)
    def test_an_equal_answer_is_perfect(self, one: Array) -> None:
        found = compared(one, one.copy())
        assert found.passed
        assert (found.max_abs, found.mean_abs, found.max_rel, found.sqnr) == (0, 0, 0, math.inf)
        assert found.cosine == pytest.approx(1)

    @given(rows, rows)
    def test_the_place_is_where_the_largest_difference_is(self, one: Array, other: Array) -> None:
        other = np.resize(other, one.shape)
        found = compared(one, other)
        assert abs(float(other[found.at]) - float(one[found.at])) == found.max_abs
        assert found.max_abs == np.abs(other.astype(np.float64) - one).max()


class TestNoiseFloor:
    def test_it_is_the_largest_difference_of_all_pairs(self) -> None:
        pairs = [(np.zeros(3), np.array([0, 1e-3, 0])), (np.ones(2), np.array([1.0, 0.5])), (np.ones(2), np.ones(2))]
        assert noise_floor(pairs) == 0.5
        assert noise_floor([]) == 0

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_one_that_is_not_finite_makes_it_infinite(self, value: float) -> None:
        assert noise_floor([(np.ones(2), np.array([1, value]))]) == math.inf
        assert noise_floor([(np.array([1, value]), np.array([1, value]))]) == math.inf

    def test_small_types_do_not_wrap_around(self) -> None:
        assert noise_floor([(np.array([250], np.uint8), np.array([5], np.uint8))]) == 1
        assert noise_floor([(np.array([6e4], np.float16), np.array([-6e4], np.float16))]) == 120_000


def test_every_output_of_every_group_is_compared_with_its_own_floor() -> None:
    def run(offset: float) -> dict[str, Array]:
        return {"scores": np.array([[1.0, 2.0]]) + offset, "depth": np.array(3.0) - offset}

    reference = {"images": [run(0), run(1)], "zeros": [run(0)]}
    answers = {"images": [run(0), run(1.5)], "zeros": [run(0)]}
    floors = {"images": [(run(0), run(0.1))], "zeros": [(run(0), run(0))]}
    found = compare_outputs(reference, answers, floors, FP32)
    assert [(one.output, one.feeds, one.samples, one.max_abs) for one in found] == [
        ("scores", "images", 2, 0.5),
        ("depth", "images", 2, 0.5),
        ("scores", "zeros", 1, 0),
        ("depth", "zeros", 1, 0),
    ]
    assert [one.floor for one in found] == pytest.approx([0.1, 0.1, 0, 0])
    assert found[0].passed
    assert found[3].tolerance == FACTOR[FP32] * ROUNDOFF[FP32] * 3


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (1,), (5, 1)])
def test_an_answer_of_another_shape_is_refused_and_never_repeated_to_fit(shape: tuple[int, ...]) -> None:
    reference, answer = {"images": [{"logits": np.zeros((1, 5))}]}, {"images": [{"logits": np.zeros(shape)}]}
    with pytest.raises(InputError, match=r"logits is 1×.* in the artefact and 1×1×5 in the reference"):
        compare_outputs(reference, answer, {"images": []}, FP32)


def test_runs_are_stacked_by_output() -> None:
    stacked = stack([{"a": np.zeros((1, 2)), "b": np.array(1)}, {"b": np.array(2), "a": np.ones((1, 2))}])
    assert {name: array.shape for name, array in stacked.items()} == {"a": (2, 1, 2), "b": (2,)}
    assert stacked["b"].tolist() == [1, 2]

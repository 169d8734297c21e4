from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.harness.verdict import Verdict, at_least, at_most, enough, few_enough, holds, needed, verdict


def test_a_limit_itself_passes() -> None:
    assert at_least("fp16 agreement", 0.998, 0.998).passed
    assert at_most("fp32 max |Δ|", 1e-5, 1e-5).passed


def test_the_reason_has_both_figures_and_the_unit() -> None:
    assert at_most("p50", 41.25, 40, "ms").reason == "41.25 ms reached, at most 40 ms asked"
    assert at_least("agreement", 1, 0.998).reason == "1 reached, at least 0.998 asked"


def test_a_miss_too_small_to_print_is_printed_in_full() -> None:
    gate = at_least("agreement", 0.9979999999, 0.998)
    assert not gate.passed
    assert gate.reason == "0.9979999999 reached, at least 0.998 asked"


@given(st.floats(), st.floats())
def test_nan_never_passes_on_either_side(reached: float, limit: float) -> None:
    known = not (math.isnan(reached) or math.isnan(limit))
    assert at_least("it", reached, limit).passed == (known and reached >= limit)
    assert at_most("it", reached, limit).passed == (known and reached <= limit)


@pytest.mark.parametrize("gate", [at_least("it", None, 0.5), at_most("it", None, 0.5), holds("it", None, "valid")])
def test_what_was_not_measured_fails(gate: object) -> None:
    assert not gate.passed  # type: ignore[attr-defined]
    assert gate.reason.startswith("not measured")  # type: ignore[attr-defined]


def test_a_yes_or_no_says_what_was_found() -> None:
    assert holds("measurement", False, "drift: +30%").reason == "drift: +30%"
    assert holds("measurement", True, "VALID").passed


def test_all_gates_are_evaluated_past_the_first_that_fails() -> None:
    found = verdict([at_least("a", 0, 1), at_least("b", 1, 1), holds("c", False, "no")])
    assert not found.passed
    assert [gate.name for gate in found.gates] == ["a", "b", "c"]
    assert [gate.name for gate in found.failed] == ["a", "c"]
    assert found.reason == "2 of 3 gates failed: a, c"


def test_one_gate_that_passes_is_a_pass() -> None:
    found = verdict(iter([holds("a", True, "yes")]))
    assert (found.passed, found.reason, found.failed) == (True, "1 gate passed", ())


def test_no_gate_is_no_pass() -> None:
    assert verdict([]) == Verdict(False, (), "no gate was set")


def test_figures_from_numpy_reach_the_report_as_plain_numbers() -> None:
    found = verdict([at_most("max", np.float32(0.5), 1), holds("valid", np.bool_(True), "yes")])  # type: ignore[arg-type]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Verdict) == found


class TestSharesOfSamples:
    """Of few samples a share is a whole number of them, which the reason says."""

    @pytest.mark.parametrize(
        ("agreeing", "samples", "share", "passed", "reason"),
        [
            (63, 64, 0.99, False, "63 of 64 agree; 64 needed for 99 %"),
            (64, 64, 0.99, True, "64 of 64 agree; 64 needed for 99 %"),
            (99, 100, 0.99, True, "99 of 100 agree; 99 needed for 99 %"),
            (498, 500, 0.998, False, "498 of 500 agree; 499 needed for 99.8 %"),
            (1, 1, 1.0, True, "1 of 1 agrees; 1 needed for 100 %"),
            (0, 3, 0.0, True, "0 of 3 agree; 0 needed for 0 %"),
            (1_999, 2_000, 0.9995, True, "1,999 of 2,000 agree; 1,999 needed for 99.95 %"),
        ],
    )
    def test_enough_of_them(self, agreeing: int, samples: int, share: float, passed: bool, reason: str) -> None:
        gate = enough("it", agreeing, samples, share)
        assert (gate.passed, gate.reason) == (passed, reason)
        assert (gate.reached, gate.limit) == (agreeing / samples, share)

    @pytest.mark.parametrize(
        ("lost", "samples", "share", "passed", "reason"),
        [
            (1, 64, 0.004, False, "1 of 64 lost; 0 allowed for 0.4 %"),
            (2, 500, 0.004, True, "2 of 500 lost; 2 allowed for 0.4 %"),
            (3, 500, 0.004, False, "3 of 500 lost; 2 allowed for 0.4 %"),
            (-1, 10, 0.0, True, "0 of 10 lost; 0 allowed for 0 %"),
        ],
    )
    def test_not_too_many_lost(self, lost: int, samples: int, share: float, passed: bool, reason: str) -> None:
        gate = few_enough("it", lost, samples, share)
        assert (gate.passed, gate.reason) == (passed, reason)

    def test_what_was_not_counted_fails(self) -> None:
        assert not enough("it", None, 64, 0.0).passed
        assert not few_enough("it", None, 64, 1.0).passed

    @given(st.integers(1, 5000), st.integers(0, 1000))
    def test_what_is_needed_is_the_least_that_is_enough(self, samples: int, thousandths: int) -> None:
        least = needed(samples, thousandths / 1000)
        assert least * 1000 >= thousandths * samples
        assert least == 0 or (least - 1) * 1000 < thousandths * samples

"""What an artefact is held to follows from what was measured of it; what says nothing is no pass."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.parity import Difference, difference
from dtvit_deploy.harness.verdict import Gate
from dtvit_deploy.pipeline.gates import gates_of, measured_at_all, not_measured
from dtvit_deploy.recipe.judging import Gates, Limits

SCORES = np.eye(10)[np.arange(200) % 10] * 5
"""200 samples, each sure of one of ten classes."""


def compared(precision: Precision, feeds: str, flips: int = 0) -> Difference:
    answer = SCORES.copy()
    answer[:flips] = np.roll(answer[:flips], 1, axis=-1)
    return difference("logits", feeds, SCORES, answer, 10.0 if precision is not Precision.INT8 else 0.0, precision)


def gates(precision: Precision, *found: Difference) -> dict[str, Gate]:
    held = gates_of(Gates().of(precision), found, None, None, None, "net")
    return {gate.name.removeprefix("net: "): gate for gate in held}


def test_int8_says_on_real_input_what_it_was_judged_by() -> None:
    held = gates(Precision.INT8, compared(Precision.INT8, "images", flips=2))
    assert held["parity of 'logits' on images"].reason == "SQNR 17 dB, at least 10 dB asked"
    agreement = held["top-1 agreement of 'logits', near-ties apart"]
    assert (agreement.reached, agreement.limit, agreement.passed) == (0.99, 0.99, True)


def test_one_flip_more_than_a_hundredth_fails_int8() -> None:
    held = gates(Precision.INT8, compared(Precision.INT8, "images", flips=3))
    assert not held["top-1 agreement of 'logits', near-ties apart"].passed


def test_int8_without_real_input_is_not_proved() -> None:
    held = gates(Precision.INT8, compared(Precision.INT8, "noise"), compared(Precision.INT8, "zeros"))
    agreement = held["top-1 agreement on real input (give --data)"]
    assert not agreement.passed
    assert agreement.reason == "not measured; at least 0.99 asked"


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16])
def test_a_tolerance_says_enough_without_real_input(precision: Precision) -> None:
    assert list(gates(precision, compared(precision, "noise"))) == ["parity of 'logits' on noise"]


def measured(samples: int) -> Measurement:
    """Steady enough; with fewer than 64 samples INVALID all the same."""
    warmup = Warmup(runs=5, seconds=0.1, change=0.0, first_ms=10.0)
    return summarise([10.0] * samples, list(map(float, range(samples))), MeasureOptions(min_samples=1), warmup=warmup)


def test_a_limit_on_a_median_that_is_invalid_fails_and_says_why() -> None:
    limits = Limits(p50_ms=1000.0)
    (slow,) = gates_of(limits, (), None, None, measured(8), "net")
    assert not slow.passed
    assert slow.reason == "not measured: INVALID (too few samples); at most 1000 ms asked"
    (known,) = gates_of(limits, (), None, None, measured(64), "net")
    assert known.passed


class TestALatencyToBelieve:
    """What `profile` is held to, which takes nothing else."""

    def test_there_is_none_where_every_measurement_is_invalid(self) -> None:
        gate = measured_at_all({"one": measured(8), "two": measured(63)})
        assert not gate.passed
        assert gate.reason.startswith(
            "none of 2 measurements is VALID; one: INVALID (too few samples); two: INVALID (too few samples); measure again"
        )

    def test_one_is_enough_and_the_others_are_named(self) -> None:
        gate = measured_at_all({"one": measured(8), "two": measured(64)})
        assert gate.passed
        assert gate.reason == "1 of 2 measurements is VALID; one: INVALID (too few samples)"
        assert measured_at_all({"two": measured(64)}).reason == "1 of 1 measurement is VALID"


class TestCounts:
    """Where samples are few, a share says less than their number."""

    def test_agreement_on_the_samples_of_parity(self) -> None:
        one = SCORES[:64].copy()
        one[0] = np.roll(one[0], 1)
        held = gates(Precision.INT8, difference("logits", "images", SCORES[:64], one, 0.0, Precision.INT8))
        assert held["top-1 agreement of 'logits', near-ties apart"].reason == "63 of 64 agree; 64 needed for 99 %"

    def test_near_ties_are_counted_and_not_added_up_as_shares(self) -> None:
        """0.7 and 3 of 10 are less than 1 as doubles."""
        found = msgspec.structs.replace(compared(Precision.FP16, "images"), samples=10, agreement=0.7, near_ties=3)
        gate = gates(Precision.FP16, found)["top-1 agreement of 'logits', near-ties apart"]
        assert (gate.passed, gate.reached) == (True, 1.0)

    @pytest.mark.parametrize(("flipped", "passed"), [(0, True), (1, False)])
    def test_agreement_and_loss_over_all_images(self, flipped: int, passed: bool) -> None:
        limits = Limits(agreement=0.99, top1_drop=0.01)
        scored = Accuracy(samples=50, top1=(40 - flipped) / 50, agreement=(50 - flipped) / 50)
        agreement, loss = gates_of(limits, (), scored, Accuracy(samples=50, top1=40 / 50), None, "net")
        assert (agreement.passed, loss.passed) == (passed, passed)
        assert agreement.reason == f"{50 - flipped} of 50 agree; 50 needed for 99 %"
        assert loss.reason == f"{40 - flipped} right, where the reference has 40: {flipped} of 50 lost; 0 allowed for 1 %"

    def test_whole_numbers_of_int8_over_all_samples_and_else_of_the_worst(self) -> None:
        labels = np.zeros((64, 1), np.int64)
        wrong = labels.copy()
        wrong[3] = 1
        int8 = difference("label", "images", labels, wrong, 0.0, Precision.INT8)
        assert not int8.passed
        assert int8.reason == (
            "1 of 64 int64 values are others, and at most 0 may be: 1 %, what int8 may change; whole numbers have no last place;"
            " --tolerance label=SHARE sets another limit (in a recipe: parity.tolerance)"
        )
        asked = difference("label", "images", labels, wrong, 0.0, Precision.INT8, asked=0.5)
        assert not asked.passed
        assert "--tolerance" not in asked.reason  # who set a limit knows how
        fp16 = difference("ids", "images", labels.reshape(4, 16), wrong.reshape(4, 16), 0.0, Precision.FP16)
        assert fp16.reason.startswith("1 of 16 int64 values of a sample are others, and at most 0 may be: 0 %, 4 × floor 0")


def test_a_limit_that_nothing_was_held_to_is_told_in_the_direction_that_it_has() -> None:
    asked = Limits(agreement=0.9, cosine=0.8, max_abs=0.1)
    told = [gate.reason for gate in not_measured(asked, [], "net")]
    assert told == [f"not measured; {words} asked" for words in ("at least 0.9", "at most 0.1", "at least 0.8")]


def test_an_output_whose_name_does_not_say_that_it_is_class_scores_fails_with_the_way_out() -> None:
    flipped = msgspec.structs.replace(compared(Precision.INT8, "images", flips=3), output="output")
    reason = gates(Precision.INT8, flipped)["top-1 agreement of 'output', near-ties apart"].reason
    assert reason == (
        "197 of 200 agree; 198 needed for 99 %; 'output' is taken for class scores: where it is none, say which is by --class-scores NAME"
        " or none (in a recipe: parity.class_scores)"
    )
    assert "--class-scores" not in gates(Precision.INT8, compared(Precision.INT8, "images", flips=3)).popitem()[1].reason


def test_an_output_that_decides_nothing_has_no_gate_on_agreement() -> None:
    answer = np.roll(SCORES, 1, axis=-1)
    found = difference("embedding", "images", SCORES, SCORES + 1e-3 * answer, 0.0, Precision.INT8, decides=False)
    assert list(gates(Precision.INT8, found)) == ["parity of 'embedding' on images"]

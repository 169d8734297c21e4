"""What an artefact is held to follows from what was measured of it; what says nothing is no pass."""

from __future__ import annotations

import numpy as np
import pytest

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.parity import Difference, difference
from dtvit_deploy.harness.verdict import Gate
from dtvit_deploy.pipeline.gates import gates_of, measured_at_all
from dtvit_deploy.recipe.tables import Gates, Limits

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

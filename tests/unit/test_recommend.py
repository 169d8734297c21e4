"""INT8 is recommended where it was shown to be as right and faster, and float in every other case, with the reason."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.recommend import Candidate, recommend


def timed(median: float, *, seed: int = 0, samples: int = 80) -> Measurement:
    times = median * (1 + 0.01 * np.random.RandomState(seed).standard_normal(samples))
    stamps = np.linspace(0, 4, samples)
    warmup = Warmup(runs=5, seconds=0.1, change=0.0, first_ms=median)
    return summarise(list(map(float, times)), list(map(float, stamps)), MeasureOptions(min_samples=64), warmup=warmup)


def scored(top1: float | None) -> Accuracy:
    return Accuracy(samples=500, top1=top1)


FLOAT = scored(0.9)


def candidate(
    name: str,
    median: float | None = 10.0,
    top1: float | None = 0.9,
    *,
    sound: bool = True,
    runtime: str = "fake",
    products: int = 9,
    emulated: bool = False,
) -> Candidate:
    return Candidate(
        runtime=runtime,
        name=name,
        file=f"{name}.{runtime}",
        precision=Precision(name),
        products=products if name == "int8" else 0,
        sound=sound,
        accuracy=scored(top1),
        latency=None if median is None else timed(median, seed=len(name)),
        emulated=emulated,
    )


def advice(*candidates: Candidate, reference: Accuracy | None = FLOAT) -> tuple[str, bool, str]:
    """The file that is recommended, whether INT8's gate passed, and why."""
    (found,), (gate,) = recommend(candidates, reference)
    assert gate.reason in found.reason
    return found.file, gate.passed, found.reason


def test_faster_and_as_right_is_recommended() -> None:
    file, passed, reason = advice(candidate("fp32"), candidate("bf16", 8.0), candidate("int8", 6.0))
    assert (file, passed) == ("int8.fake", True)
    assert "INT8 keeps 100.00% of float's top-1 on 500 images and takes 0.7" in reason
    assert "of the time of bf16, the fastest float artefact" in reason


def test_slower_than_the_fastest_float_is_not_although_faster_than_another() -> None:
    file, passed, reason = advice(candidate("fp32"), candidate("bf16", 5.0), candidate("int8", 6.0))
    assert (file, passed) == ("bf16.fake", False)
    assert "it is slower" in reason


def test_a_difference_that_chance_explains_is_no_proof() -> None:
    file, passed, reason = advice(candidate("fp32", 10.0), candidate("int8", 10.0))
    assert (file, passed) == ("fp32.fake", False)
    assert "is not shown" in reason or "it is slower" in reason


def test_less_than_99_percent_of_top1_is_not_enough() -> None:
    file, passed, reason = advice(candidate("fp32"), candidate("int8", 2.0, top1=0.89))
    assert (file, passed) == ("fp32.fake", False)
    assert "INT8 keeps 98.89% of float's top-1 on 500 images, less than 99%" in reason
    assert "less than 99%: 445 right, where float has 450; 446 needed for 99 %" in reason


def test_what_was_not_measured_proves_nothing() -> None:
    assert advice(candidate("fp32"), candidate("int8", None))[:2] == ("", False)
    assert advice(candidate("fp32"), candidate("int8", 2.0, top1=None))[:2] == ("fp32.fake", False)
    assert advice(candidate("fp32", None), candidate("int8", 2.0))[:2] == ("", False)
    assert advice(candidate("fp32"), candidate("int8", 2.0), reference=None)[:2] == ("fp32.fake", False)


def test_an_artefact_that_failed_its_own_gates_is_not_recommended() -> None:
    assert advice(candidate("fp32"), candidate("int8", 2.0, sound=False))[:2] == ("fp32.fake", False)
    assert advice(candidate("fp32", sound=False), candidate("bf16", 20.0), candidate("int8", 30.0))[0] == "bf16.fake"
    file, passed, reason = advice(candidate("fp32", sound=False), candidate("int8", 2.0, sound=False))
    assert (file, passed) == ("", False)
    assert "no float artefact is sound" in reason


def test_runtimes_do_not_compete() -> None:
    here: list[Any] = [candidate("fp32"), candidate("int8", 6.0)]
    there = [candidate("fp32", 1.0, runtime="other"), candidate("int8", 2.0, runtime="other")]
    found, gates = recommend([*here, *there], FLOAT)
    assert [(one.runtime, one.file) for one in found] == [("fake", "int8.fake"), ("other", "fp32.other")]
    assert [gate.passed for gate in gates] == [True, False]


def test_without_int8_there_is_nothing_to_say() -> None:
    assert recommend([candidate("fp32"), candidate("bf16")], FLOAT) == ((), ())


def invalid(one: Candidate) -> Candidate:
    assert one.latency is not None
    drifted = msgspec.structs.replace(one.latency, status="INVALID", reasons=("drift: the median rose by 12%",))
    return msgspec.structs.replace(one, latency=drifted)


class TestInvalid:
    """A latency that is INVALID is none: what needs it to be chosen is not."""

    @pytest.mark.parametrize(
        ("candidates", "left"),
        [
            ([invalid(candidate("fp32")), invalid(candidate("int8", 6.0))], "fp32 or int8"),
            ([candidate("fp32"), invalid(candidate("int8", 6.0))], "fp32 or int8"),
            ([invalid(candidate("fp32")), candidate("int8", 6.0)], "fp32 or int8"),
            ([candidate("fp32"), invalid(candidate("bf16", 5.0)), candidate("int8", 6.0)], "fp32 or bf16 or int8"),
            ([candidate("fp32"), invalid(candidate("bf16", 5.0)), candidate("int8", 20.0)], "fp32 or bf16"),
            ([candidate("fp32"), invalid(candidate("bf16", 5.0)), candidate("int8", 6.0, top1=0.5)], "fp32 or bf16"),
        ],
        ids=["all", "int8", "the only float", "one float of two", "INT8 known to be slower", "INT8 out by its answers"],
    )
    def test_nothing_is_recommended_by_it(self, candidates: list[Candidate], left: str) -> None:
        (found,), (gate,) = recommend(candidates, FLOAT)
        assert (found.file, found.decided, found.ship, gate.passed) == ("", False, "not decided here", False)
        assert f"; {left}: which is faster is not known, since the latency of " in found.reason
        assert " is INVALID (drift); measure again" in found.reason

    def test_what_is_recommended_without_any_latency_does_not_need_it(self) -> None:
        file, passed, _ = advice(invalid(candidate("fp32")), candidate("int8", 6.0, sound=False))
        assert (file, passed) == ("fp32.fake", False)

    def test_that_of_what_failed_its_gates_does_not_matter(self) -> None:
        wrong = invalid(candidate("bf16", 5.0, sound=False))
        assert advice(candidate("fp32"), wrong, candidate("int8", 6.0))[:2] == ("int8.fake", True)


def test_a_float_artefact_that_might_be_faster_must_be_known_not_to_be() -> None:
    file, passed, reason = advice(candidate("fp32"), invalid(candidate("bf16", 5.0)), candidate("int8", 6.0))
    assert (file, passed) == ("", False)
    assert "the latency of bf16 is not VALID" in reason
    absent = [candidate(name, median, runtime="openvino") for name, median in (("fp32", 10.0), ("fp16", 9.0), ("int8", 6.0))]
    file, passed, reason = advice(*absent)
    assert (file, passed) == ("fp16.openvino", False)
    assert "bf16 was not built" in reason


def test_an_artefact_without_an_integer_in_it_is_not_recommended() -> None:
    file, passed, reason = advice(candidate("fp32"), candidate("int8", 6.0, products=0))
    assert (file, passed) == ("fp32.fake", False)
    assert "nothing in it is INT8" in reason


class TestEmulated:
    """Nothing was timed, so that INT8 cannot win its place; its answers can lose it."""

    @staticmethod
    def candidates(top1: float | None = 0.9, **int8: Any) -> list[Candidate]:
        floats = [candidate(name, None, emulated=True) for name in ("fp32", "fp16")]
        return [*floats, candidate("int8", None, top1, emulated=True, **int8)]

    def test_what_lacks_only_a_latency_fails_no_gate_and_is_to_be_measured_on_the_device(self) -> None:
        (found,), gates = recommend(self.candidates(), FLOAT)
        assert gates == ()
        assert (found.file, found.decided, found.ship) == ("", False, "not decided here")
        assert found.reason == (
            "INT8 keeps 100.00% of float's top-1 on 500 images; fp32 or fp16 or int8: which is faster must be measured on the device"
        )

    def test_what_answers_worse_loses_its_place_without_a_latency(self) -> None:
        for spoilt in (self.candidates(0.8), self.candidates(sound=False), self.candidates(products=0), self.candidates(None)):
            (found,), (gate,) = recommend(spoilt, FLOAT)
            assert not gate.passed
            assert gate.reason in found.reason
            assert found.reason.endswith("; fp32 or fp16: which is faster must be measured on the device")
            assert (found.file, found.decided) == ("", False)

    def test_the_only_float_that_is_left_is_recommended(self) -> None:
        one = [each for each in self.candidates(0.8) if each.name != "fp16"]
        (found,), _ = recommend(one, FLOAT)
        assert (found.file, found.decided, found.ship) == ("fp32.fake", True, "fp32.fake")
        (found,), _ = recommend(one[1:], FLOAT)
        assert (found.file, found.decided, found.ship) == ("", True, "nothing")

    def test_a_float_that_is_emulated_beside_an_int8_that_is_not_leaves_it_open_too(self) -> None:
        (found,), gates = recommend([candidate("fp16", None, emulated=True), candidate("int8", 2.0)], FLOAT)
        assert (gates, found.decided) == ((), False)

    def test_other_runtimes_are_judged_as_ever(self) -> None:
        timed_here = [candidate("fp32", runtime="other"), candidate("int8", 6.0, runtime="other")]
        found, gates = recommend([*self.candidates(), *timed_here], FLOAT)
        assert [one.ship for one in found] == ["not decided here", "int8.other"]
        assert [gate.passed for gate in gates] == [True]

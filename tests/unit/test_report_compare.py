"""Two reports compare on equal terms only, and each limit holds exactly where it is said to."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.verdict import at_most, holds, verdict
from dtvit_deploy.report.compare import Comparison, compare_reports
from dtvit_deploy.report.schema import Report, Subject

DEVICE = {"device": "local", "processor": "A CPU", "architecture": "x86_64", "cores": "8", "load": "0.10 over one minute"}
DATA = {"source": "images", "samples": "500", "digest": "d" * 64}


def latency(p50: float, samples: int = 64) -> Measurement:
    warmup = Warmup(runs=31, seconds=0.5, change=0.0, first_ms=p50)
    return summarise([p50] * samples, [0.0] * samples, MeasureOptions(), warmup=warmup)


def accuracy(right: int = 488, agree: int = 500, samples: int = 500) -> Accuracy:
    return Accuracy(samples=samples, top1=right / samples, agreement=agree / samples)


def difference(agree: int = 64, near_ties: int = 0, max_abs: float = 4e-6) -> Difference:
    return Difference(
        output="logits", feeds="images", samples=64, max_abs=max_abs, mean_abs=1e-7, max_rel=1e-7, cosine=1.0, sqnr=120.0, floor=1e-6,
        tolerance=8e-6, at=(0, 0), agreement=agree / 64, near_ties=near_ties, passed=True,
    )  # fmt: skip


def subject(name: str = "ONNX FP32", **more: object) -> Subject:
    values: dict[str, object] = {
        "name": name,
        "file": "net.onnx",
        "sha256": "b" * 64,
        "precision": "fp32",
        "rung": Rung.EXECUTED,
        "conditions": {"runtime": "onnxruntime 1.30", "provider": "CPUExecutionProvider", "threads": "1", "precision": "fp32"},
        "bytes": 10_000_000,
    }
    return Subject(**{**values, **more})  # type: ignore[arg-type]


def reference(p50: float, samples: int = 64, runtime: str = "torch 2.13", threads: str = "1") -> Subject:
    conditions = {"runtime": runtime, "threads": threads, "precision": "fp32"}
    return subject("torch FP32", file="", bytes=0, latency=latency(p50, samples), conditions=conditions)


def report(*subjects: Subject, device: dict[str, str] = DEVICE, data: dict[str, str] = DATA) -> Report:
    return Report(command="run", model="net", created="now", lineage=(), data=data, device=device, versions={}, subjects=subjects)


def compared(before: Subject, after: Subject, slower: float = 0.05) -> Comparison:
    return compare_reports(report(before), report(after), slower=slower)


def failed(found: Comparison) -> list[str]:
    return [gate.name for gate in found.verdict.failed]


class TestLatency:
    @pytest.mark.parametrize(("after", "fails"), [(10.0, []), (5.0, []), (10.5, []), (10.51, ["ONNX FP32: p50"])])
    def test_p50_may_grow_by_five_per_cent(self, after: float, fails: list[str]) -> None:
        found = compared(subject(latency=latency(10.0)), subject(latency=latency(after)))
        assert failed(found) == fails
        assert found.verdict.passed is not bool(fails)

    @pytest.mark.parametrize(("torch", "after", "fails"), [(26.0, 13.0, []), (20.0, 13.0, True), (26.0, 13.7, True), (15.0, 10.0, True)])
    def test_a_machine_that_became_slower_as_a_whole_is_no_regression(self, torch: float, after: float, fails: object) -> None:
        before = report(reference(20.0), subject(latency=latency(10.0)))
        found = compare_reports(before, report(reference(torch), subject(latency=latency(after))))
        assert failed(found) == (["ONNX FP32: p50 ÷ torch"] if fails else [])
        assert "p50 ÷ torch" in {row.figure for row in found.rows if row.subject == "ONNX FP32"}

    @pytest.mark.parametrize("change", ["another torch", "other threads", "INVALID", "gone"])
    def test_a_yardstick_that_changed_is_none(self, change: str) -> None:
        later = {
            "another torch": [reference(26.0, runtime="torch 3.0")],
            "other threads": [reference(26.0, threads="2")],
            "INVALID": [reference(26.0, samples=10)],
            "gone": [],
        }[change]
        before = report(reference(20.0), subject(latency=latency(10.0)))
        found = compare_reports(before, report(*later, subject(latency=latency(13.0))))
        assert "ONNX FP32: p50" in failed(found)

    def test_the_limit_can_be_another(self) -> None:
        before, after = subject(latency=latency(10.0)), subject(latency=latency(11.9))
        assert failed(compared(before, after, slower=0.2)) == []
        assert failed(compared(before, after, slower=0.1)) == ["ONNX FP32: p50"]

    @pytest.mark.parametrize("invalid", ["earlier", "later"])
    @pytest.mark.parametrize("p50", [5.0, 50.0])
    def test_an_invalid_measurement_is_neither_a_pass_nor_a_regression(self, invalid: str, p50: float) -> None:
        pair = {"earlier": latency(10.0), "later": latency(10.0)}
        pair[invalid] = latency(p50, samples=10)
        found = compared(subject(latency=pair["earlier"]), subject(latency=pair["later"]))
        assert [gate.name for gate in found.verdict.gates] == ["ONNX FP32: present", "ONNX FP32: size"]
        assert found.verdict.passed
        assert found.not_compared == (
            "speed: of 1 artefact none has a VALID latency in both reports, so that the verdict says nothing of it",
            f"ONNX FP32: p50: the {invalid} measurement is INVALID (too few samples)",
        )
        assert [row.cells()[-1] for row in found.rows if row.figure == "p50 ms"] == ["not compared"]

    def test_a_report_with_an_invalid_latency_is_no_regression_of_itself(self) -> None:
        shaky = subject(latency=latency(10.0, samples=10), accuracy=accuracy())
        found = compared(shaky, shaky)
        assert found.verdict.passed
        assert len(found.not_compared) == 2
        assert "the earlier" in found.not_compared[1]
        assert "the later" in found.not_compared[1]

    def test_reports_of_latency_alone_do_not_pass_where_none_can_be_compared(self) -> None:
        shaky, steady = subject(latency=latency(10.0, samples=10)), subject("ONNX FP16", latency=latency(10.0))
        alone, beside = (msgspec.structs.replace(report(*them), command="profile") for them in ((shaky,), (shaky, steady)))
        assert failed(compare_reports(alone, alone)) == ["a latency to compare"]
        assert failed(compare_reports(beside, beside)) == []

    def test_a_latency_that_is_gone_fails_even_when_it_was_invalid(self) -> None:
        found = compared(subject(latency=latency(10.0, samples=10)), subject())
        assert failed(found) == ["ONNX FP32: p50"]
        assert found.not_compared == ()

    def test_one_that_was_within_its_recipes_limit_and_is_invalid_now_fails_that_gate(self) -> None:
        within, unproved = verdict([at_most("p50", 9.0, 10.0)]), verdict([at_most("p50", None, 10.0)])
        before = subject(latency=latency(9.0), verdict=within)
        after = subject(latency=latency(9.0, samples=10), verdict=unproved)
        assert failed(compared(before, after)) == ["ONNX FP32: its own gates"]

    def test_valid_latencies_leave_nothing_out(self) -> None:
        assert compared(subject(latency=latency(10.0)), subject(latency=latency(10.0))).not_compared == ()

    @pytest.mark.parametrize(("key", "other"), [("threads", "4"), ("provider", "CUDAExecutionProvider"), ("runtime", "openvino 2026.1")])
    def test_other_conditions_are_not_comparable(self, key: str, other: str) -> None:
        before, after = subject(latency=latency(10.0)), subject(latency=latency(10.0))
        after = msgspec.structs.replace(after, conditions=after.conditions | {key: other})
        (gate,) = compared(before, after).verdict.failed
        assert gate.reason.startswith(f"not comparable: {key} was ")
        assert gate.reason.endswith(f"and is {other.split()[0]}")

    def test_another_version_of_the_same_runtime_is_what_one_compares_for(self) -> None:
        before, after = subject(latency=latency(10.0)), subject(latency=latency(10.0))
        assert compared(
            before, msgspec.structs.replace(after, conditions=after.conditions | {"runtime": "onnxruntime 1.31"})
        ).verdict.passed

    def test_another_precision_under_the_same_name_is_not_comparable(self) -> None:
        after = subject(latency=latency(10.0), precision="fp16")
        assert failed(compared(subject(latency=latency(10.0)), after)) == ["ONNX FP32: p50"]

    def test_another_device_is_not_comparable_and_another_load_is(self) -> None:
        one = subject(latency=latency(10.0))
        busier = compare_reports(report(one), report(one, device=DEVICE | {"load": "9.00 over one minute"}))
        elsewhere = compare_reports(report(one), report(one, device=DEVICE | {"processor": "B CPU"}))
        assert busier.verdict.passed
        assert [gate.reason for gate in elsewhere.verdict.failed] == ["not comparable: processor was A CPU and is B CPU"]

    def test_the_reference_is_shown_and_held_to_nothing(self) -> None:
        before, after = (subject("torch FP32", file="", bytes=0, latency=latency(p50)) for p50 in (10.0, 30.0))
        found = compared(before, after)
        assert [row.cells() for row in found.rows] == [("torch FP32", "p50 ms", "10.00", "30.00", "+200.0%")]
        assert found.verdict.passed


class TestAnswers:
    @pytest.mark.parametrize(("lost", "fails"), [(-3, []), (0, []), (2, []), (3, ["ONNX FP32: top-1"])])
    def test_of_500_samples_top1_may_lose_two_which_are_0_4_points(self, lost: int, fails: list[str]) -> None:
        assert failed(compared(subject(accuracy=accuracy(488)), subject(accuracy=accuracy(488 - lost)))) == fails

    @pytest.mark.parametrize(("lost", "fails"), [(1, []), (2, ["ONNX FP32: top-1"])])
    def test_of_a_few_samples_one_may_be_a_near_tie(self, lost: int, fails: list[str]) -> None:
        before, after = (subject(accuracy=accuracy(right, 20, samples=20)) for right in (19, 19 - lost))
        assert failed(compared(before, after)) == fails

    def test_agreement_may_not_fall_by_a_single_sample(self) -> None:
        assert failed(compared(subject(accuracy=accuracy(agree=499)), subject(accuracy=accuracy(agree=499)))) == []
        assert failed(compared(subject(accuracy=accuracy(agree=499)), subject(accuracy=accuracy(agree=498)))) == ["ONNX FP32: agreement"]

    def test_without_accuracy_the_agreement_of_parity_counts_near_ties_apart(self) -> None:
        before = subject(parity=(difference(),))
        assert failed(compared(before, subject(parity=(difference(63, near_ties=1),)))) == []
        assert failed(compared(before, subject(parity=(difference(63),)))) == ["ONNX FP32: agreement"]

    def test_other_images_are_not_comparable(self) -> None:
        one = subject(accuracy=accuracy())
        found = compare_reports(report(one), report(one, data=DATA | {"digest": "e" * 64}))
        assert failed(found) == ["ONNX FP32: top-1", "ONNX FP32: agreement"]
        assert all(gate.reason.startswith("not comparable: digest was ") for gate in found.verdict.failed)

    def test_another_number_of_samples_is_not_comparable(self) -> None:
        found = compared(subject(accuracy=accuracy()), subject(accuracy=accuracy(100, 100, samples=100)))
        assert {gate.reason for gate in found.verdict.failed} == {"not comparable: 500 samples before and 100 after"}

    @given(st.integers(1, 5000), st.data())
    def test_equal_counts_never_fail_whatever_their_shares_round_to(self, samples: int, data: st.DataObject) -> None:
        right = data.draw(st.integers(0, samples))
        one = subject(accuracy=accuracy(right, right, samples))
        assert compared(one, one).verdict.passed


class TestSizeAndGates:
    @pytest.mark.parametrize(("size", "fails"), [(1, []), (10_500_000, []), (10_500_001, ["ONNX FP32: size"])])
    def test_the_file_may_grow_by_five_per_cent(self, size: int, fails: list[str]) -> None:
        assert failed(compared(subject(), subject(bytes=size))) == fails

    def test_what_passed_its_gates_must_go_on_passing(self) -> None:
        good, bad = verdict([holds("parity", True, "")]), verdict([holds("parity", False, "beyond")])
        assert failed(compared(subject(verdict=good), subject(verdict=bad))) == ["ONNX FP32: its own gates"]
        assert failed(compared(subject(verdict=bad), subject(verdict=bad))) == []

    def test_what_was_measured_before_and_is_not_now_is_no_pass(self) -> None:
        full = subject(latency=latency(10.0), accuracy=accuracy(), parity=(difference(),), verdict=verdict([holds("parity", True, "")]))
        found = compared(full, subject())
        assert failed(found) == [f"ONNX FP32: {figure}" for figure in ("p50", "top-1", "agreement", "its own gates")]
        assert {gate.reason for gate in found.verdict.failed} == {"not measured"}

    def test_what_was_not_measured_before_is_held_to_nothing(self) -> None:
        found = compared(subject(), subject(latency=latency(10.0), accuracy=accuracy()))
        assert found.verdict.passed
        assert ("ONNX FP32", "p50 ms", "–", "10.00", "–") in [row.cells() for row in found.rows]


class TestSubjects:
    def test_a_subject_that_vanished_fails_and_a_new_one_does_not(self) -> None:
        both, one = report(subject(), subject("ONNX FP16")), report(subject())
        assert failed(compare_reports(both, one)) == ["ONNX FP16: present"]
        assert failed(compare_reports(one, both)) == []
        assert {row.subject for row in compare_reports(one, both).rows} == {"ONNX FP32", "ONNX FP16"}

    def test_nothing_in_common_is_an_error_that_names_both(self) -> None:
        with pytest.raises(InputError, match="ONNX FP32 before, TRT FP16 after"):
            compare_reports(report(subject()), report(subject("TRT FP16")))

    def test_two_artefacts_of_one_name_are_matched_by_file(self) -> None:
        small, large = subject(file="s.onnx", bytes=1_000), subject(file="l.onnx", bytes=9_000)
        assert compare_reports(report(small, large), report(large, small)).verdict.passed

    @pytest.mark.parametrize("slower", [-0.1, math.nan, math.inf])
    def test_a_limit_that_is_no_share_is_refused(self, slower: float) -> None:
        with pytest.raises(InputError, match="cannot be allowed to grow"):
            compared(subject(), subject(), slower=slower)

    def test_rows_read_as_a_table_and_as_json(self) -> None:
        before = subject(latency=latency(10.0), accuracy=accuracy(488), parity=(difference(max_abs=0.0),))
        after = subject(latency=latency(9.0), accuracy=accuracy(487), parity=(difference(max_abs=2e-6),), bytes=10_100_000)
        found = compared(before, after)
        assert [row.cells()[1:] for row in found.rows] == [
            ("p50 ms", "10.00", "9.00", "−10.0%"),
            ("top-1", "97.60%", "97.40%", "−0.20 points"),
            ("agreement", "100%", "100%", "same"),
            ("max |Δ|", "0", "2.00e-06", "changed"),
            ("size MB", "10.00", "10.10", "+1.0%"),
        ]
        assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found

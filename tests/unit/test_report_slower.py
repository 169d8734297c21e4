"""A regression is an interval beyond a declared band, between two that may be compared; everything else is a pass, undecided or refused."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import MeasureOptions, Warmup, summarise
from dtvit_deploy.report.compare import Comparison, compare_reports
from timed_reports import CONDITIONS, set_to, timed_report


def outcome(found: Comparison) -> Literal["slower", "undecided", "pass"]:
    if found.undecided:
        assert found.verdict.passed
        return "undecided"
    return "pass" if found.verdict.passed else "slower"


def test_a_machine_that_became_slower_as_a_whole_is_no_regression_and_three_per_cent_beside_it_is_found() -> None:
    held = 0
    for seed in range(10):
        assert outcome(compare_reports(timed_report(seed=seed), timed_report(machine=1.3, seed=50 + seed))) == "pass"
        found = compare_reports(timed_report(seed=seed), timed_report(1.03, 1.3, seed=50 + seed))
        assert outcome(found) == "slower"
        (gate,) = found.verdict.failed
        assert gate.name == "ONNX FP32: p50 ÷ torch"
        assert gate.reason.startswith("+")
        assert "all of it beyond the band of 2 %; 1 process before and one after say nothing of how far processes" in gate.reason
        assert gate.reason.endswith("`dtvit-deploy ab` settles that")
        (row,) = (row for row in found.rows if row.figure == "p50 ÷ torch")
        assert row.interval is not None
        assert 0.02 < row.interval[0] < row.interval[1] < 0.04
        held += row.interval[0] < 0.03 < row.interval[1]
    assert held >= 8  # 9.5 expected of a 95 % interval


def test_equal_artefacts_are_never_called_slower_and_a_faster_one_is_not() -> None:
    for seed in range(10):
        assert outcome(compare_reports(timed_report(seed=seed), timed_report(seed=90 + seed))) == "pass"
        assert outcome(compare_reports(timed_report(seed=seed), timed_report(0.9, seed=90 + seed))) == "pass"


def test_what_few_and_noisy_samples_cannot_tell_is_undecided_and_says_what_decides_it() -> None:
    found = compare_reports(timed_report(seed=1, count=64, noise=0.05), timed_report(1.03, seed=2, count=64, noise=0.05))
    assert outcome(found) == "undecided"
    assert "ONNX FP32: p50 ÷ torch" not in [gate.name for gate in found.verdict.gates]
    (told,) = found.undecided
    assert told.startswith("ONNX FP32: p50 ÷ torch: +")
    assert told.endswith("across the edge of the band of 2 %; more samples (--samples, --seconds) decide")


def test_a_growth_so_large_that_no_noise_explains_it_is_found_in_few_samples_too() -> None:
    assert outcome(compare_reports(timed_report(seed=1, count=64, noise=0.05), timed_report(1.2, seed=2, count=64, noise=0.05))) == "slower"


@pytest.mark.parametrize(("band", "expected"), [(0.01, "slower"), (0.05, "pass"), (0.0, "slower")])
def test_the_band_is_what_was_declared(band: float, expected: str) -> None:
    assert outcome(compare_reports(timed_report(seed=1), timed_report(1.03, seed=2), slower=band)) == expected


@pytest.mark.parametrize("band", [-0.1, float("nan"), float("inf")])
def test_what_is_no_band_is_refused(band: float) -> None:
    with pytest.raises(InputError, match="cannot be allowed to grow by"):
        compare_reports(timed_report(seed=1), timed_report(seed=2), slower=band)


def test_without_torch_the_band_is_wider_since_the_machine_moves_it_alone() -> None:
    assert outcome(compare_reports(timed_report(seed=1, torch=False), timed_report(1.03, seed=2, torch=False))) == "pass"
    found = compare_reports(timed_report(seed=1, torch=False), timed_report(1.10, seed=2, torch=False))
    assert [gate.name for gate in found.verdict.failed] == ["ONNX FP32: p50"]


def test_another_torch_is_no_yardstick_and_p50_is_compared_by_itself() -> None:
    after = timed_report(machine=1.3, seed=2)
    torch = msgspec.structs.replace(after.subjects[0], conditions=after.subjects[0].conditions | {"runtime": "torch 2.15"})
    found = compare_reports(timed_report(seed=1), msgspec.structs.replace(after, subjects=(torch, after.subjects[1])))
    assert [gate.name for gate in found.verdict.failed] == ["ONNX FP32: p50"]


@pytest.mark.parametrize("key", ["governor", "power mode", "processor", "cores"])
def test_another_state_of_the_machine_is_not_comparable(key: str) -> None:
    (gate,) = compare_reports(timed_report(seed=1, **{key: "one"}), timed_report(seed=2, **{key: "another"})).verdict.failed
    assert gate.reason == f"not comparable: {key} was one and is another"


@pytest.mark.parametrize("key", ["threads", "precision", "transfers", "launch", "host latency", "batch", "threads used"])
def test_other_terms_of_the_measurement_are_not_comparable(key: str) -> None:
    pair = []
    for seed, value in ((1, "one"), (2, "another")):
        found = timed_report(seed=seed)
        mine = msgspec.structs.replace(found.subjects[1], conditions=CONDITIONS | {key: value})
        pair.append(msgspec.structs.replace(found, subjects=(found.subjects[0], mine)))
    (gate,) = compare_reports(*pair).verdict.failed
    assert gate.reason.startswith(f"not comparable: {key} was ")


def test_a_median_under_a_load_that_lasts_is_not_comparable_with_one_of_seconds() -> None:
    pair = []
    for seconds in (0.0, 60.0):
        found = timed_report(seed=1)
        assert found.subjects[1].latency is not None
        times = [0.2 * index for index in range(300)]
        warmup = Warmup(runs=10, seconds=1.0, change=0.0, first_ms=10.0)
        lasting = summarise(found.subjects[1].latency.samples_ms, times, MeasureOptions(sustained_seconds=seconds), warmup=warmup)
        mine = msgspec.structs.replace(found.subjects[1], latency=lasting)
        pair.append(msgspec.structs.replace(found, subjects=(found.subjects[0], mine)))
    (gate,) = compare_reports(*pair).verdict.failed
    assert gate.reason == "not comparable: sustained load was not recorded and is 60 s"


def test_a_state_that_only_one_report_knows_is_not_comparable_either() -> None:
    (gate,) = compare_reports(timed_report(seed=1), timed_report(seed=2, **{"power mode": "locked"})).verdict.failed
    assert gate.reason == "not comparable: power mode was not recorded and is locked"


def test_a_report_from_elsewhere_with_times_of_nothing_is_not_comparable_and_no_traceback() -> None:
    odd = timed_report(seed=1)
    assert odd.subjects[1].latency is not None
    times = (0.0,) * 10
    timeless = msgspec.structs.replace(odd.subjects[1], latency=msgspec.structs.replace(odd.subjects[1].latency, samples_ms=times))
    found = compare_reports(msgspec.structs.replace(odd, subjects=(odd.subjects[0], timeless)), timed_report(seed=2))
    assert [gate.reason for gate in found.verdict.failed] == ["not comparable: a latency of 0 ms has no ratio"]
    assert all(row.cells() for row in found.rows)


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("power_mode", "MAXN (0)", "15W (2)"),
        ("turbo", "on", "off"),
        ("governor", "performance", "powersave"),
        ("clock_bounds", "400 to 3500 MHz", "400 to 800 MHz"),
        ("jetson_clocks", "locked", "not locked"),
        ("low_power_mode", "off", "on"),
        ("power_source", "AC Power", "Battery Power"),
        ("cores_allowed", "2, by its control group", "0.5, by its control group"),
        ("memory_limit", "8,192 MiB, by its control group", "512 MiB, by its control group"),
    ],
)
def test_what_somebody_set_in_between_on_the_machine_is_not_comparable(key: str, one: str, other: str) -> None:
    """The state beside each latency has it; the report's own facts of the machine do not."""
    before, after = set_to(timed_report(seed=1), **{key: one}), set_to(timed_report(seed=2), **{key: other})
    assert outcome(compare_reports(before, set_to(timed_report(seed=2), **{key: one}))) == "pass"
    (gate,) = compare_reports(before, after).verdict.failed
    name = key if key == "jetson_clocks" else key.replace("_", " ")
    assert gate.reason == f"not comparable: {name} was {one} and is {other}"


def test_a_limit_that_is_there_on_one_side_alone_is_a_difference_since_a_device_tells_it_where_there_is_one() -> None:
    limited = set_to(timed_report(seed=2), cores_allowed="0.5, by its control group")
    (gate,) = compare_reports(set_to(timed_report(seed=1)), limited).verdict.failed
    assert gate.reason == "not comparable: cores allowed was all and is 0.5, by its control group"


def test_a_setting_that_one_side_does_not_tell_is_no_difference_and_is_named() -> None:
    found = compare_reports(timed_report(seed=1), set_to(timed_report(seed=2), turbo="on"))
    assert outcome(found) == "pass"
    assert found.notes == ("ONNX FP32: told of one of the two alone, and held to be the same: turbo, cores allowed, memory limit",)
    assert compare_reports(set_to(timed_report(seed=1), turbo="on"), set_to(timed_report(seed=2), turbo="on")).notes == ()


def test_a_torch_that_ran_under_other_settings_is_no_yardstick() -> None:
    quick = set_to(timed_report(machine=1.3, seed=2), turbo="on")
    slow = set_to(quick, turbo="off").subjects[0]
    found = compare_reports(set_to(timed_report(seed=1), turbo="on"), msgspec.structs.replace(quick, subjects=(slow, quick.subjects[1])))
    assert [gate.name for gate in found.verdict.failed] == ["ONNX FP32: p50"]

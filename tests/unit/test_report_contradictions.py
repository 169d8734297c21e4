"""A report that was edited by hand is refused where it is read, with what contradicts what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from dtvit_deploy.artifacts.artifact import write_json
from dtvit_deploy.cli.report import read_report
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency.measurement import device_time
from dtvit_deploy.report import as_data
from dtvit_deploy.report.compare import compare_reports
from dtvit_deploy.report.schema import Report
from timed_reports import timed_report


def edited(subject: int = 1, **fields: Any) -> Report:
    report = timed_report(seed=1, count=700)
    mine = list(report.subjects)
    latency = mine[subject].latency
    assert latency is not None
    mine[subject] = msgspec.structs.replace(mine[subject], latency=msgspec.structs.replace(latency, **fields))
    return msgspec.structs.replace(report, subjects=tuple(mine))


def read(report: Report, folder: Path) -> Report:
    write_json(folder / "report.json", as_data(report))
    return read_report(folder)


@pytest.mark.parametrize("count", [1, 63, 64, 662, 6636])
def test_what_was_measured_is_read_again_valid_or_not(count: int, tmp_path: Path) -> None:
    report = timed_report(seed=1, count=count)
    assert as_data(read(report, tmp_path)) == as_data(report)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"p50": 1.0}, r"ONNX FP32: p50 is 1 ms, and of its 700 samples 9\.9"),
        ({"p90": None}, "p90 is not told, and of its 700 samples 10"),
        ({"p99": 1.0}, "p99 is 1 ms"),
        ({"p99_9": 12.0}, "p99.9 is 12 ms, and of its 700 samples not told"),
        ({"min": 1.0}, "min is 1 ms"),
        ({"max": 100.0}, "max is 100 ms"),
        ({"reasons": ("drift: much",)}, "it is VALID, and INVALID for 'drift: much'"),
        ({"status": "INVALID"}, "it is INVALID for no reason"),
        ({"samples_ms": (10.0,)}, "it is VALID with 1 of at least 64 samples"),
        ({"device": msgspec.structs.replace(device_time([5.0] * 700), p50=1.0)}, "the device's p50 is 1 ms, and of its 700 samples 5 ms"),
    ],
)
def test_a_latency_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read(edited(**fields), tmp_path)
    assert "report.json contradicts itself: " in str(caught.value)
    assert caught.value.remedy


def test_the_reference_is_looked_at_too_for_everything_is_divided_by_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torch FP32: p50 is 1 ms"):
        read(edited(0, p50=1.0), tmp_path)


def test_another_model_under_the_same_name_is_not_comparable_in_anything() -> None:
    before = timed_report(seed=1)
    found = compare_reports(before, msgspec.structs.replace(timed_report(seed=2), model="other"))
    assert [gate.name for gate in found.verdict.failed] == ["torch FP32: model", "ONNX FP32: model"]
    assert {gate.reason for gate in found.verdict.failed} == {"not comparable: it was of net and is of other"}
    assert not [gate for gate in found.verdict.gates if "size" in gate.name or "p50" in gate.name]


def test_another_checkpoint_or_program_is_named_and_compared() -> None:
    before, after = (
        msgspec.structs.replace(timed_report(seed=seed), lineage=(f"checkpoint {digit * 64}", f"program {'f' * 64}"))
        for seed, digit in ((1, "a"), (2, "b"))
    )
    found = compare_reports(before, after)
    assert found.verdict.passed
    assert found.notes == (
        "the program was made of checkpoint aaaaaaaa, program ffffffff before, and of checkpoint bbbbbbbb, program ffffffff after",
    )
    assert compare_reports(before, before).notes == ()
    built = msgspec.structs.replace(
        after, lineage=(), subjects=tuple(msgspec.structs.replace(one, sha256="c" * 64) for one in after.subjects)
    )
    assert compare_reports(before, built).notes == ("ONNX FP32: another artefact: sha256 bbbbbbbb before, and cccccccc after",)

"""``compare`` at the command line: two reports, or one and a series, and exit codes that a CI job can be built on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtvit_deploy.artifacts.artifact import write_json
from dtvit_deploy.cli.app import app
from dtvit_deploy.report import as_data
from timed_reports import timed_report


def compare(*given: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, given)])


@pytest.fixture
def reports(tmp_path: Path) -> dict[str, Path]:
    """Reports of an artefact as it was, of the same on a slower machine, and of one that became 5 % slower."""
    made = {"before": timed_report(seed=1), "hot": timed_report(machine=1.3, seed=2), "slow": timed_report(1.05, seed=3)}
    for name, one in made.items():
        write_json(tmp_path / f"{name}.json", as_data(one))
    return {name: tmp_path / f"{name}.json" for name in made}


def test_a_regression_is_told_with_its_interval_and_exit_code_1(reports: dict[str, Path]) -> None:
    done = compare(reports["before"], reports["slow"])
    assert done.exit_code == 1
    assert "ONNX FP32: p50 ÷ torch: +" in done.output
    assert "all of it beyond the band of 2 %" in done.output
    assert compare(reports["before"], reports["hot"]).exit_code == 0
    assert compare(reports["before"], reports["slow"], "--slower", 0.1).exit_code == 0


def test_undecided_is_told_and_no_failure(reports: dict[str, Path]) -> None:
    done = compare(reports["before"], reports["slow"], "--slower", 0.049)
    assert done.exit_code == 0
    assert "undecided: ONNX FP32: p50 ÷ torch: +" in done.output


def test_a_series_begins_grows_and_finds_what_became_slower(reports: dict[str, Path], tmp_path: Path) -> None:
    series = tmp_path / "series.jsonl"
    first = compare(reports["before"], "--history", series)
    assert first.exit_code == 0
    assert "it is the first in the series" in first.output
    assert f"added to {series}: 1 of its artefacts" in first.output.replace("\n", "")
    assert compare(reports["hot"], "--history", series).exit_code == 0
    done = compare(reports["slow"], "--history", series, "--json")
    assert done.exit_code == 1
    assert [gate["passed"] for gate in json.loads(done.output)["verdict"]["gates"]] == [True, False]
    again = compare(reports["slow"], "--history", series, "--last", 1)
    assert "already" in again.output
    assert len(series.read_text().splitlines()) == 3


@pytest.mark.parametrize("given", [("before",), ("before", "slow", "--history", "series.jsonl")])
def test_one_report_alone_or_three_things_at_once_are_refused(given: tuple[str, ...], reports: dict[str, Path]) -> None:
    done = compare(*(reports.get(one, one) for one in given))
    assert done.exit_code == 2
    assert "compare takes two reports, or one and a series" in done.output
    assert "give BEFORE and AFTER, or REPORT and --history FILE" in done.output


def test_an_older_report_is_refused_with_one_message_whatever_else_is_in_it(reports: dict[str, Path], tmp_path: Path) -> None:
    older = tmp_path / "older.json"
    older.write_text(json.dumps({"schema": 1, "subjects": "of another shape"}))
    for given in ((older, reports["slow"]), (reports["before"], older), (older, "--history", tmp_path / "series.jsonl")):
        done = compare(*given)
        assert done.exit_code == 2
        assert f"{older} has schema 1; this version reads schema 3" in done.output.replace("\n", "")
        assert "measure again" in done.output
    assert not (tmp_path / "series.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"schema": 99, "subjects": "of another shape"}, ("has schema 99; this version reads schema 3", "try: update dtvit-deploy")),
        ({"command": "run", "subjects": []}, ("is not a report: it does not say of which schema it is",)),
        ({"schema": 1, "signature": {}, "format": "onnx", "sha256": ""}, ("is not a report: it is an artefact's manifest",)),
        (None, ("there is no report at ", "given.json")),
    ],
)
def test_what_is_no_report_of_this_version_is_told_for_what_it_is(
    content: object, said: tuple[str, ...], reports: dict[str, Path], tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    if content is not None:
        given.write_text(json.dumps(content))
    for words in (("report", given), ("compare", reports["before"], given)):
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 2
        for one in said:
            assert one in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device-name", "x"), "--device-name: about results that are imported"),
        (("--data", "images", "--no-layers"), "--data, --no-layers: about results that are imported"),
        (("--schema",), "--schema prints that of every report, and beside it was given: "),
        (("--schema", "--device-name", "x"), "--device-name"),
    ],
)
def test_what_a_report_that_is_shown_has_no_use_for_is_named(words: tuple[str, ...], said: str, reports: dict[str, Path]) -> None:
    done = CliRunner().invoke(app, ["report", str(reports["before"]), *words])
    assert done.exit_code == 2
    assert said in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("before", "slow", "--last", "3"), "--last says how many reports of a series are compared with, and there is no series"),
        (("before", "slow", "--slower", "5"), "--slower 5 is 500 %: it is a share"),
        (("before", "slow", "--slower", "1"), "--slower 1 is 100 %: it is a share"),
    ],
)
def test_what_would_be_passed_over_or_is_no_share_is_refused(given: tuple[str, ...], said: str, reports: dict[str, Path]) -> None:
    done = compare(*(reports.get(one, one) for one in given))
    assert done.exit_code == 2
    assert said in done.output.replace("\n", " ")

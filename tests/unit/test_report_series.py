"""A series is what was measured, a line each; the newest is held against those before it that were measured alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.report import series_file
from dtvit_deploy.report.compare import Comparison
from dtvit_deploy.report.schema import Report
from dtvit_deploy.report.series import Point, compare_with_series, lines, points
from dtvit_deploy.report.series_file import compare_and_add
from timed_reports import set_to, timed_report


def series(path: Path, *found: Report) -> Comparison:
    """All of them added; what came of the last."""
    for one in found:
        last, _ = compare_and_add(path, one)
    return last


class TestWhatIsFound:
    def test_the_first_has_nothing_to_be_held_against_and_passes(self, tmp_path: Path) -> None:
        found = series(tmp_path / "series.jsonl", timed_report(seed=0))
        assert found.verdict.passed
        assert found.not_compared == ("ONNX FP32: p50: it is the first in the series",)

    def test_three_per_cent_are_found_and_a_slower_machine_is_not_taken_for_them(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        machines = (1.0, 1.2, 0.9, 1.1, 1.05, 1.0)
        assert series(path, *(timed_report(machine=one, seed=seed, count=400) for seed, one in enumerate(machines))).verdict.passed
        found = series(path, timed_report(1.03, 1.3, seed=9, count=400))
        (gate,) = found.verdict.failed
        assert gate.name == "ONNX FP32: p50 ÷ torch"
        assert "from the median of 6 runs, all of it beyond the band of 2 %" in gate.reason
        (row,) = found.rows
        assert row.figure == "p50 ÷ torch"
        assert row.before == pytest.approx(0.5, rel=0.01)

    def test_a_change_that_stays_is_told_until_most_of_the_last_are_newer(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, *(timed_report(seed=seed) for seed in range(5)))
        failing = [not compare_and_add(path, timed_report(1.2, seed=10 + seed), last=5)[0].verdict.passed for seed in range(6)]
        assert failing[0]
        assert failing[-3:] == [False, False, False]

    def test_a_regression_that_creeps_in_fails_before_it_is_ten_bands_in_all_and_goes_on_failing(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        found = [compare_and_add(path, timed_report(1.015**run, seed=100 + run))[0] for run in range(14)]
        failed = [[gate.name for gate in one.verdict.failed] for one in found]
        assert failed[:5] == [[]] * 5
        assert failed[10:] == [["ONNX FP32: p50 ÷ torch since the series began"]] * 4
        assert not found[-1].undecided

    def test_a_step_that_was_told_and_stayed_is_a_new_beginning_from_which_creeping_is_found_again(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        levels = [1.0] * 6 + [1.2] * 8
        told = [not compare_and_add(path, timed_report(level, seed=run), last=4)[0].verdict.passed for run, level in enumerate(levels)]
        assert (told[6:9], told[10:]) == ([True] * 3, [False] * 4)
        assert [json.loads(line)["slower"] for line in path.read_text().splitlines()] == told
        creeping = [compare_and_add(path, timed_report(1.2 * 1.02**run, seed=50 + run), last=4)[0].verdict.passed for run in range(9)]
        assert creeping[0]
        assert creeping[-4:] == [False] * 4

    def test_a_single_run_far_off_in_a_long_series_is_no_creeping(self) -> None:
        (point,) = points(timed_report(seed=0))
        apart = np.exp(0.03 * np.random.default_rng(0).standard_normal(30))
        names = ("p50_ratio", "p50_ratio_low", "p50_ratio_high")
        earlier = [
            msgspec.structs.replace(point, report=str(run), **{name: 0.5 * float(off) for name in names}) for run, off in enumerate(apart)
        ]
        found = compare_with_series([*earlier[:-1], msgspec.structs.replace(point, report="steady")], timed_report(1.05, seed=1))
        assert found.verdict.passed

    def test_only_the_last_count(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, *(timed_report(2.0, seed=seed) for seed in range(4)), *(timed_report(seed=10 + seed) for seed in range(4)))
        found, _ = compare_and_add(path, timed_report(seed=20), last=4)
        (gate,) = (gate for gate in found.verdict.gates if "p50" in gate.name)
        assert gate.passed
        assert "4 runs" in gate.reason

    @pytest.mark.parametrize("other", [{"governor": "powersave"}, {"processor": "B CPU"}, {"power mode": "15W"}])
    def test_points_of_another_machine_or_state_are_not_compared_with_and_it_says_what_differs(
        self, other: dict[str, str], tmp_path: Path
    ) -> None:
        found = series(tmp_path / "series.jsonl", timed_report(seed=0, **other), timed_report(3.0, seed=1))
        assert found.verdict.passed
        (told,) = found.not_compared
        (key,) = other
        assert told.startswith(f"ONNX FP32: p50: none of 1 earlier one was measured so; of the last, {key} was {other[key]} and is ")

    def test_points_under_other_settings_are_another_series_in_the_same_file(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, set_to(timed_report(seed=0), turbo="on", power_mode="MAXN (0)"))
        (told,) = series(path, set_to(timed_report(1.25, 1.5, seed=1), turbo="off", power_mode="15W (2)")).not_compared
        assert told.startswith("ONNX FP32: p50: none of 1 earlier one was measured so; of the last, ")
        assert told.endswith("turbo was on and is off; power mode was MAXN (0) and is 15W (2)")
        assert not series(path, set_to(timed_report(1.2, seed=2), turbo="on", power_mode="MAXN (0)")).verdict.passed
        (note,) = series(path, timed_report(seed=3)).notes
        assert note.endswith("held to be the same: turbo, power mode, cores allowed, memory limit")

    def test_each_machine_is_held_against_its_own_points_in_one_file(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0), timed_report(seed=1, processor="B CPU", machine=3.0))
        assert not series(path, timed_report(1.2, seed=2)).verdict.passed
        assert series(path, timed_report(seed=3, processor="B CPU", machine=3.0)).verdict.passed

    def test_an_invalid_measurement_is_kept_and_neither_compared_nor_compared_with(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        found = series(path, timed_report(seed=0), timed_report(3.0, seed=1, count=20))
        assert [gate.name for gate in found.verdict.failed] == ["a latency to compare"]  # else a series of such would pass for ever
        assert found.not_compared == ("ONNX FP32: p50: the measurement is INVALID",)
        assert series(path, timed_report(seed=2)).not_compared == ()
        assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == ["VALID", "INVALID", "VALID"]

    def test_without_torch_it_is_milliseconds(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        found = series(path, timed_report(seed=0), timed_report(seed=1, torch=False), timed_report(1.2, seed=2, torch=False))
        assert [gate.name for gate in found.verdict.failed] == ["ONNX FP32: p50"]

    def test_a_report_without_a_latency_has_no_place_in_a_series(self, tmp_path: Path) -> None:
        bare = msgspec.structs.replace(timed_report(seed=0), subjects=timed_report(seed=0).subjects[:1])
        with pytest.raises(InputError, match="no latency of an artefact"):
            series(tmp_path / "series.jsonl", bare)
        assert not (tmp_path / "series.jsonl").exists()


class TestTheFile:
    def test_a_line_has_every_field_and_reads_as_it_was_written(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0, count=700))
        (line,) = path.read_text().splitlines()
        told = json.loads(line)
        assert set(told) == {field.name for field in msgspec.structs.fields(Point)}
        assert told["p50_ratio_low"] < told["p50_ratio"] < told["p50_ratio_high"]
        assert told["p50_ms_low"] < told["p50_ms"] < told["p50_ms_high"]
        assert told["p99_ms"] > told["p90_ms"]
        assert told["machine"]["processor"] == "A CPU"
        assert told["torch"]["runtime"] == "torch 2.13"
        assert [msgspec.json.decode(line, type=Point)] == points(timed_report(seed=0, count=700))

    def test_the_same_report_is_one_point_however_often_it_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0), timed_report(seed=1))
        content = path.read_bytes()
        found, added = compare_and_add(path, timed_report(seed=1))
        assert (added, path.read_bytes()) == (0, content)
        assert [gate.passed for gate in found.verdict.gates] == [True, True]  # held against the other one, not against itself

    def test_a_slow_one_is_added_too(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        assert not series(path, timed_report(seed=0), timed_report(2.0, seed=1)).verdict.passed
        assert len(path.read_text().splitlines()) == 2

    def test_a_last_line_without_its_end_is_not_written_on(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0))
        path.write_text(path.read_text().rstrip("\n"))
        series(path, timed_report(seed=1))
        assert len(path.read_text().splitlines()) == 2

    @pytest.mark.parametrize("left", [1, 9, 40, 900, -1])
    def test_a_last_line_that_a_kill_has_cut_is_taken_out_told_once_and_written_anew(self, left: int, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0))
        whole = path.read_bytes()
        series(path, timed_report(seed=1))
        both = path.read_bytes()
        path.write_bytes(both[: len(whole) + left] if left > 0 else both[: left - 1])
        first, again = compare_and_add(path, timed_report(seed=1)), compare_and_add(path, timed_report(seed=1))
        assert [len([note for note in one.notes if "broke off" in note]) for one, _ in (first, again)] == [1, 0]
        assert (first[1], again[1], path.read_bytes()) == (1, 0, both)

    def test_wherever_a_line_was_cut_it_is_known_for_that(self) -> None:
        (line,) = lines(points(msgspec.structs.replace(timed_report(seed=0), model="né" + chr(0x1F600) + '"\\')))
        assert {series_file._whole(line + line[:left]) for left in range(1, len(line) - 1)} == {len(line)}
        assert series_file._whole(line + line[:-1]) == 2 * len(line) - 1

    def test_a_cut_line_goes_where_nothing_is_to_be_added_too_and_of_a_report_only_what_is_lacking_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        two = timed_report(seed=0)
        two = msgspec.structs.replace(
            two, subjects=(*two.subjects, msgspec.structs.replace(two.subjects[1], name="ONNX FP16", file="b.onnx"))
        )
        series(path, two)
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        assert compare_and_add(path, two)[1] == 1
        assert path.read_bytes() == whole
        path.write_bytes(whole + whole[:99])
        assert compare_and_add(path, two)[1] == 0
        assert path.read_bytes() == whole

    def test_a_process_that_keeps_the_lock_is_named_after_a_while_and_nothing_is_added(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(series_file, "LOCK_SECONDS", 0.2)
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0))
        content = path.read_bytes()
        holding = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", holding, str(path)], **pipes) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            with pytest.raises(InputError, match=r"has been locked by .*process.* for 0.2 s, and nothing was added") as caught:
                series(path, timed_report(seed=1))
            if Path("/proc/locks").exists() and f" {process.pid} " in Path("/proc/locks").read_text():
                assert f"process {process.pid} " in str(caught.value)
            process.stdin.close()
        assert path.read_bytes() == content
        series(path, timed_report(seed=1))

    @pytest.mark.parametrize("ratio", [1e30, 1e16, 1e-30])
    def test_a_ratio_that_nothing_can_be_divided_by_is_compared_without_a_traceback(self, ratio: float) -> None:
        (point,) = points(timed_report(seed=0))
        odd = msgspec.structs.replace(point, p50_ratio=ratio, p50_ratio_low=ratio, p50_ratio_high=ratio)
        found = compare_with_series([odd], timed_report(seed=1))
        (row,) = found.rows
        assert row.before == pytest.approx(ratio)
        assert row.cells()
        assert found.verdict.passed is (ratio > 1)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b'{"agreement":nul}', "line 1"),
            (b'{"agreement":null}', "line 1"),
            (b'{"agreement":\n', "line 1"),
            (b'{"some": "other file"', "line 1"),
            (b"\xff\xfe\n", "line 1"),
            (b"{}\n", "line 1"),
            (b"\n\n[1]\n", "line 3"),
            (b'{"p50_ms": -1}\n', "line 1"),
            (b"[" * 100_000, "line 1"),
            (b"time,p50\n", "line 1"),
        ],
    )
    def test_what_is_no_series_is_refused_by_its_line_and_left_as_it_was(self, content: bytes, said: str, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{said}, is no point of a series") as caught:
            series(path, timed_report(seed=0))
        assert caught.value.remedy
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        ("field", "value"), [("p50_ms", 0), ("p50_ratio", -1), ("p50_ms", 1e300), ("schema", 2), ("samples", 0), ("more", 1)]
    )
    def test_a_figure_that_nothing_measures_is_refused(self, field: str, value: float, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0))
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}) + "\n")
        with pytest.raises(InputError, match=field):
            series(path, timed_report(seed=1))

    def test_what_cannot_hold_a_series_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "nowhere" / "series.jsonl"):
            with pytest.raises(InputError, match=path.name):
                series(path, timed_report(seed=0))

    def test_a_line_that_cannot_be_written_to_its_end_is_not_written_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "series.jsonl"
        series(path, timed_report(seed=0))
        content = path.read_bytes()
        limited = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(content) + 100},) * 2);"
            "from pathlib import Path; import msgspec; from dtvit_deploy.report.schema import Report;"
            "from dtvit_deploy.report.series_file import compare_and_add;"
            "compare_and_add(Path(sys.argv[1]), msgspec.json.decode(sys.stdin.buffer.read(), type=Report))"
        )
        command = [sys.executable, "-c", limited, str(path)]
        done = subprocess.run(command, input=msgspec.json.encode(timed_report(seed=1)), capture_output=True, check=False)
        assert done.returncode == 1
        assert b"cannot be used as a series: File too large" in done.stderr
        assert path.read_bytes() == content
        monkeypatch.setattr(series_file, "LARGEST", len(content) - 1)
        with pytest.raises(InputError, match="at most"):
            series(path, timed_report(seed=1))

    def test_two_that_add_at_once_are_both_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "series.jsonl"
        script = (
            "import sys; from pathlib import Path; import msgspec; from dtvit_deploy.report.schema import Report;"
            "from dtvit_deploy.report.series_file import compare_and_add;"
            "[compare_and_add(Path(sys.argv[1]), one) for one in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Report])]"
        )
        reports = [[timed_report(seed=10 * who + turn, count=64) for turn in range(4)] for who in range(3)]
        running = [subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE) for _ in reports]
        for process, mine in zip(running, reports, strict=True):
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(mine))
            process.stdin.close()
        assert [process.wait(60) for process in running] == [0, 0, 0]
        assert len({json.loads(line)["report"] for line in path.read_text().splitlines()}) == 12


def test_a_series_is_held_to_the_band_that_was_declared() -> None:
    earlier = points(timed_report(seed=0, count=400))
    assert compare_with_series(earlier, timed_report(1.03, seed=1, count=400), slower=0.10).verdict.passed
    assert not compare_with_series(earlier, timed_report(1.03, seed=1, count=400), slower=0.01).verdict.passed

"""What a terminal shows: results on standard output, all else on standard error, and no text from elsewhere that acts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.cli import show
from dtvit_deploy.cli.progress import Terminal, working
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.measurement import device_time
from dtvit_deploy.harness.layers import LayerReport, ModuleDifference
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.verdict import holds, verdict
from dtvit_deploy.report import as_data
from dtvit_deploy.report.schema import Report, Subject
from dtvit_deploy.runtimes.fake import FakeClock

HOSTILE = "[/nope] [red]x[/red] :boom: \x1b[2J\r\n\u202e <b>"
SHOWN = "[/nope] [red]x[/red] :boom: �[2J� � <b>"


def difference(output: str = "logits", feeds: str = "images", max_abs: float = 4.1e-6, **more: object) -> Difference:
    values: dict[str, object] = {
        "output": output,
        "feeds": feeds,
        "samples": 64,
        "max_abs": max_abs,
        "mean_abs": 1e-7,
        "max_rel": 2e-7,
        "cosine": 1.0,
        "sqnr": float("inf"),
        "floor": 1e-6,
        "tolerance": 8e-6,
        "at": (3, 7),
        "agreement": 0.99999,
        "near_ties": 0,
        "passed": True,
    }
    return Difference(**{**values, **more})  # type: ignore[arg-type]


def subject(name: str = "ONNX FP32", file: str = "m.fp32.onnx", **more: object) -> Subject:
    values: dict[str, object] = {
        "name": name,
        "file": file,
        "sha256": "0" * 64,
        "precision": "fp32",
        "rung": Rung.EXECUTED,
        "conditions": {"threads": "3"},
        "bytes": 23_456_789,
    }
    return Subject(**{**values, **more})  # type: ignore[arg-type]


def report(*subjects: Subject, **more: object) -> Report:
    values: dict[str, object] = {
        "command": "verify",
        "model": "dualtoken-vit-t-mix",
        "created": "2026-01-01T00:00:00+00:00",
        "lineage": (),
        "data": {"source": "images of held-out", "parity": "64 samples and 5 adversarial feeds"},
        "device": {"processor": "a processor"},
        "versions": {},
        "subjects": subjects,
    }
    return Report(**{**values, **more})  # type: ignore[arg-type]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


class TestReports:
    def test_every_figure_stands_in_the_row_of_its_subject(self, capsys: pytest.CaptureFixture[str]) -> None:
        show.report(report(subject("torch FP32", "", bytes=0), subject(parity=(difference(), difference(feeds="zeros", max_abs=7e-6)))))
        found = lines(capsys)
        (row,) = (line for line in found if "ONNX FP32" in line)
        cells = [cell.strip() for cell in row.split("│")]
        assert cells[1:-1] == ["ONNX FP32", "99.999%", "7.0e-06", "8.0e-06", "0.88", "23.46", "executed", "m.fp32.onnx"]  # not 100 %
        assert any("64 samples and 5 adversarial feeds of images of held-out" in line and "threads: 3" in line for line in found)

    def test_a_failing_row_shows_what_failed_and_not_the_larger_figure_of_another_feed(self, capsys: pytest.CaptureFixture[str]) -> None:
        wide = difference(feeds="saturated", max_abs=1.0, tolerance=8.0)
        wrong = difference(feeds="zeros", max_abs=3e-5, tolerance=1e-6, passed=False, reason="max |Δ| 3e-05 exceeds the tolerance")
        gates = verdict([holds("m.fp32.onnx: parity of 'logits' on zeros", False, wrong.reason), holds("p50", True, "")])
        show.report(report(subject(parity=(wide, wrong), verdict=gates), verdict=gates))
        (row,) = (line for line in lines(capsys) if "ONNX FP32" in line)
        assert [cell.strip() for cell in row.split("│")][3:7] == ["3.0e-05", "1.0e-06", "30.00", "1 failed"]

    @pytest.mark.parametrize(
        ("one", "shown"),
        [
            (difference(max_abs=1.0, tolerance=0.0, passed=False), "∞"),
            (difference(max_abs=0.0, tolerance=0.0), "0.00"),
            (difference(tolerance=None, floor=None, least_sqnr=10.0, sqnr=26.0), "–"),
            (difference(max_abs=0.1, tolerance=0.4, passed=False, reason="cannot carry this network"), "–"),
        ],
        ids=["nothing allowed", "nothing allowed and nothing off", "held to an SQNR", "no limit means anything"],
    )
    def test_what_is_allowed_at_the_edges(self, one: Difference, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
        show.report(report(subject(parity=(one,))))
        (row,) = (line for line in lines(capsys) if "ONNX FP32" in line)
        assert [cell.strip() for cell in row.split("│")][5] == shown

    def test_failures_of_one_output_are_one_line_with_the_worst(self, capsys: pytest.CaptureFixture[str]) -> None:
        wrong = [
            difference("boxes", feeds, max_abs=size, passed=False, reason=f"max |Δ| {size} exceeds")
            for feeds, size in (("zeros", 1.0), ("constant", 3.0), ("tiny", 2.0))
        ]
        right = difference("scores")
        gates = [holds(f"m.fp32.onnx: parity of {one.output!r} on {one.feeds}", one.passed, one.reason) for one in (*wrong, right)]
        gates.append(holds("m.fp32.onnx: p50", False, "too slow"))
        show.report(report(subject(parity=(*wrong, right), verdict=verdict(gates)), verdict=verdict(gates)))
        found = lines(capsys)
        assert found[-3:] == [
            "✗ m.fp32.onnx: parity of 'boxes' on zeros, constant, tiny: the worst, constant: max |Δ| 3.0 exceeds",
            "✗ m.fp32.onnx: p50: too slow",
            "FAIL: 4 of 5 gates failed",
        ]

    @pytest.mark.parametrize(("first", "said"), [(None, "above its floor"), ("other", "suspect")])
    def test_a_module_is_suspect_only_where_something_is_wrong(
        self, first: str | None, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        module = ModuleDifference(module="head", tensors=1, inherited=0.0, error=1.0, floor=0.1, suspect=True)
        inside = LayerReport(samples=1, program_tensors=1, layers=(), modules=(module,), first=first, verdict="so it is")
        show.report(report(subject(layers=inside)))
        (row,) = (line for line in lines(capsys) if line.startswith("│head"))
        assert row.split("│")[-2].strip() == said

    @pytest.mark.parametrize(("labelled", "word"), [(True, "PASS"), (False, "AGREEMENT ONLY")])
    def test_what_was_scored_without_labels_passes_in_agreement_only(
        self, labelled: bool, word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scored = Accuracy(samples=9, top1=1.0 if labelled else None, agreement=1.0)
        show.report(report(subject(accuracy=scored), command="evaluate", verdict=verdict([holds("agreement", True, "fine")])))
        found = lines(capsys)
        assert found[-1] == f"{word}: 1 gate passed"
        assert any("top-1" in line for line in found) is labelled

    def test_what_disagrees_without_labels_fails_all_the_same(self, capsys: pytest.CaptureFixture[str]) -> None:
        scored = Accuracy(samples=9, agreement=0.5)
        show.report(report(subject(accuracy=scored), command="evaluate", verdict=verdict([holds("agreement", False, "half")])))
        assert lines(capsys)[-1] == "FAIL: 1 of 1 gates failed"

    def test_what_is_not_decided_is_not_called_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        open_one = Recommendation(runtime="rtx", file="", reason="measure on the device", decided=False)
        show.report(report(subject(), recommendations=(open_one, Recommendation(runtime="onnx", file="", reason="none is sound"))))
        said = lines(capsys)
        assert "ship for TensorRT-RTX: not decided here: measure on the device" in said
        assert "ship for ONNX: nothing: none is sound" in said

    def test_a_device_s_own_time_stands_beside_the_host_s(self, capsys: pytest.CaptureFixture[str]) -> None:
        warmup = Warmup(runs=10, seconds=0.1, change=0.0, first_ms=9.0)
        host = summarise([3.0] * 64, [float(i) for i in range(64)], MeasureOptions(), warmup=warmup)
        gpu = msgspec.structs.replace(host, device=device_time([1.25] * 64))
        show.report(report(subject("cpu", latency=host), subject("gpu", latency=gpu), subject("emulated"), command="profile"))
        found = {cells[1].strip(): [cell.strip() for cell in cells] for line in lines(capsys) if len(cells := line.split("│")) > 2}
        assert [found[name][4] for name in ("cpu", "gpu", "emulated")] == ["–", "1.25", "–"]
        assert [found[name][2] for name in ("cpu", "gpu", "emulated")] == ["3.00", "3.00", "–"]

    def test_notes_come_first_and_the_verdict_last_with_every_gate_that_failed(self, capsys: pytest.CaptureFixture[str]) -> None:
        gates = [holds("parity", True, "fine"), holds("top-1", False, "lost 3 of 64"), holds("p50", None, "")]
        show.report(report(subject(), notes=("THE WEIGHTS ARE RANDOM",), verdict=verdict(gates)))
        found = lines(capsys)
        assert found[0] == "note: THE WEIGHTS ARE RANDOM"
        assert found[-3:-1] == ["✗ top-1: lost 3 of 64", "✗ p50: not measured"]
        assert found[-1].startswith("FAIL: ")

    def test_a_verdict_that_passed_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        show.report(report(subject(), verdict=verdict([holds("parity", True, "fine")])), Path("build/demo"))
        assert lines(capsys)[-2:] == ["the report is in build/demo", "PASS: 1 gate passed"]

    def test_a_report_without_subjects_or_facts_is_shown_as_far_as_it_goes(self, capsys: pytest.CaptureFixture[str]) -> None:
        show.report(report(data={}, device={}))
        assert any("an unknown source" in line and "an unknown processor" in line for line in lines(capsys))

    def test_nothing_that_a_report_says_is_markup_or_moves_the_cursor(self, capsys: pytest.CaptureFixture[str]) -> None:
        module = ModuleDifference(module=HOSTILE, tensors=1, inherited=0.0, error=1.0, floor=0.1, suspect=True)
        inside = LayerReport(samples=1, program_tensors=1, layers=(), modules=(module,), first=HOSTILE, verdict=HOSTILE)
        hostile = subject(HOSTILE, HOSTILE, parity=(difference(HOSTILE),), layers=inside, conditions={"threads": HOSTILE})
        gates = verdict([holds(HOSTILE, False, HOSTILE)])
        show.report(report(hostile, model=HOSTILE, notes=(HOSTILE,), data={"source": HOSTILE}, verdict=gates), Path(HOSTILE))
        said = "\n".join(lines(capsys))
        assert "\x1b" not in said
        assert "\r" not in said
        assert "\u202e" not in said
        assert said.count("[/nope]") >= 9
        assert f"note: {SHOWN}" in said
        assert f"✗ {SHOWN}: {SHOWN}" in said


class TestJson:
    @given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner), max_leaves=9))
    def test_what_is_written_is_read_again(self, value: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", Recorder())
            show.as_json({"value": value})
            assert json.loads(sys.stdout.written) == {"value": value}  # type: ignore[attr-defined]

    def test_a_path_that_is_no_text_is_written_as_it_can_be(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        show.as_json({"file": "m\udcff.onnx"})
        out = capsysbinary.readouterr().out
        assert json.loads(out.decode()) == {"file": "m\udcff.onnx"}

    def test_a_report_is_strict_json_also_where_nothing_differs(self, capsys: pytest.CaptureFixture[str]) -> None:
        show.as_json(as_data(report(subject(parity=(difference(sqnr=float("inf")),)))))

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is no JSON")

        found = json.loads(capsys.readouterr().out, parse_constant=refuse)
        assert found["subjects"][0]["parity"][0]["sqnr"] > 1e300


class Recorder:
    """A standard output that keeps its bytes."""

    def __init__(self) -> None:
        self.buffer = self
        self.written = b""

    def write(self, content: bytes) -> None:
        self.written += content

    def flush(self) -> None:
        pass


class TestProgress:
    def test_it_goes_to_standard_error_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        with working() as progress:
            progress.step("tracing the network")
            assert list(progress.track(iter("abc"), "samples", 3)) == ["a", "b", "c"]
        assert capsys.readouterr() == ("", "· tracing the network\n")

    def test_a_long_stage_is_named_where_nobody_sees_its_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        with working() as progress:
            assert list(progress.track(range(64), "net.fp16.onnx", 64)) == list(range(64))
        assert capsys.readouterr() == ("", "· net.fp16.onnx: 64\n")

    def test_what_a_users_network_prints_goes_there_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        with working():
            print("hello from a network")  # noqa: T201
        show.as_json([])
        assert capsys.readouterr() == ("[]\n", "hello from a network\n")

    def test_steps_say_how_long_it_took_until_them_and_a_log_hears_of_a_long_stage_every_minute(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = FakeClock()
        terminal = Terminal(clock.now)
        terminal.step("building 1 of 3: onnx fp32")
        clock.advance(41)
        terminal.step("building 2 of 3: trt fp16")
        for _ in terminal.track(range(100), "evaluating", 100):
            clock.advance(1.5)
        assert capsys.readouterr().err.splitlines() == [
            "· building 1 of 3: onnx fp32",
            "· building 2 of 3: trt fp16 (after 41 s)",
            "· evaluating: 100 (after 41 s)",
            "· evaluating: 40 of 100 (after 1:41 min)",
            "· evaluating: 80 of 100 (after 2:41 min)",
        ]

    def test_names_in_it_do_not_act(self, capsys: pytest.CaptureFixture[str]) -> None:
        with working() as progress:
            progress.step(HOSTILE)
            list(progress.track([1], HOSTILE, 1))
        assert capsys.readouterr().err == f"· {SHOWN}\n"

    def test_a_bar_shows_where_somebody_watches(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(Console, "is_terminal", True)
        with working() as progress:
            list(progress.track(range(7), HOSTILE, 7))
        assert "7/7" in capsys.readouterr().err


class TestNotes:
    FAST = "a linear over 1 token, which could be a convolution (Apple: https://machinelearning.apple.com/research/x; sources differ)"

    def shown(self, capsys: pytest.CaptureFixture[str], *of: tuple[str, list[str]], general: tuple[str, ...] = ()) -> list[str]:
        show.notes(general, of, show.console(), "in the report")
        return lines(capsys)

    def test_what_is_said_of_everything_is_said_once_over_several_reports(self, capsys: pytest.CaptureFixture[str]) -> None:
        before: set[str] = set()
        for name in ("a.onnx", "b.onnx"):
            of = [(name, ["THE WEIGHTS ARE RANDOM", f"only of {name}"])]
            show.notes(("the mean was assumed",), of, show.console(), "in the report", before)
        told = lines(capsys)
        assert told == ["note: the mean was assumed", "note: THE WEIGHTS ARE RANDOM", "note: only of a.onnx", "note: only of b.onnx"]

    def test_each_is_said_once_under_those_that_say_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = self.shown(
            capsys,
            ("a.onnx", ["THE WEIGHTS ARE RANDOM", "simplified", "only a"]),
            ("b.onnx", ["THE WEIGHTS ARE RANDOM", "simplified", "first of b", "second of b", "first of b"]),
            ("c.mlpackage", ["THE WEIGHTS ARE RANDOM", "of c"]),
            general=("said before",),
        )
        assert found == [
            "note: said before",
            "note: THE WEIGHTS ARE RANDOM",
            "a.onnx: only a",
            "a.onnx, b.onnx: simplified",
            "b.onnx:",
            "  first of b",
            "  second of b",
            "c.mlpackage: of c",
        ]

    def test_what_was_said_of_everything_is_not_said_of_an_artefact_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.shown(capsys, ("a.onnx", ["same"]), ("b.onnx", ["same", "other"]), general=("same",)) == ["note: same", "b.onnx: other"]

    def test_addresses_are_left_to_the_report(self, capsys: pytest.CaptureFixture[str]) -> None:
        bare = "read as opset 21 has it: https://github.com/NVIDIA/TensorRT/issues/4336, which is old"
        found = self.shown(capsys, ("a.mlpackage", [self.FAST, bare, "no source (an aside)"]))
        assert found == [
            "note: a linear over 1 token, which could be a convolution",
            "note: read as opset 21 has it, which is old",
            "note: no source (an aside)",
            "sources of these notes: in the report",
        ]


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show.rows("models", ("name", "what"), [("n" * 60, "w" * 60)])
    assert any("n" * 60 in line and "w" * 60 in line for line in lines(capsys))

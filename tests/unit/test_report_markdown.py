"""A report in Markdown says everything that was measured, under its conditions, and nothing in it acts."""

from __future__ import annotations

import html
import math
import re
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dtvit_deploy.artifacts.artifact import read_json
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.accuracy import Accuracy, Flip, wilson
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.measurement import device_time
from dtvit_deploy.harness.latency.starts import Start, Taken, starts_of
from dtvit_deploy.harness.layers import LayerReport, ModuleDifference
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.state.record import Channel, Watched
from dtvit_deploy.harness.verdict import at_least, holds, verdict
from dtvit_deploy.report import as_data, write_report
from dtvit_deploy.report.content import real_sqnr
from dtvit_deploy.report.figures import plain
from dtvit_deploy.report.html import render_html
from dtvit_deploy.report.markdown import escaped, render_markdown
from dtvit_deploy.report.schema import Report, Subject

HOSTILE = "<script>alert(1)</script>|`x`**_a_\n# [b](http://evil.example) $c$ \u202e"


def latency(samples: int = 64, median: float = 20.0) -> Measurement:
    times = [median + 0.01 * (i % 5) for i in range(samples)]
    warmup = Warmup(runs=31, seconds=0.5, change=0.0, first_ms=90.0)
    found = summarise(times, [0.02 * i for i in range(samples)], MeasureOptions(), warmup=warmup)
    conditions = {"runtime": "onnxruntime 1.0", "threads": "3", "batch": "1"}
    return msgspec.structs.replace(
        found,
        starts=starts_of(Taken(first=(Start(load_ms=123.4, first_ms=55.5, load_mib=321.0, first_mib=300.0, steady_mib=290.0),))),
        conditions=conditions,
    )


def test_a_device_s_own_time_has_columns_where_there_is_one() -> None:
    host = latency()
    gpu = msgspec.structs.replace(host, device=device_time([1.25] * 600 + [9.75] * 100))
    subject = {"file": "", "sha256": "0" * 64, "precision": "fp32", "rung": Rung.EXECUTED, "conditions": {}}
    facts = {"command": "profile", "model": "any", "created": "now", "lineage": (), "data": {}, "device": {}, "versions": {}}
    both, one = (
        render_markdown(Report(**facts, subjects=tuple(Subject(name=str(i), latency=each, **subject) for i, each in enumerate(found))))
        for found in ((host, gpu), (host,))
    )
    assert "device p50" in both
    assert "1.25" in both
    assert "9.75" in both
    assert "device p50" not in one


def test_burst_and_sustained_have_columns_and_a_sentence_where_a_load_lasted() -> None:
    stamps = [0.02 * i for i in range(3000)]
    warmup = Warmup(runs=31, seconds=0.5, change=0.0, first_ms=90.0)
    hot = summarise([10.0] * 1000 + [14.0] * 2000, stamps, MeasureOptions(sustained_seconds=60), warmup=warmup)
    text = render_markdown(report(subject(latency=hot)))
    (row,) = (row for table in tables(text) for row in table if "INVALID" in row and row[0] == "ONNX FP32")
    (headings,) = (table[0] for table in tables(text) if "sustained ÷ burst" in table[0])
    told = dict(zip(headings, row, strict=True))
    assert (told["burst p50"], told["sustained p50"], told["sustained ÷ burst"]) == ("10.00", "14.00", "1.400")
    assert "sustained 14 ms in the last third of 60 s (" in text
    assert "samples): sustained ÷ burst 1.400" in text
    assert "sustained" not in render_markdown(report(subject(latency=latency())))


def test_a_machine_with_other_work_is_said_first_and_not_in_a_corner() -> None:
    waited = Channel(
        name="time that programs waited for a processor", kind="seconds", source="/proc/pressure/cpu", limit=0.1, values=(5.0, 17.6)
    )
    crowded = Watched(sampled_s=13.0, times_s=(-0.5, 13.1), channels=(waited,))
    told = render_markdown(report(subject(latency=msgspec.structs.replace(latency(), state=crowded))))
    said = "latency of ONNX FP32 was taken on a machine with other work: time that programs waited for a processor: 12.60 s in 13.0 s"
    assert said in told.partition("\n## ")[0]
    free = msgspec.structs.replace(crowded, channels=(msgspec.structs.replace(waited, values=(5.0, 5.6)),))
    assert "other work" not in render_markdown(report(subject(latency=msgspec.structs.replace(latency(), state=free))))


def difference(feeds: str = "images", max_abs: float = 4.1e-6, reason: str = "", **more: object) -> Difference:
    values: dict[str, object] = {
        "output": "logits",
        "feeds": feeds,
        "samples": 64,
        "max_abs": max_abs,
        "mean_abs": 1e-7,
        "max_rel": 2e-7,
        "cosine": 1 - 1e-9,
        "sqnr": 121.5,
        "floor": 1e-6,
        "tolerance": 8e-6,
        "at": (3, 7),
        "agreement": 1.0,
        "near_ties": 0,
        "passed": not reason,
        "reason": reason,
    }
    return Difference(**{**values, **more})  # type: ignore[arg-type]


def walked(modules: int = 12, first: str | None = None) -> LayerReport:
    found = tuple(
        ModuleDifference(module=f"stages.0.{i}", tensors=2, error=1e-6 * (i + 1), floor=1e-6, inherited=0.0, suspect=False)
        for i in range(modules)
    )
    return LayerReport(samples=2, program_tensors=99, layers=(), modules=found, first=first, verdict="all is well inside")


def subject(name: str = "ONNX FP32", **more: object) -> Subject:
    values: dict[str, object] = {
        "name": name,
        "file": "net.fp32.onnx",
        "sha256": "b" * 64,
        "precision": "fp32",
        "rung": Rung.EXECUTED,
        "conditions": {"runtime": "onnxruntime 1.0", "threads": "3", "precision": "fp32"},
        "bytes": 18_280_658,
    }
    return Subject(**{**values, **more})  # type: ignore[arg-type]


def report(*subjects: Subject, **more: object) -> Report:
    values: dict[str, object] = {
        "command": "run",
        "model": "net",
        "created": "2026-01-02T03:04:05+00:00",
        "lineage": ("checkpoint " + "1" * 64, "program " + "2" * 64),
        "data": {"source": "images of held-out", "samples": "500", "parity": "16 samples and 5 adversarial feeds", "digest": "d" * 64},
        "device": {"device": "local", "processor": "A CPU", "cores": "8"},
        "versions": {"torch": "2.13.0"},
        "subjects": subjects,
    }
    return Report(**{**values, **more})  # type: ignore[arg-type]


def everything() -> Report:
    flip = Flip(image="held-out/3/0042.png", label=3, reference=3, artifact=8, margin=0.02)
    accuracy = Accuracy(
        samples=500, top1=0.976, top5=0.998, agreement=0.998, interval=wilson(488, 500), agreement_interval=wilson(499, 500), flips=(flip,)
    )
    reference = subject("torch FP32", file="", bytes=0, latency=latency(median=40.0))
    gates = verdict([at_least("net.fp32.onnx: agreement", 0.998, 1.0)])
    full = subject(
        parity=(difference(), difference("zeros")), accuracy=accuracy, latency=latency(), layers=walked(), verdict=gates, notes=("a note",)
    )
    return report(reference, full, verdict=gates, notes=("weights are seeded",))


def tables(text: str) -> list[list[list[str]]]:
    """Rows of the cells of every table, as GitHub would show them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and token.level == 4 and found:
            children = token.children or []
            found[-1][-1].append("".join(child.content if child.type in ("text", "text_special") else "" for child in children))
    return found


class TestWhatIsSaid:
    def test_the_verdict_comes_first_and_then_the_failed_gates(self) -> None:
        lines = render_markdown(everything()).splitlines()
        assert lines[0] == "# run of net"
        assert lines[2] == "❌ **FAIL**: 1 of 1 gate failed: net.fp32.onnx: agreement"
        assert lines.index("> **Note:** weights are seeded") < lines.index("## Failed gates") < lines.index("## Summary")

    def test_a_report_that_nothing_was_asked_of_claims_no_pass(self) -> None:
        assert "PASS" not in render_markdown(report(subject()))
        assert "**NO VERDICT**" in render_markdown(report(subject()))

    def test_the_summary_has_every_headline_figure_of_every_subject(self) -> None:
        _, answers, costs, *_ = tables(render_markdown(everything()))
        assert answers[0] == ["", "top-1", "agreement", "max |Δ|", "tolerance", "cosine", "SQNR dB", "rung", "gates"]
        assert answers[2] == [
            "ONNX FP32", "97.60% [95.9–98.6%]", "99.80%", "4.10e-06", "8.00e-06", "0.999999999", "121.5", "executed", "1 failed",
        ]  # fmt: skip
        assert costs[0] == ["", "p50 ms", "p90 ms", "load ms", "first ms", "peak MiB", "size MB", "threads", "rung"]
        assert costs[2] == ["ONNX FP32", "20.02", "20.04", "123.40", "55.50", "321", "18.28", "3", "executed"]

    def test_figures_carry_their_samples_rung_and_conditions(self) -> None:
        text = render_markdown(everything())
        assert "parity on 16 samples and 5 adversarial feeds of images of held-out; on A CPU, device local, cores 8" in text
        assert "ONNX FP32, output 'logits', executed: runtime onnxruntime 1.0 · threads 3 · precision fp32" in text
        assert "(2 samples, 0 of 99 program tensors, executed)" in text
        for origin in ("1" * 64, "2" * 64, "b" * 64, "d" * 64, "2.13.0", "a note"):
            assert origin in text

    def test_a_latency_is_set_against_the_reference_of_the_same_rounds(self) -> None:
        assert "0.500 (0.500–0.500)" in render_markdown(everything())

    def test_an_invalid_latency_is_marked_wherever_it_is_read(self) -> None:
        text = render_markdown(report(subject(latency=latency(samples=10))))
        assert "> **Note:** INVALID latency: ONNX FP32 (too few samples); the section on latency says why" in text
        assert "ONNX FP32: INVALID; too few samples: 10 of 64" in text
        assert "20.02 ?" in text

    def test_a_failed_output_says_why(self) -> None:
        text = render_markdown(report(subject(parity=(difference(max_abs=math.inf, reason="3 of 10 values are NaN or infinite"),))))
        assert "ONNX FP32, 'logits' on images: 3 of 10 values are NaN or infinite." in text
        assert tables(text)[2][1][:4] == ["images", "FAIL", "64", "∞"]

    def test_of_many_modules_the_ten_furthest_above_their_floor_are_listed(self) -> None:
        (modules,) = [rows for rows in tables(render_markdown(everything())) if rows[0][0] == "module"]
        assert [row[0] for row in modules[1:]] == [f"stages.0.{i}" for i in range(11, 1, -1)]

    def test_subjects_of_one_name_are_told_apart(self) -> None:
        text = render_markdown(report(subject(file="a.onnx"), subject(file="b.onnx"), subject(file="b.onnx")))
        assert [row[0] for row in tables(text)[0][1:]] == ["ONNX FP32 (a.onnx)", "ONNX FP32 (b.onnx)", "ONNX FP32 (b.onnx) #2"]

    @pytest.mark.parametrize(
        "found",
        [
            report(),
            report(data={}, device={}, versions={}, lineage=()),
            report(subject()),
            report(subject(conditions={})),
            report(subject(layers=walked(0))),
            report(subject(layers=walked(900))),
            report(subject(parity=(difference(agreement=None),))),
            report(subject(parity=(difference(sqnr=-math.inf, cosine=-1.0, floor=math.inf, tolerance=math.inf),))),
            report(subject(accuracy=Accuracy(samples=3))),
            report(subject(precision="int4", layers=walked())),
        ],
    )
    def test_what_is_absent_or_infinite_leaves_no_hole(self, found: Report) -> None:
        text = render_markdown(found)
        assert all(len({len(row) for row in rows}) == 1 for rows in tables(text))
        assert "None" not in text
        assert "nan" not in text


def test_the_summary_has_the_sqnr_that_the_limit_is_on() -> None:
    """The worst feed of noise says nothing of images, and the terminal shows those."""
    mixed = subject(parity=(difference(sqnr=29.4, tolerance=None, least_sqnr=10.0), difference("noise", sqnr=12.6)))
    assert (real_sqnr(mixed), real_sqnr(subject(parity=(difference("noise", sqnr=12.6),)))) == (29.4, 12.6)


class TestNothingActs:
    def test_a_hostile_name_is_shown_and_does_nothing(self) -> None:
        found = report(
            subject(
                HOSTILE,
                file=HOSTILE,
                notes=(HOSTILE,),
                conditions={HOSTILE: HOSTILE},
                parity=(difference(HOSTILE, output=HOSTILE), difference(HOSTILE, output="other")),
                accuracy=Accuracy(samples=1, agreement=0.0, flips=(Flip(image=HOSTILE, label=None, reference=0, artifact=1, margin=0.0),)),
                layers=msgspec.structs.replace(walked(), verdict=HOSTILE),
                verdict=verdict([holds(HOSTILE, False, HOSTILE)]),
            ),
            model=HOSTILE,
            notes=(HOSTILE,),
            data={HOSTILE: HOSTILE},
            verdict=verdict([holds(HOSTILE, False, HOSTILE)]),
        )
        rendered = MarkdownIt("commonmark").enable("table").render(render_markdown(found))
        for element in ("<script", "<a ", "<code", "<em", "<img"):
            assert element not in rendered
        assert rendered.count("<h1>") == 1
        assert rendered.count(html.escape(plain(HOSTILE), quote=False)) > 10

    @pytest.mark.parametrize(
        ("text", "pages"),
        [
            ("a|b leaves it (https://apple.com/a_b_c.html#d, https://e.org/f).", ["https://apple.com/a_b_c.html#d", "https://e.org/f"]),
            ("http://evil.example/x javascript:alert(1) https://apple.com@evil.example/x https://[::1]/x https://evil.example", []),
            ('https://a.org/"><script>alert(1)</script>', ["https://a.org/"]),
        ],
    )
    def test_a_note_s_sources_are_links_and_nothing_else_is(self, text: str, pages: list[str]) -> None:
        said = render_markdown(report(subject(notes=(text, "another"))))
        assert [[row[0] for row in rows] for rows in tables(said) if rows[0][-1] == "note"] == [["artefact", "ONNX FP32", "ONNX FP32"]]
        assert re.findall('<a href="(.*?)"', MarkdownIt("commonmark").enable("table").render(said)) == pages

    @given(st.text(st.characters(codec="utf-8"), max_size=60))
    def test_any_text_comes_out_of_a_table_as_it_went_in(self, text: str) -> None:
        shown = plain(text)
        ((_, row),) = tables(f"| a | b |\n|---|---|\n| {escaped(shown)} | end |\n")
        assert [cell.split() for cell in row] == [shown.split(), ["end"]]


class TestWriting:
    @pytest.fixture
    def no_jinja(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "jinja2", None)

    @pytest.mark.usefixtures("no_jinja")
    def test_without_the_extra_the_data_and_the_text_are_written(self, tmp_path: Path) -> None:
        (tmp_path / "report.html").write_text("of an older run")
        assert write_report(everything(), tmp_path) == (tmp_path / "report.json", tmp_path / "report.md")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
        assert (tmp_path / "report.md").read_text() == render_markdown(everything())

    @pytest.mark.usefixtures("no_jinja")
    def test_asked_for_html_without_the_extra_the_remedy_is_named(self) -> None:
        with pytest.raises(MissingError) as caught:
            render_html(everything())
        assert caught.value.remedy == "pip install 'dtvit-deploy[report]'"

    @pytest.mark.usefixtures("no_jinja")
    def test_the_data_are_read_again_as_they_were(self, tmp_path: Path) -> None:
        write_report(everything(), tmp_path)
        again = read_json(tmp_path / "report.json", Report)
        assert again == everything()
        assert render_markdown(again) == render_markdown(everything())

    @pytest.mark.usefixtures("no_jinja")
    def test_what_json_cannot_hold_is_written_and_read_all_the_same(self, tmp_path: Path) -> None:
        odd = report(subject(file="caf\udce9.onnx", parity=(difference(sqnr=math.inf, max_abs=math.inf, mean_abs=math.nan, reason="NaN"),)))
        write_report(odd, tmp_path)
        again = read_json(tmp_path / "report.json", Report)
        assert again.subjects[0].file == "caf\\udce9.onnx"
        assert again.subjects[0].parity[0].sqnr == sys.float_info.max
        assert "∞" in render_markdown(again)

    def test_nothing_is_left_where_it_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError):
            write_report(everything(), tmp_path / "file")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_data_are_plain_values(self) -> None:
        assert as_data(everything())["subjects"][0]["rung"] == "executed"

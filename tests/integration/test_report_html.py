"""The report in HTML is one file that shows everything, fetches nothing and runs nothing."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import MissingError
from dtvit_deploy.harness.accuracy import Accuracy, Flip, wilson
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.layers import LayerReport, ModuleDifference
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.verdict import holds, verdict
from dtvit_deploy.report import as_data, write_report
from dtvit_deploy.report.figures import plain
from dtvit_deploy.report.html import render_html
from dtvit_deploy.report.schema import Report, Subject

HOSTILE = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>]]>&amp;\"'$x$\n\0\u202e漢字"


class Page(HTMLParser):
    """What a browser would find in a page: elements, identifiers, references, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "data", "action", "xlink:href"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            for part in (value or "").split("url(")[1:]:
                self.references.append(part.partition(")")[0])

    def handle_data(self, data: str) -> None:
        self.text += data


def latency(median: float = 20.0, samples: int = 100, stamped: bool = True) -> Measurement:
    noise = random.Random(0)
    times = [median * (1 + 0.02 * noise.random()) for _ in range(samples)]
    stamps = [0.05 * i if stamped else 0.0 for i in range(samples)]
    return summarise(times, stamps, MeasureOptions(), warmup=Warmup(runs=31, seconds=0.5, change=0.0, first_ms=50.0))


def lasting(median: float, samples: int) -> Measurement:
    """Under a load that was to last a minute."""
    stamps = [0.02 * i for i in range(samples)]
    warmup = Warmup(runs=31, seconds=0.5, change=0.0, first_ms=50.0)
    return summarise([median] * samples, stamps, MeasureOptions(sustained_seconds=60), warmup=warmup)


def difference(feeds: str, max_abs: float, tolerance: float = 8e-6, output: str = "logits") -> Difference:
    return Difference(
        output=output, feeds=feeds, samples=8, max_abs=max_abs, mean_abs=max_abs, max_rel=max_abs, cosine=1.0, sqnr=math.inf,
        floor=tolerance / 8, tolerance=tolerance, at=(0, 1), agreement=1.0, near_ties=0, passed=max_abs <= tolerance,
    )  # fmt: skip


def walked(errors: list[float], prefix: str = "stages.0.block") -> LayerReport:
    modules = tuple(
        ModuleDifference(module=f"{prefix}.{i}", tensors=1, error=error, floor=1e-7, inherited=0.0, suspect=not error < 1e-3)
        for i, error in enumerate(errors)
    )
    first = next((one.module for one in modules if one.suspect), None)
    return LayerReport(
        samples=2, program_tensors=len(errors), layers=(), modules=modules, first=first, verdict=f"the error arises in {first}"
    )


def subject(name: str = "ONNX FP32", **more: object) -> Subject:
    values: dict[str, object] = {
        "name": name,
        "file": "net.onnx",
        "sha256": "b" * 64,
        "precision": "fp32",
        "rung": Rung.EXECUTED,
        "conditions": {"runtime": "onnxruntime 1.0", "threads": "1"},
        "bytes": 1_000_000,
    }
    return Subject(**{**values, **more})  # type: ignore[arg-type]


def report(*subjects: Subject, **more: object) -> Report:
    values: dict[str, object] = {
        "command": "run",
        "model": "net",
        "created": "2026-01-02T03:04:05+00:00",
        "lineage": ("checkpoint " + "1" * 64,),
        "data": {"source": "images of held-out", "samples": "500"},
        "device": {"processor": "A CPU"},
        "versions": {"torch": "2.13.0"},
        "subjects": subjects,
    }
    return Report(**{**values, **more})  # type: ignore[arg-type]


def full(name: str = "ONNX FP32") -> Report:
    flips = (Flip(image=f"{name}/1.png", label=1, reference=1, artifact=7, margin=0.1),)
    accuracy = Accuracy(
        samples=500, top1=0.976, agreement=0.998, interval=wilson(488, 500), agreement_interval=wilson(499, 500), flips=flips
    )
    gates = verdict([holds(f"{name}: parity", False, f"{name} is too far off")])
    artefact = subject(
        name,
        parity=(difference("images", 4e-6), difference("zeros", 0.0), difference(name, math.inf)),
        accuracy=accuracy,
        latency=latency(),
        layers=walked([1e-7, 0.0, 1e-6, 0.1, math.inf], f"stages.{name}"),
        verdict=gates,
    )
    reference = subject("torch FP32", file="", bytes=0, latency=latency(40.0), accuracy=Accuracy(samples=500, top1=0.976))
    return report(reference, artefact, verdict=gates, notes=(name,), model=name)


class TestOneFile:
    def test_everything_that_was_measured_has_its_picture(self) -> None:
        page = Page(render_html(full()))
        assert page.elements.count("svg") == page.elements.count("figure") == 4
        for text in (
            "✗ FAIL",
            "97.60%",
            "4.00e-06",
            "arises in stages.ONNX FP32.3",
            "max |Δ|, beyond",
            "seconds since sampling began",
            "10⁻⁵",
        ):
            assert text in page.text

    def test_nothing_is_fetched_and_nothing_runs(self) -> None:
        text = render_html(full())
        page = Page(text)
        assert not set(page.elements) & {"script", "link", "iframe", "object", "img", "foreignobject"}
        assert all(reference.startswith("#") for reference in page.references)
        assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
        assert page.handlers == []

    def test_identifiers_are_unique_and_every_reference_leads_somewhere(self) -> None:
        page = Page(render_html(full()))
        assert len(page.ids) == len(set(page.ids))
        assert {reference[1:] for reference in page.references} <= set(page.ids)
        assert len(page.references) > 20

    def test_identifiers_are_counted_and_no_hashes_of_numbers_that_differ_by_a_bit(self) -> None:
        drawn = [name for svg in re.findall(r"<svg.*?</svg>", render_html(full()), re.DOTALL) for name in re.findall(r' id="([^"]+)"', svg)]
        assert len(drawn) > 50
        assert all(re.fullmatch(r"[a-z0-9-]+-\d+", name) for name in drawn)

    def test_hostile_names_are_shown_and_do_nothing(self) -> None:
        text = render_html(full(HOSTILE))
        page = Page(text)
        assert sorted(set(page.elements)) == sorted(set(Page(render_html(full())).elements))
        assert page.handlers == []
        assert page.text.count(plain(HOSTILE)) > 5
        assert "\0" not in text
        assert "\u202e" not in text

    def test_a_note_s_sources_are_links(self) -> None:
        note = 'it leaves (https://apple.com/a.html?b=1&c; http://e.org/f) https://a.org/"onclick="alert(1)'
        page = Page(render_html(report(subject(notes=(note,)))))
        found = [one for one in page.references if not one.startswith("#")]
        assert (found, page.handlers) == (["https://apple.com/a.html?b=1&c", "https://a.org/"], [])
        assert note in page.text

    def test_it_is_written_beside_the_data(self, tmp_path: Path) -> None:
        written = write_report(full(), tmp_path / "out")
        assert [path.name for path in written] == ["report.json", "report.md", "report.html"]
        assert (tmp_path / "out" / "report.html").read_text("utf-8") == render_html(full())


class TestEqualReportsGiveEqualBytes:
    def test_in_one_process_whatever_was_drawn_before(self) -> None:
        first = render_html(full())
        render_html(full(HOSTILE))
        assert render_html(full()) == first

    def test_after_the_data_were_written_and_read_again(self) -> None:
        again = msgspec.json.decode(msgspec.json.encode(as_data(full()), order="sorted"), type=Report)
        assert render_html(again) == render_html(full())

    def test_in_another_process_whose_user_set_matplotlib_otherwise(self, tmp_path: Path) -> None:
        (tmp_path / "matplotlibrc").write_text(
            "font.size: 20\nlegend.fontsize: 30\nxtick.direction: in\nsvg.fonttype: path\ntext.parse_math: True\n"
        )
        (tmp_path / "report.json").write_text(json.dumps(as_data(full())))
        code = (
            "import sys; from pathlib import Path; from dtvit_deploy.artifacts.artifact import read_json;"
            "from dtvit_deploy.report.schema import Report; from dtvit_deploy.report.html import render_html;"
            "sys.stdout.buffer.write(render_html(read_json(Path('report.json'), Report)).encode())"
        )
        environment = os.environ | {"MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "0", "TZ": "Asia/Tokyo"}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
        assert done.stdout.decode() == render_html(full())


@pytest.mark.parametrize(
    ("found", "pictures"),
    [
        (report(), 0),
        (report(data={}, device={}, versions={}, lineage=()), 0),
        (report(subject()), 0),
        (report(subject(latency=latency(samples=1))), 1),
        (report(subject(latency=latency(samples=63))), 1),
        (report(subject(latency=latency(samples=661)), subject(latency=latency(samples=7000))), 1),
        (report(subject(latency=latency(samples=5000))), 1),
        (report(subject(latency=latency(0.0))), 1),
        (report(subject(latency=lasting(20.0, 3000)), subject(latency=lasting(20.0, 3))), 1),
        (report(subject(latency=lasting(0.0, 3000))), 1),
        (report(subject(latency=latency(stamped=False))), 1),
        (report(subject("a", latency=latency(0.01)), subject("b", latency=latency(3000.0))), 1),
        (report(subject(latency=latency(1e300))), 0),
        (report(subject(parity=(difference("zeros", 0.0, 0.0),))), 1),
        (report(subject(parity=(difference("zeros", math.inf, math.inf),))), 1),
        (report(subject(parity=(difference("zeros", 5e-324, sys.float_info.max),))), 1),
        (report(subject(parity=tuple(difference("images", 1e-6 * i, output=f"o{i}") for i in range(100)))), 1),
        (report(subject(layers=walked([0.0] * 5))), 1),
        (report(subject(layers=walked([math.inf] * 5))), 1),
        (report(subject(layers=walked([]))), 0),
        (report(subject(layers=walked([1e-6]))), 1),
        (report(subject(layers=walked([1e-6 * (i + 1) for i in range(900)], "encoder." * 12 + "block"))), 1),
        (report(subject(accuracy=Accuracy(samples=1))), 0),
        (report(subject(accuracy=Accuracy(samples=1, top1=1.0))), 1),
        (report(subject(accuracy=Accuracy(samples=1, top1=1e300, interval=(-1e300, 1e300)))), 1),
        (report(*(subject(f"subject {i}", latency=latency(samples=70)) for i in range(12))), 1),
    ],
)
def test_reports_with_little_or_odd_figures_render(found: Report, pictures: int) -> None:
    page = Page(render_html(found))
    assert page.elements.count("svg") == pictures
    assert page.elements.count("h1") == 1
    assert "nan" not in page.text.lower().split()


def test_all_modules_are_in_the_page_and_the_many_are_folded_away() -> None:
    page = Page(render_html(report(subject(layers=walked([1e-6] * 900)))))
    assert page.elements.count("details") == 1
    assert "stages.0.block.899" in page.text


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError) as caught:
        render_html(full())
    assert caught.value.remedy == "pip install 'dtvit-deploy[report]'"

"""INT8 in the HTML report: its pictures, the photos of flips, and nothing that acts."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import msgspec
import pytest

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.calibration.ranges import Convergence, Settling
from dtvit_deploy.harness.accuracy import Accuracy, Flip
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.search import ModuleFigures, Search, Trial
from dtvit_deploy.report.html import render_html
from dtvit_deploy.report.schema import Calibration, Report, Subject

HOSTILE = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'$x$"


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def convergence(*images: int, change: float = 0.2) -> tuple[Convergence, ...]:
    settled = Settling(median=change / 10, p95=change)
    return tuple(Convergence(images=count, minmax=settled, percentile=settled, entropy=settled, mse=settled) for count in images)


def searched(modules: tuple[ModuleFigures, ...], in_float: tuple[str, ...] = ()) -> Search:
    trial = Trial(in_float=in_float, agreement=1.0, sqnr=40.0)
    return Search(in_float=in_float, reached=True, goal=0.99, samples=8, modules=modules, trials=(trial,), reason="so it was found")


def modules(count: int, **more: float | None) -> tuple[ModuleFigures, ...]:
    found = tuple(ModuleFigures(module=f"stages.{i}.mlp", sqnr=40.0 + i, gain_ms=0.01 * (i - 3)) for i in range(count))
    return tuple(msgspec.structs.replace(one, **more) for one in found)


def report(search: Search | None = None, curve: tuple[Convergence, ...] = (), name: str = "INT8", flips: tuple[Flip, ...] = ()) -> Report:
    subject = Subject(
        name=name, file=name, sha256="b" * 64, precision="int8", rung=Rung.EXECUTED, conditions={}, search=search,
        accuracy=Accuracy(samples=8, flips=flips) if flips else None,
    )  # fmt: skip
    calibration = Calibration(ranges="c" * 64, source=name, samples=300, synthetic=True, conclusion=name, convergence=curve)
    return Report(
        command="run", model="net", created="now", lineage=(), data={}, device={}, versions={}, subjects=(subject,),
        calibration=calibration, recommendations=(Recommendation(runtime=name, file=name, reason=name),),
    )  # fmt: skip


class TestPictures:
    def test_convergence_and_sensitivity_are_drawn(self) -> None:
        page = Page(render_html(report(searched(modules(9), ("stages.1.mlp",)), convergence(8, 16, 32))))
        assert len(page.all("svg")) == len(page.all("figure")) == 2
        for text in ("settled below 5%", "entropy", "all 32 images", "left in float", "the noisiest", "1  stages.0.mlp", "6  stages.5.mlp"):
            assert text in page.text
        assert "7  stages.6.mlp" not in page.text

    def test_what_is_left_in_float_is_drawn_hollow(self) -> None:
        none, one = (render_html(report(searched(modules(3), kept))) for kept in ((), ("stages.1.mlp",)))
        assert "left in float" not in Page(none).text
        assert "left in float" in Page(one).text
        assert one.count("fill: #ffffff") > none.count("fill: #ffffff")

    def test_modules_whose_gain_is_not_known_are_counted_and_not_drawn(self) -> None:
        page = Page(render_html(report(searched((*modules(3), ModuleFigures(module="head", sqnr=50.0))))))
        assert "1 whose gain was not measured are not drawn" in page.text

    @pytest.mark.parametrize(
        ("found", "pictures"),
        [
            (report(), 0),
            (report(curve=convergence(300)), 0),  # the ranges of all images compared with themselves
            (report(curve=convergence(1, 2)), 1),
            (report(curve=convergence(8, 16, change=0.0)), 1),
            (report(curve=convergence(8, 16, change=1e308)), 1),
            (report(searched(())), 0),
            (report(searched(modules(1))), 1),
            (report(searched(modules(5, gain_ms=None))), 0),
            (report(searched(modules(5, sqnr=200.0, gain_ms=0.0))), 1),
            (report(searched(modules(5, sqnr=-1e9, gain_ms=1e9))), 1),
            (report(searched(modules(400))), 1),
        ],
    )
    def test_little_or_odd_figures_render(self, found: Report, pictures: int) -> None:
        page = Page(render_html(found))
        assert len(page.all("svg")) == pictures
        assert "nan" not in page.text.lower().split()

    def test_a_difference_without_tolerance_is_not_drawn_beside_one(self) -> None:
        held = Difference(
            output="logits", feeds="images", samples=8, max_abs=0.5, mean_abs=0.1, max_rel=0.1, cosine=0.999, sqnr=25.3, floor=None,
            tolerance=None, least_sqnr=20.0, at=(0,), agreement=1.0, near_ties=0, passed=True,
        )  # fmt: skip
        found = report()
        page = Page(render_html(msgspec.structs.replace(found, subjects=(msgspec.structs.replace(found.subjects[0], parity=(held,)),))))
        assert page.all("svg") == []
        assert "None" not in page.text

    def test_equal_reports_give_equal_bytes(self) -> None:
        found = report(searched(modules(9)), convergence(8, 16))
        assert render_html(found) == render_html(found)


class TestSections:
    def test_ship_follows_the_summary_and_all_modules_are_folded_away(self) -> None:
        page = Page(render_html(report(searched(modules(30)), convergence(8, 16))))
        assert [one["id"] for one in page.all("section")][:2] == ["summary", "ship"]
        assert len(page.all("details")) == 2  # the curve as figures, and the modules
        assert "stages.29.mlp" in page.text

    def test_random_numbers_are_told_of_at_the_top(self) -> None:
        text = render_html(report())
        assert text.index("RANDOM NUMBERS") < text.index("<section")

    def test_hostile_names_are_shown_and_do_nothing(self) -> None:
        named = (ModuleFigures(module=HOSTILE, sqnr=1.0, gain_ms=1.0),)
        page = Page(render_html(report(searched(named, (HOSTILE,)), convergence(8, 16), HOSTILE)))
        assert not {tag for tag, _ in page.elements} & {"script", "img"}
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert page.text.count(HOSTILE) > 5


class TestPhotos:
    def png(self) -> str:
        from PIL import Image

        written = io.BytesIO()
        Image.new("RGB", (4, 4), (255, 0, 0)).save(written, "PNG")
        return base64.b64encode(written.getvalue()).decode()

    def flip(self, picture: str, margin: float = 0.1) -> Flip:
        return Flip(image="held-out/1.png", label=1, reference=1, artifact=7, margin=margin, picture=picture)

    def test_a_flip_is_shown_with_its_picture_from_inside_the_page(self) -> None:
        picture = self.png()
        page = Page(render_html(report(flips=(self.flip(picture), self.flip("")))))
        assert [one["src"] for one in page.all("img")] == [f"data:image/png;base64,{picture}"]
        assert "INT8: 1 → 7, label 1" in page.text

    def test_the_ten_most_decided_are_shown(self) -> None:
        page = Page(render_html(report(flips=tuple(self.flip(self.png(), margin=i) for i in range(15)))))
        assert len(page.all("img")) == 10

    def test_the_page_may_load_images_from_itself_alone(self) -> None:
        (policy,) = (one["content"] for one in Page(render_html(report())).all("meta") if "http-equiv" in one)
        rules = dict(rule.split(maxsplit=1) for rule in (policy or "").split(";"))
        assert rules == {"default-src": "'none'", "style-src": "'unsafe-inline'", "img-src": "data:"}

    def test_a_picture_that_breaks_out_of_its_quotes_would_still_do_nothing(self) -> None:
        """The schema refuses it where a report is read; the page escapes it all the same."""
        page = Page(render_html(report(flips=(self.flip('"><script>alert(1)</script>'),))))
        assert page.all("script") == []
        assert all((one["src"] or "").startswith("data:image/png;base64,") for one in page.all("img"))

"""What a report says of INT8: what to ship, what it was calibrated on, which modules stay in float and why."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.calibration.ranges import Convergence, Settling
from dtvit_deploy.cli import show
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.search import ModuleFigures, Search, Trial
from dtvit_deploy.report.content import Content, content
from dtvit_deploy.report.int8 import MOST_NAMED
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Calibration, Report, Subject
from dtvit_deploy.report.tables import Section

SHIPPED = Recommendation(runtime="openvino", file="net.int8.openvino", reason="ONE: it keeps top-1 and takes half the time")


def curve(*images: int) -> tuple[Convergence, ...]:
    def point(count: int) -> Convergence:
        settled = Settling(median=0.001, p95=(images[-1] - count) / images[-1])
        return Convergence(images=count, minmax=settled, percentile=settled, entropy=settled, mse=settled)

    return tuple(map(point, images))


CALIBRATION = Calibration(
    ranges="c" * 64, source="the images in train", samples=300, synthetic=False, conclusion="300 images are enough.",
    convergence=curve(150, 300),
)  # fmt: skip


def search(count: int = 12, in_float: tuple[str, ...] = ("block.0", "block.1"), **more: object) -> Search:
    """Modules block.0, block.1, … of which each is noisier than the one before."""
    values: dict[str, object] = {
        "in_float": in_float,
        "reached": True,
        "goal": 0.99,
        "samples": 128,
        "modules": tuple(ModuleFigures(module=f"block.{i}", sqnr=90.0 - i, gain_ms=0.01 * (i - 2)) for i in range(count)),
        "trials": (Trial(in_float=(), agreement=0.5, sqnr=12.0), Trial(in_float=in_float, agreement=1.0, sqnr=33.3)),
        "reason": "2 of 12 modules stay in float",
    }
    return Search(**{**values, **more})  # type: ignore[arg-type]


def subject(found: Search | None = None, name: str = "ONE", **more: object) -> Subject:
    return Subject(
        name=name, file="net.int8.openvino", sha256="b" * 64, precision="int8", rung=Rung.EXECUTED, conditions={}, search=found,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def report(*subjects: Subject, **more: object) -> Report:
    facts: dict[str, object] = {"lineage": (), "data": {}, "device": {}, "versions": {}}
    return Report(command="run", model="net", created="now", subjects=subjects, **{**facts, **more})  # type: ignore[arg-type]


def part(said: Content, key: str) -> Section:
    (found,) = (section for section in said.sections if section.key == key)
    return found


def rows(section: Section, first: str) -> list[tuple[str, ...]]:
    """Of the section's first table whose first column has this heading."""
    return next(table.rows for table in section.tables if table.columns[0].heading == first)


class TestWhatToShip:
    def test_it_stands_right_after_the_summary(self) -> None:
        keys = [section.key for section in content(report(subject(), recommendations=(SHIPPED,))).sections]
        assert keys[:2] == ["summary", "ship"]

    def test_every_runtime_has_its_row_and_none_that_is_sound_is_marked(self) -> None:
        nothing = Recommendation(runtime="onnxruntime", file="", reason="no float artefact is sound")
        (found,) = part(content(report(recommendations=(SHIPPED, nothing))), "ship").tables
        assert found.rows == [("OpenVINO", SHIPPED.file, SHIPPED.reason), ("onnxruntime", "nothing", "no float artefact is sound")]
        assert found.failed == {1}

    def test_a_run_without_int8_says_nothing_of_it(self) -> None:
        keys = {section.key for section in content(report(subject())).sections}
        assert not keys & {"ship", "int8"}


class TestCalibration:
    def test_it_names_its_images_its_digest_and_whether_they_are_enough(self) -> None:
        found = part(content(report(calibration=CALIBRATION)), "int8")
        assert found.sentences == ("300 images are enough.",)
        assert rows(found, "source") == [("the images in train", "real", "300", "c" * 64)]
        assert rows(found, "images") == [("150", *["50.0%"] * 4), ("300", *["0.0%"] * 4)]

    def test_random_numbers_are_told_of_before_anything_else(self) -> None:
        stained = msgspec.structs.replace(CALIBRATION, synthetic=True)
        said = content(report(calibration=stained, notes=("weights are seeded",)))
        assert "RANDOM NUMBERS" in said.notes[0]
        assert "RANDOM NUMBERS" in part(said, "int8").sentences[0]
        assert part(said, "int8").tables[0].failed == {0}
        text = render_markdown(report(calibration=stained))
        assert text.index("RANDOM NUMBERS") < text.index("##")

    def test_real_images_leave_no_stain(self) -> None:
        assert "RANDOM NUMBERS" not in render_markdown(report(calibration=CALIBRATION))


class TestSearch:
    def test_the_reason_and_the_modules_are_in_words(self) -> None:
        found = part(content(report(subject(search()))), "int8")
        assert found.sentences == (
            "ONE: 2 of 12 modules stay in float. Each trial was evaluated on 128 samples.",
            "ONE, in float: block.0, block.1.",
        )

    def test_a_parent_stands_for_its_modules_where_all_of_them_are_in_float(self) -> None:
        everything = tuple(f"block.{i}" for i in range(12))
        assert "ONE, in float: block." in part(content(report(subject(search(in_float=everything)))), "int8").sentences

    def test_of_many_modules_some_are_named_and_the_rest_counted(self) -> None:
        many = tuple(f"block.{i}" for i in range(MOST_NAMED + 5))
        sentence = part(content(report(subject(search(40, many)))), "int8").sentences[-1]
        assert sentence.count("block.") == MOST_NAMED
        assert sentence.endswith(" and 5 more.")

    def test_the_ten_noisiest_are_listed_and_all_are_folded_away(self) -> None:
        found = part(content(report(subject(search()))), "int8")
        few, every = (table for table in found.tables if table.columns[0].heading == "module")
        assert [row[0] for row in few.rows] == [f"block.{i}" for i in range(11, 1, -1)]
        assert (few.long, every.long) == (False, True)
        assert every.rows[-1] == ("block.0", "90.0", "−0.020", "float")
        assert every.rows[0] == ("block.11", "79.0", "+0.090", "INT8")

    def test_ten_modules_need_no_second_table(self) -> None:
        found = part(content(report(subject(search(10)))), "int8")
        assert sum(table.columns[0].heading == "module" for table in found.tables) == 1

    def test_every_trial_says_whether_it_reaches_the_goal_and_which_was_chosen(self) -> None:
        found = rows(part(content(report(subject(search()))), "int8"), "trial")
        assert found == [("1", "0", "50.00%", "12.0", "misses the goal"), ("2", "2", "100%", "33.3", "reaches the goal; chosen")]

    def test_without_scores_the_goal_is_a_ratio(self) -> None:
        trials = (Trial(in_float=(), agreement=None, sqnr=25.0), Trial(in_float=("block.0",), agreement=None, sqnr=31.0))
        found = rows(part(content(report(subject(search(goal=30.0, trials=trials, in_float=("block.0",))))), "int8"), "trial")
        assert [row[-1] for row in found] == ["misses the goal", "reaches the goal; chosen"]
        assert len(found[0]) == 4  # nobody has an agreement, so there is no column for it

    def test_gains_that_were_not_measured_leave_no_hole(self) -> None:
        untimed = tuple(ModuleFigures(module=f"m{i}", sqnr=50.0) for i in range(3))
        text = render_markdown(report(subject(search(modules=untimed, in_float=()))))
        assert "gain ms" not in text
        assert "None" not in text

    def test_each_subject_has_its_own(self) -> None:
        text = render_markdown(report(subject(search()), subject(search(), name="TWO"), calibration=CALIBRATION))
        assert text.count("## INT8") == 1
        assert "TWO: what was tried, in order" in text


def test_int8_has_neither_floor_nor_tolerance_and_that_leaves_no_hole(capsys: pytest.CaptureFixture[str]) -> None:
    held = Difference(
        output="logits", feeds="images", samples=8, max_abs=0.5, mean_abs=0.1, max_rel=0.1, cosine=0.999, sqnr=25.3, floor=None,
        tolerance=None, least_sqnr=20.0, at=(0, 1), agreement=1.0, near_ties=0, passed=True,
    )  # fmt: skip
    found = report(subject(parity=(held,)))
    text = render_markdown(found)
    assert "None" not in text
    assert "| images | pass | 8 | 5.00e-01 | 20.0 |" in text
    show.report(found)
    assert "SQNR ≥ 20 dB" in capsys.readouterr().out


class TestTerminal:
    def test_what_to_ship_follows_the_table_in_one_line_for_each_runtime(self, capsys: pytest.CaptureFixture[str]) -> None:
        nothing = Recommendation(runtime="onnxruntime", file="", reason="no float artefact is sound \x1b[2J")
        long = msgspec.structs.replace(SHIPPED, reason="word " * 60 + "end")
        show.report(report(subject(), recommendations=(long, nothing)))
        said = capsys.readouterr().out.splitlines()
        assert said[-2] == f"ship for OpenVINO: {SHIPPED.file}: {long.reason}"  # a pipe gets it whole
        assert said[-1] == "ship for onnxruntime: nothing: no float artefact is sound �[2J"

    def test_at_a_terminal_it_breaks_between_words(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(Console, "is_terminal", True)
        show.report(report(recommendations=(msgspec.structs.replace(SHIPPED, reason="reason " * 60),)))
        said = capsys.readouterr().out
        at = said.index("ship for OpenVINO")
        lines = said[at:].rstrip().splitlines()
        assert len(lines) > 2
        assert all(line.split()[-1] == "reason" for line in lines)

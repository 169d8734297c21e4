"""INT8 in a report: what to ship, what the ranges were calibrated on, and why which modules stay in float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import ENOUGH
from dtvit_deploy.harness.search import readable
from dtvit_deploy.plural import counted, some
from dtvit_deploy.report import figures
from dtvit_deploy.report.figures import ABSENT
from dtvit_deploy.report.tables import Section, Table, amounts, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.search import ModuleFigures, Search, Trial
    from dtvit_deploy.report.schema import Calibration, Report, Subject

NOISIEST = 10
"""Modules that are listed; a folded table has all."""
MOST_NAMED = 12
"""Modules in float that a sentence names; the folded table marks all."""
SYNTHETIC = (
    "INT8 WAS CALIBRATED ON RANDOM NUMBERS, not on images: its ranges serve to try things out, and nothing that is made from them is right"
)


def shipping(report: Report) -> Section | None:
    """One row for each runtime that has an INT8 artefact."""
    found = report.recommendations
    columns = (
        words("runtime", (one.place for one in found)),
        words("ship", (one.ship for one in found)),
        words("because", (one.reason for one in found)),
    )
    nothing = (index for index, one in enumerate(found) if one.decided and not one.file)
    return section("ship", "What to ship", (), (table("", columns, nothing),))


def int8(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """The calibration, and the search of every subject that had one."""
    sentences, tables = [], []
    if report.calibration is not None:
        if report.calibration.synthetic:
            sentences.append(f"{SYNTHETIC}.")
        sentences.append(report.calibration.conclusion)
        tables += _calibration(report.calibration)
    for name, subject in pairs:
        if subject.search is not None:
            sentences += _found(name, subject.search)
            tables += _search(name, subject.search)
    return section("int8", "INT8", sentences, tables)


def _calibration(found: Calibration) -> list[Table]:
    facts = (
        words("source", [found.source]),
        words("kind", ["RANDOM NUMBERS" if found.synthetic else "real"]),
        amounts("samples", [f"{found.samples:,}"]),
        words("SHA-256 of the ranges", [found.ranges]),
    )
    curve = (
        amounts("images", (f"{point.images:,}" for point in found.convergence)),
        *(amounts(str(method), (_change(point.of(method).p95) for point in found.convergence)) for method in Method),
    )
    caption = f"Within how much of the final ranges 95% of the tensors' were after so many images; {ENOUGH:.0%} would do"
    return [table("Calibration", facts, [0] if found.synthetic else ()), table(caption, curve, long=True)]


def _found(name: str, search: Search) -> list[str]:
    sentences = [f"{name}: {search.reason}. Each trial was evaluated on {counted(search.samples, 'sample')}."]
    named = readable(search.in_float, [one.module for one in search.modules])
    if named:
        sentences.append(f"{name}, in float: {some((one or '(the network itself)' for one in named), MOST_NAMED)}.")
    return sentences


def _search(name: str, search: Search) -> list[Table]:
    ranked = sorted(search.modules, key=lambda one: one.sqnr)
    few = (
        f"{name}: {min(NOISIEST, len(ranked))} of {counted(len(ranked), 'module')}, the noisiest first; SQNR is the output's when that"
        " module alone is INT8, gain is what it saves"
    )
    tables = [_modules(few, ranked[:NOISIEST], search)]
    if len(ranked) > NOISIEST:
        tables.append(_modules(f"{name}: all {counted(len(ranked), 'module')}, the noisiest first", ranked, search, long=True))
    trials = search.trials
    columns = (
        amounts("trial", (str(number) for number in range(1, len(trials) + 1))),
        amounts("modules in float", (str(len(one.in_float)) for one in trials)),
        amounts("top-1 agreement", (figures.share(one.agreement) for one in trials)),
        amounts("SQNR dB", (figures.decibel(one.sqnr) for one in trials)),
        words("result", (_result(one, search) for one in trials)),
    )
    return [*tables, table(f"{name}: what was tried, in order", columns)]


def _modules(caption: str, modules: Sequence[ModuleFigures], search: Search, *, long: bool = False) -> Table:
    chosen = frozenset(search.in_float)
    columns = (
        words("module", (one.module or "(the network itself)" for one in modules)),
        amounts("SQNR dB", (figures.decibel(one.sqnr) for one in modules)),
        amounts("gain ms", (_gain(one.gain_ms) for one in modules)),
        words("runs in", ("float" if one.module in chosen else "INT8" for one in modules)),
    )
    return table(caption, columns, long=long)


def _change(value: float) -> str:
    return figures.number(value) if figures.infinite(value) else f"{value:.1%}"


def _gain(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.3f}".replace("-", "−")


def _result(trial: Trial, search: Search) -> str:
    reached = "reaches the goal" if (trial.sqnr if trial.agreement is None else trial.agreement) >= search.goal else "misses the goal"
    return f"{reached}; chosen" if trial.in_float == search.in_float else reached

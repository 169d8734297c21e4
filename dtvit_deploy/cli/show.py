"""Tables, notes and verdicts for a terminal; what a command says while it works is in `dtvit_deploy.cli.progress`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtvit_deploy.report import figures, roofline
from dtvit_deploy.report.content import gates_in_words, grouped_failures, measured_on, most_decisive, real_sqnr
from dtvit_deploy.report.devices import whose
from dtvit_deploy.report.figures import plain
from dtvit_deploy.report.measured import contention, counted, finding, lost

if TYPE_CHECKING:
    from dtvit_deploy.harness.accuracy import Accuracy
    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.harness.layers import LayerReport
    from dtvit_deploy.harness.parity import Difference
    from dtvit_deploy.harness.verdict import Verdict
    from dtvit_deploy.report.schema import Report, Subject

WIDEST_LAYERS = 12
"""Rows of the table of modules; the report has them all."""
_SOURCE = re.compile(r" \([^()]*https?://[^()]*\)")
_ADDRESS = re.compile(r":? ?\bhttps?://[^\s;,)]+")


class Stream(Console):
    """One of the two standard streams. Names and reasons come from files of others: none of it is markup, and none moves the cursor."""

    def __init__(self, *, errors: bool = False) -> None:
        # A pipe gets lines as wide as they need to be.
        width = None if (sys.stderr if errors else sys.stdout).isatty() else 160
        super().__init__(stderr=errors, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text), **options)

    def say(self, text: str | Text, style: str | None = None) -> None:
        """One line, however long: a terminal breaks it, and whoever searches a file finds it whole."""
        self.print(text, style=style, soft_wrap=True)


def console() -> Stream:
    """Standard output."""
    return Stream()


def as_json(value: object) -> None:
    """Print JSON: in UTF-8 whatever the terminal speaks, and a path's bytes that are no text as JSON's own escapes."""
    text = json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.flush()


def note(text: str, out: Stream, label: str = "note:") -> None:
    out.say(Text.assemble((plain(label), "yellow"), " ", plain(text)))


def notes(
    general: Iterable[str],
    of_artefacts: Iterable[tuple[str, Iterable[str]]],
    out: Stream,
    sources: str,
    before: set[str] | None = None,
) -> None:
    """What is to be said of everything, then what artefacts say of themselves, each note once, under the names of those that say it.

    Web addresses are left out: ``sources`` says where they are.

    Args:
        before: what was said of everything already, over other reports of the same command; more is added to it.
    """
    said, before = {_without_addresses(each): None for each in general}, set() if before is None else before
    for each in said:
        if each not in before:
            note(each, out)
    before.update(said)
    sayers: dict[str, list[str]] = {}
    every: list[str] = []
    cited = False
    for name, found in of_artefacts:
        every.append(name)
        for each in found:
            brief = _without_addresses(each)
            cited |= brief != each
            if brief not in said and name not in sayers.setdefault(brief, []):
                sayers[brief].append(name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for brief, names in sayers.items():
        groups.setdefault(tuple(names), []).append(brief)
    for of, told in sorted(groups.items(), key=lambda group: (list(group[0]) != every, every.index(group[0][0]), len(group[0]))):
        label = "note:" if list(of) == every else f"{', '.join(of)}:"
        if len(told) == 1 or label == "note:":
            for each in told:
                if label != "note:" or each not in before:
                    note(each, out, label)
            before.update(told if label == "note:" else ())
        else:
            out.say(plain(label), "yellow")
            for each in told:
                out.say(f"  {each}")
    if cited:
        out.say(f"sources of these notes: {sources}", "dim")


def _without_addresses(text: str) -> str:
    """A note without the brackets that its sources stand in, or the bare addresses."""
    return _ADDRESS.sub("", _SOURCE.sub("", text))


def report(found: Report, folder: Path | None = None, before: set[str] | None = None) -> None:
    """The summary of a report: notes but those said ``before``, one row for each subject, what to ship, the failed gates, the verdict."""
    out = console()
    built = found.subjects if found.command == "run" else ()  # who gives artefacts that are there was told when they were made
    notes(found.notes, ((subject.file or subject.name, subject.notes) for subject in built), out, "in the report", before)
    _summary(found, out)
    for one in found.recommendations:
        shipped = Text.assemble((plain(f"ship for {one.place}:"), "bold"), plain(f" {one.ship}: {one.reason}"))
        out.print(shipped, soft_wrap=not out.is_terminal)  # a reason is long: at a terminal it breaks between words
    for subject in found.subjects:
        if subject.layers and (found.command == "verify" or subject.layers.first):
            layers(subject, subject.layers, out)
        if subject.plan:
            out.say(f"{subject.name}, {subject.file}: {subject.plan}")
        if subject.latency and subject.latency.status == "INVALID":
            note("; ".join(subject.latency.reasons), out, f"{subject.name}: latency INVALID:")
    for told in contention(found.subjects):
        note(told, out)
    if folder is not None:
        out.say(f"{'artefacts, their manifests and the report are' if found.command == 'run' else 'the report is'} in {folder}")
    if found.verdict is not None:
        only = found.agreement_only and found.command == "evaluate"
        verdict(found.verdict, out, "AGREEMENT ONLY" if only else "PASS", grouped_failures(found))


def _summary(found: Report, out: Stream) -> None:
    subjects = found.subjects
    columns: list[tuple[str, list[str]]] = [("", [subject.name for subject in subjects])]
    if any(subject.accuracy for subject in subjects):
        if not found.agreement_only:
            columns.append(("top-1", [_top1(subject.accuracy) for subject in subjects]))
        if any(subject.accuracy and subject.accuracy.top5 is not None for subject in subjects) and found.command == "evaluate":
            columns.append(("top-5", [figures.share(subject.accuracy.top5 if subject.accuracy else None) for subject in subjects]))
        columns.append(("agreement", [figures.share(subject.accuracy.agreement if subject.accuracy else None) for subject in subjects]))
    elif any(subject.parity for subject in subjects):
        columns.append(("agreement", [figures.share(_real_agreement(subject)) for subject in subjects]))
    if any(subject.parity for subject in subjects):
        decisive = [most_decisive(subject) for subject in subjects]
        columns.append(("max |Δ|", [_number(one.max_abs if one else None) for one in decisive]))
        columns.append(("allowed", [_allowed(one) for one in decisive]))
        columns.append(("÷ allowed", [_times(one) for one in decisive]))
        if any(one.least_sqnr is not None for subject in subjects for one in subject.parity):
            columns.append(
                ("SQNR dB", [figures.decibel(real_sqnr(subject)) for subject in subjects])
            )  # what INT8 is held to in place of max |Δ|
    if any(subject.verdict for subject in subjects):
        columns.append(("gates", [gates_in_words(subject) for subject in subjects]))
    if any(subject.latency or subject.failure for subject in subjects):
        columns += _latency_columns(subjects, whole=found.command == "profile")
    if any(subject.roof for subject in subjects):
        columns.append((roofline.HEADING, list(map(roofline.used, subjects))))
    columns.append(("MB", [figures.megabytes(subject.bytes) for subject in subjects]))
    columns.append(("rung", [str(subject.rung) for subject in subjects]))
    columns.append(("file", [subject.file or "–" for subject in subjects]))
    table = Table(title=f"{found.model}: {found.command}", title_justify="left", pad_edge=False)
    for name, _ in columns:
        table.add_column(name, justify="left" if name in ("", "rung", "file") else "right", overflow="fold")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    out.print(table)
    threads = next((subject.conditions["threads"] for subject in subjects if "threads" in subject.conditions), "?")
    said = [measured_on(found), f"{whose(found).removeprefix('on ')}, threads: {threads}, batch 1"]
    if any(subject.accuracy or subject.parity for subject in subjects):
        said.append("agreement is with torch FP32")
    if any(subject.parity for subject in subjects):
        said.append("max |Δ| is that of the output and the feeds which come nearest to their limit, or furthest beyond it")
    if any(name == "SQNR dB" for name, _ in columns):
        said.append("SQNR is the lowest on real input")
    out.say(" · ".join(said), "dim")


def _real_agreement(subject: Subject) -> float | None:
    return next((one.agreement for one in subject.parity if one.agreement is not None), None)


def _allowed(decisive: Difference | None) -> str:
    if decisive is None or decisive.least_sqnr is None:
        return _number(decisive.tolerance if decisive else None)
    return f"SQNR ≥ {decisive.least_sqnr:g} dB"


def _times(decisive: Difference | None) -> str:
    if decisive is None or decisive.tolerance is None or (decisive.excess <= 1 and not decisive.passed):
        return "–"  # no limit means anything where the precision cannot carry the network
    if figures.infinite(decisive.excess):
        return "∞"
    return f"{decisive.excess:.2f}" if decisive.excess < 100 else f"{decisive.excess:.0f}"


def _top1(accuracy: Accuracy | None) -> str:
    if accuracy is None or accuracy.top1 is None:
        return "–"
    return f"{figures.share(accuracy.top1)} {figures.interval(accuracy.interval)}".rstrip()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _latency_columns(subjects: Sequence[Subject], *, whole: bool) -> list[tuple[str, list[str]]]:
    """The median and the tail; ``whole`` adds the starts. Whether the measurement is to be believed, or why there is none."""
    measured = [subject.latency for subject in subjects]
    every: list[tuple[str, Callable[[Measurement], float | None]]] = [("p50 ms", lambda one: one.p50), ("p90 ms", lambda one: one.p90)]
    if whole:
        tail: list[tuple[str, Callable[[Measurement], float | None]]] = [
            ("p99 ms", lambda one: one.p99),
            ("p99.9 ms", lambda one: one.p99_9),
        ]
        every += [(name, pick) for name, pick in tail if any(one and pick(one) is not None for one in measured)]
        if any(one and one.device for one in measured):
            every.append(("device p50", lambda one: one.device.p50 if one.device else None))
        if any(one and one.sustained for one in measured):
            every.append(("burst ms", lambda one: one.sustained.burst_ms if one.sustained else None))
            every.append(("sustained ms", lambda one: one.sustained.sustained_ms if one.sustained else None))
        every.append(("load ms", lambda one: one.starts.first_load.median_ms if one.starts else None))
        if any(one and one.starts and one.starts.warm_load for one in measured):
            every.append(("warm load", lambda one: one.starts.warm_load.median_ms if one.starts and one.starts.warm_load else None))
        every.append(("first ms", lambda one: one.starts.first_inference.median_ms if one.starts else None))
        every.append(("peak MiB", lambda one: one.starts.peak_mib if one.starts else None))
    if any(one and one.energy for one in measured):
        every.append(("mJ", lambda one: one.energy[0].millijoules if one.energy else None))
    columns = [(name, [_figure(pick(one) if one else None) for one in measured]) for name, pick in every]
    return [*columns, ("measured", [_status(subject) for subject in subjects])]


def _status(subject: Subject) -> str:
    if subject.failure is not None:
        return str(subject.failure.kind)
    return subject.latency.status if subject.latency else "–"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def layers(subject: Subject, found: LayerReport, out: Stream) -> None:
    """The modules with the largest error relative to their floor, or in INT8 with the largest of their own, in the order of execution."""
    name, modules = f"{subject.name}, {subject.file}", found.modules  # one file may have been looked into on several devices
    shown = modules
    if len(modules) > WIDEST_LAYERS:
        worst = sorted(modules, key=lambda one: lost(one, subject), reverse=True)[:WIDEST_LAYERS]
        shown = tuple(one for one in modules if one in worst)
    table = Table(title=f"{name}: error by torch module, relative to the tensor's size", title_justify="left", pad_edge=False)
    for heading in ("module", "tensors", "inherited", "error", "added" if subject.quantised else "floor", ""):
        table.add_column(heading, justify="left" if heading in ("module", "") else "right", overflow="fold")
    for one in shown:
        mark = finding(found, one, here="← arises here")
        last = one.added if subject.quantised else one.floor
        table.add_row(one.module, str(one.tensors), *(f"{value:.1e}" for value in (one.inherited, one.error, last)), mark)
    out.print(table)
    if len(shown) < len(modules):
        order = "those that add most error" if subject.quantised else "those furthest above their floor"
        out.say(f"{len(shown)} of {len(modules)} modules, {order}; the report has all", "dim")
    out.say(f"{name}: {found.verdict} ({counted(found)})")


def verdict(found: Verdict, out: Stream, passed: str = "PASS", failures: Sequence[str] | None = None) -> None:
    """The gates that failed, each in a line unless they are given as ``failures``, and the word."""
    for line in [f"{gate.name}: {gate.reason}" for gate in found.failed] if failures is None else failures:
        out.say(Text.assemble(("✗", "red"), plain(f" {line}")))
    word, colour = (passed, "green") if found.passed else ("FAIL", "red")
    # Their names stand above; to list them again would fill the screen.
    reason = found.reason if found.passed else f"{len(found.failed)} of {len(found.gates)} gates failed"
    out.say(Text.assemble((word, f"bold {colour}"), plain(f": {reason}")))


def rows(title: str, headings: Sequence[str], body: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A plain table on standard output."""
    table = Table(title=title, title_justify="left", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in body:
        table.add_row(*row)
    console().print(table)

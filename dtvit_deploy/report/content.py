"""What a report says, in order, as sentences and tables. Markdown and HTML only dress it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtvit_deploy.harness.parity import REAL
from dtvit_deploy.report import device_state, devices, figures, int8, layer_times, measured, roofline
from dtvit_deploy.report.figures import ABSENT, plain
from dtvit_deploy.report.tables import Section, Table, amounts, labels, ordered, prose, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.latency.starts import Stage, Starts
    from dtvit_deploy.harness.parity import Difference
    from dtvit_deploy.report.schema import Report, Subject


@dataclass(frozen=True)
class Content:
    """Everything, the verdict first. ``passed`` is None when no gate was asked for; without a ``reason`` nothing is said of gates."""

    title: str
    created: str
    passed: bool | None
    reason: str
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str = "every figure, with its raw samples, is in report.json"


def content(report: Report) -> Content:
    """Put a report into words; every text comes out as one plain line, for the renderer to escape."""
    names = labels(report.subjects)
    pairs = list(zip(names, report.subjects, strict=True))
    invalid = [
        f"{name} ({', '.join(reason.partition(':')[0] for reason in subject.latency.reasons)})"
        for name, subject in pairs
        if subject.latency is not None and subject.latency.status == "INVALID"
    ]
    stain = [int8.SYNTHETIC] if report.calibration is not None and report.calibration.synthetic else []
    doubts = [f"INVALID latency: {', '.join(invalid)}; the section on latency says why"] if invalid else []
    doubts += measured.contention(report.subjects)
    sections = (
        _failed(report),
        _summary(report, pairs),
        int8.shipping(report),
        measured.parity(pairs),
        measured.accuracy(report, pairs),
        measured.latency(report, pairs),
        roofline.roofline(pairs),
        layer_times.layer_times(pairs),
        devices.devices(report, pairs),
        device_state.state(pairs),
        measured.plans(pairs),
        int8.int8(report, pairs),
        measured.layers(pairs),
        _gates(report),
        _notes(pairs),
        _conditions(report, pairs),
        _origins(report, pairs),
    )
    verdict = report.verdict
    return Content(
        title=plain(f"{report.command} of {report.model}"),
        created=plain(report.created),
        passed=None if verdict is None else verdict.passed,
        reason=plain("no gate was asked for" if verdict is None else verdict.reason),
        notes=tuple(plain(note) for note in dict.fromkeys([*stain, *report.notes, *doubts])),
        sections=tuple(section for section in sections if section is not None),
    )


def real_agreement(subject: Subject) -> float | None:
    """Top-1 agreement with the reference: over all images where they were scored, else on parity's real feeds, near-ties apart."""
    if subject.accuracy is not None and subject.accuracy.agreement is not None:
        return subject.accuracy.agreement
    return next((one.decided_agreement for one in subject.parity if one.agreement is not None), None)


def real_sqnr(subject: Subject) -> float | None:
    """The least on real input, on which its limit is; on what was fed where none of that was real."""
    real = [one.sqnr for one in subject.parity if one.feeds in REAL] or [one.sqnr for one in subject.parity]
    return min(real, default=None)


def measured_on(report: Report) -> str:
    """What the answers were compared on, and how much of it; or what was fed."""
    facts, source = report.data, report.data.get("source", "an unknown source")
    counts = "; ".join(f"{kind} on {facts[kind]}" for kind in ("parity", "accuracy") if kind in facts)
    return f"{counts} of {source}" if counts else f"fed with {source}"


def worst(subject: Subject) -> Difference | None:
    """The output and feeds with the largest |Δ|."""
    return max(subject.parity, key=lambda one: math.inf if figures.infinite(one.max_abs) else one.max_abs, default=None)


def most_decisive(subject: Subject) -> Difference | None:
    """The output and feeds whose difference is largest beside what was allowed of it; one that failed before any that passed."""
    return max(subject.parity, key=lambda one: (not one.passed, one.excess), default=None)


def gates_in_words(subject: Subject) -> str:
    """``4 failed``, or ``pass``."""
    if subject.verdict is None:
        return ABSENT
    return f"{len(subject.verdict.failed)} failed" if subject.verdict.failed else "pass" if subject.verdict.passed else "FAIL"


def grouped_failures(report: Report) -> list[str]:
    """Failed gates in lines, all feeds on which an output of an artefact failed in one, with the worst of them."""
    if report.verdict is None:
        return []
    told: list[str] = []
    grouped: set[str] = set()
    for subject in report.subjects:
        mine = [gate.name for gate in subject.verdict.failed] if subject.verdict is not None else []
        for output in dict.fromkeys(one.output for one in subject.parity):
            wrong = [one for one in subject.parity if one.output == output and not one.passed]
            names = {name: one for one in wrong for name in mine if name.endswith(f": {one.title}")}
            if len(names) < 2:
                continue
            worst = max(wrong, key=lambda one: one.excess)
            grouped.update(names)
            feeds = ", ".join(one.feeds for one in wrong)
            first, one = next(iter(names.items()))
            where = first.removesuffix(f": {one.title}")
            told.append(f"{where}: parity of {output!r} on {feeds}: the worst, {worst.feeds}: {worst.reason}")
    return told + [f"{gate.name}: {gate.reason}" for gate in report.verdict.failed if gate.name not in grouped]


def _failed(report: Report) -> Section | None:
    failed = report.verdict.failed if report.verdict is not None else ()
    if not failed:
        return None
    columns = (words("gate", (gate.name for gate in failed)), words("why", (gate.reason for gate in failed)))
    return section("failed", "Failed gates", (), (table("", columns, range(len(failed))),))


def _summary(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    subjects = [subject for _, subject in pairs]
    parities = [most_decisive(subject) for subject in subjects]
    times = [subject.latency for subject in subjects]
    starts = [None if time is None else time.starts for time in times]
    named = words("", (name for name, _ in pairs))
    rungs = words("rung", (str(subject.rung) for subject in subjects))
    answers = (
        named,
        amounts("top-1", (_top1(subject) for subject in subjects)),
        amounts("agreement", (figures.share(real_agreement(subject)) for subject in subjects)),
        amounts("max |Δ|", (figures.number(None if one is None else one.max_abs) for one in parities)),
        amounts("tolerance", (figures.number(None if one is None else one.tolerance) for one in parities)),
        amounts("cosine", (figures.cosine(min((one.cosine for one in each.parity), default=None)) for each in subjects)),
        amounts("SQNR dB", (figures.decibel(real_sqnr(each)) for each in subjects)),
        rungs,
        words("gates", (gates_in_words(subject) for subject in subjects)),
    )
    costs = (
        named,
        amounts("p50 ms", (_p50(subject) for subject in subjects)),
        amounts(roofline.HEADING, map(roofline.used, subjects)),
        amounts("p90 ms", (figures.milliseconds(None if time is None else time.p90) for time in times)),
        amounts("p99 ms", (figures.milliseconds(None if time is None else time.p99) for time in times)),
        amounts("load ms", (_stage(start, "first_load") for start in starts)),
        amounts("warm load ms", (_stage(start, "warm_load") for start in starts)),
        amounts("first ms", (_stage(start, "first_inference") for start in starts)),
        amounts("peak MiB", (_mebibytes(start) for start in starts)),
        amounts("size MB", (figures.megabytes(subject.bytes) for subject in subjects)),
        amounts("threads", (subject.conditions.get("threads", ABSENT) for subject in subjects)),
        rungs,
    )
    failed = [index for index, subject in enumerate(subjects) if subject.verdict is not None and not subject.verdict.passed]
    sentences = [
        f"{measured_on(report)}; {devices.whose(report)}"
        + "".join(
            f", {key} {report.device[key]}"
            for key in ("device", "cores", "system")
            if key in report.device and not devices.facts_of(report)
        )
    ]
    answered = any(subject.parity or subject.accuracy or subject.verdict for subject in subjects)
    if any(subject.parity or subject.accuracy for subject in subjects):
        sentences.append(
            "Agreement is with the reference's top-1; max |Δ| is that of the output and the feeds, real or adversarial, which come nearest"
            " to their tolerance or furthest beyond it; cosine is the lowest of them, SQNR the lowest on real input where there was some."
        )
    if any(times):
        sentences.append(
            "Load, first inference and peak memory are the median and the greatest of processes that do nothing else; a warm load follows"
            " another one of the same artefact. “?” marks a latency that is INVALID."
        )
    return section("summary", "Summary", sentences, ([table("", answers, failed)] if answered else []) + [table("", costs)])


def _top1(subject: Subject) -> str:
    accuracy = subject.accuracy
    if accuracy is None or accuracy.top1 is None:
        return ABSENT
    return f"{figures.share(accuracy.top1)} {figures.interval(accuracy.interval)}".strip()


def _p50(subject: Subject) -> str:
    """The median; in its place the class of a failure."""
    time = subject.latency
    if subject.failure is not None:
        return str(subject.failure.kind)
    return figures.milliseconds(None if time is None else time.p50) + ("" if time is None or time.status == "VALID" else " ?")


def _stage(start: Starts | None, name: str) -> str:
    stage: Stage | None = getattr(start, name, None)
    return figures.milliseconds(None if stage is None else stage.median_ms)


def _mebibytes(start: Starts | None) -> str:
    return ABSENT if start is None or start.peak_mib is None else f"{start.peak_mib:,.0f}"


def _gates(report: Report) -> Section | None:
    if report.verdict is None or not report.verdict.gates:
        return None
    gates = report.verdict.gates
    columns = (
        words("gate", (gate.name for gate in gates)),
        words("what was found", (gate.reason for gate in gates)),
        words("result", ("pass" if gate.passed else "FAIL" for gate in gates)),
    )
    failed = (index for index, gate in enumerate(gates) if not gate.passed)
    return section("gates", "All gates", (), (table("", columns, failed),))


def _notes(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """What each artefact has to say for itself."""
    every = [(name, note) for name, subject in pairs for note in subject.notes]
    columns = (words("artefact", (name for name, _ in every)), prose("note", (note for _, note in every)))
    return section("notes", "Notes", (), (table("", columns),))


def _conditions(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    keys = [key for key, _ in ordered({key: "" for _, subject in pairs for key in devices.own(subject.conditions)})]
    subjects = table(
        "Each subject",
        (
            words("", (name for name, _ in pairs)),
            *(words(plain(key), [subject.conditions.get(key, "") for _, subject in pairs]) for key in keys),
            words("rung", (str(subject.rung) for _, subject in pairs)),
        ),
    )
    facts = (("Data", report.data), ("Device", report.device), ("Versions", report.versions))
    return section("conditions", "Conditions", (), (subjects, *(_facts(caption, values) for caption, values in facts)))


def _facts(caption: str, values: Mapping[str, str]) -> Table:
    return table(caption, (words("", (name for name, _ in ordered(values))), words(" ", (value for _, value in ordered(values)))))


def _origins(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    steps = [step.partition(" ") for step in report.lineage]
    lineage = table(
        "From the checkpoint to the program", (words("step", (step[0] for step in steps)), words("SHA-256", (step[2] for step in steps)))
    )
    artefacts = table(
        "What was measured",
        (
            words("", (name for name, _ in pairs)),
            words("file", (subject.file for _, subject in pairs)),
            words("precision", (subject.precision for _, subject in pairs)),
            amounts("bytes", (f"{subject.bytes:,}" if subject.bytes else ABSENT for _, subject in pairs)),
            words("SHA-256", (subject.sha256 for _, subject in pairs)),
        ),
    )
    return section("origins", "Lineage", (), (lineage, artefacts))

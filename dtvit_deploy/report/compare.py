"""Two reports side by side: what became slower, larger or less accurate, and whether that is a regression.

A regression is judged on equal terms only. Latencies compare when both were taken on the same device under the same conditions, answers
when both were given to the same samples; otherwise the gate fails as *not comparable*, since nothing was proved. Nothing of two models
compares, whatever they are called. What was measured before and no longer is, fails too. A latency that is INVALID says something about the
machine and nothing about the artefact: it is listed as *not compared*, and is neither a pass nor a regression.

The limits:

* p50 in units of the reference's, which was measured in the same run, may grow by 2 %, and p50 itself, where there is no such reference, by
  5 %: beyond lies what does so with the whole of its 95 % interval (`dtvit_deploy.report.slower`);
* top-1 may fall by 0.4 points, and by one sample in any case. The samples are the same in both, so the interval of either share, which
  is about drawing other samples, says nothing about the difference; but one answer near a tie may go either way for no reason;
* agreement with the reference may not fall;
* the file may grow by 5 %.

Where both reports have latencies and none of them can be compared, that is told first; and where the later report is about nothing else
(``profile``), it is a gate that fails, as `profile` itself does: nothing was proved.

The reference itself is shown and not held to a limit of its own on latency: it is the yardstick.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.verdict import NOT_MEASURED, Gate, Verdict, at_most, holds, verdict
from dtvit_deploy.plural import counted
from dtvit_deploy.report import figures
from dtvit_deploy.report.content import real_agreement, worst
from dtvit_deploy.report.slower import Side, Slower, differing, require_band
from dtvit_deploy.report.slower import slower as slower_than
from dtvit_deploy.report.tables import labels

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report, Subject

LARGER = 0.05
TOP1_DROP = 0.004
"""Shares by which the size may grow, and top-1 may fall."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one subject, before and after; None where it was not measured.

    Attributes:
        figure: ``p50 ms``, ``p50 ÷ torch``, ``top-1``, ``agreement``, ``max |Δ|``, ``size MB`` or ``gates``.
        before, after: shares for top-1 and agreement, text for gates.
        change: after less before for shares; after over before, less one, for the rest; None where there is none.
        interval: of that change, where it was held to a limit with its 95 % interval.
        compared: False for a p50 that is INVALID in either report.
    """

    subject: str
    figure: str
    before: float | str | None
    after: float | str | None
    change: float | None = None
    interval: tuple[float, float] | None = None
    compared: bool = True

    def cells(self) -> tuple[str, ...]:
        """Five texts for a table."""
        if not self.compared:
            moved = "not compared"
        elif self.before == self.after:
            moved = "same"
        elif self.change is None:
            moved = figures.ABSENT if None in (self.before, self.after) else "changed"
        elif self.figure in _SHARES:
            moved = f"{self.change * 100:+.2f} points".replace("-", "−")
        else:
            moved = figures.change(self.change) + self._interval()
        return figures.plain(self.subject), self.figure, self._text(self.before), self._text(self.after), moved

    def _interval(self) -> str:
        return (
            ""
            if self.interval is None or self.interval[0] == self.interval[1]
            else f" [{figures.change(self.interval[0])} to {figures.change(self.interval[1])}]"
        )

    def _text(self, value: float | str | None) -> str:
        return value if isinstance(value, str) else _TEXT[self.figure](value)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of every subject, and the verdict over the gates of those that both reports have.

    Attributes:
        not_compared: what no gate could be held to, and why.
        undecided: what may have become slower or not, as far as the samples tell.
        notes: what a reader of the verdict must know.
    """

    rows: tuple[Row, ...]
    verdict: Verdict
    not_compared: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


P50, RATIO, TOP1, AGREEMENT, MAX_ABS, SIZE, GATES = "p50 ms", "p50 ÷ torch", "top-1", "agreement", "max |Δ|", "size MB", "gates"
_SHARES = (TOP1, AGREEMENT)
_TEXT = {
    P50: figures.milliseconds,
    RATIO: figures.ratio,
    TOP1: figures.share,
    AGREEMENT: figures.share,
    MAX_ABS: figures.number,
    SIZE: figures.megabytes,
    GATES: figures.number,
}


def compare_reports(before: Report, after: Report, *, slower: float | None = None) -> Comparison:
    """Compare subjects of the same name.

    Args:
        slower: share by which p50 may grow; None for 2 % in units of the reference's, or 5 % where there is none.

    Raises:
        InputError: the reports have no subject in common, or ``slower`` is no share.
    """
    require_band(slower)
    one, two = (
        dict(zip(labels(before.subjects), before.subjects, strict=True)),
        dict(zip(labels(after.subjects), after.subjects, strict=True)),
    )
    if not one.keys() & two.keys():
        raise InputError(
            f"the reports have no subject in common: {', '.join(one) or 'none'} before, {', '.join(two) or 'none'} after",
            remedy="compare reports of the same targets and precisions",
        )
    rows: list[Row] = []
    gates: list[Gate] = []
    not_compared: list[str] = []
    undecided: list[str] = []
    notes = _otherwise_made(before, after)
    other_model = "" if before.model == after.model else f"not comparable: it was of {before.model} and is of {after.model}"
    for name in dict.fromkeys([*one, *two]):
        old, new = (Side(report, found[name]) if name in found else None for report, found in ((before, one), (after, two)))
        moved = None if old is None or new is None or other_model else _moved(old, new)
        rows += _rows(name, old, new, moved)
        if old is not None and new is not None and other_model:
            gates += [holds(f"{name}: present", True, "it is in both reports"), holds(f"{name}: model", False, other_model)]
        elif old is not None and new is not None:
            gates += _gates(name, old, new, None if moved is None else moved.gate(name, slower))
            if one[name].file and (why := _invalid(one[name], two[name])):
                not_compared.append(f"{name}: p50: {why}")
            if moved is not None and moved.gate(name, slower) is None:
                undecided.append(moved.undecided(name, slower))
            notes += [f"{name}: {told}" for told in (*_otherwise_built(one[name], two[name]), *(() if moved is None else moved.untold))]
        elif name in one:
            gates.append(holds(f"{name}: present", False, "it is in the earlier report and not in the later one"))
    timed = [name for name in one.keys() & two.keys() if one[name].file and one[name].latency is not None and two[name].latency is not None]
    if timed and all(_invalid(one[name], two[name]) for name in timed):
        told = f"of {counted(len(timed), 'artefact')} none has a VALID latency in both reports"
        if after.command == "profile":
            gates.append(holds("a latency to compare", False, f"{told}; measure the INVALID ones again"))
        else:
            not_compared.insert(0, f"speed: {told}, so that the verdict says nothing of it")
    return Comparison(
        rows=tuple(rows), verdict=verdict(gates), not_compared=tuple(not_compared), undecided=tuple(undecided), notes=tuple(notes)
    )


def _otherwise_made(before: Report, after: Report) -> list[str]:
    """Which steps from the checkpoint to the program were other ones, where both reports tell them: speed compares, if by that alone."""
    if not before.lineage or not after.lineage or before.lineage == after.lineage:
        return []
    told = [
        ", ".join(f"{kind} {digest[:8]}" for kind, _, digest in (step.partition(" ") for step in one.lineage)) for one in (before, after)
    ]
    return [f"the program was made of {told[0]} before, and of {told[1]} after"]


def _otherwise_built(before: Subject, after: Subject) -> list[str]:
    """That an artefact is not the same file: what one compares for, and what one may have wished to rule out."""
    same = not before.file or before.sha256 == after.sha256
    return [] if same else [f"another artefact: sha256 {before.sha256[:8]} before, and {after.sha256[:8]} after"]


def _moved(before: Side, after: Side) -> Slower | None:
    """What became of an artefact's p50; None where there are no two VALID ones."""
    pair = (before.subject.latency, after.subject.latency)
    return slower_than(before, after) if before.subject.file and all(one is not None and one.status == "VALID" for one in pair) else None


def _figures(side: Side | None) -> dict[str, float | str | None]:
    """Every figure that is compared, None where it was not measured."""
    if side is None:
        return {}
    subject = side.subject
    largest = worst(subject)
    return {
        P50: subject.latency.p50 if subject.latency is not None else None,
        RATIO: side.ratio,
        TOP1: subject.accuracy.top1 if subject.accuracy is not None else None,
        AGREEMENT: real_agreement(subject),
        MAX_ABS: largest.max_abs if largest is not None else None,
        SIZE: float(subject.bytes) if subject.file else None,
        GATES: None if subject.verdict is None else "pass" if subject.verdict.passed else "FAIL",
    }


def _rows(name: str, before: Side | None, after: Side | None, moved: Slower | None) -> Iterator[Row]:
    old, new = _figures(before), _figures(after)
    for figure in _TEXT:
        one, two = old.get(figure), new.get(figure)
        if one is None and two is None:
            continue
        change = None
        compared = not (figure in (P50, RATIO) and _invalid(before.subject if before else None, after.subject if after else None))
        if compared and isinstance(one, float) and isinstance(two, float):
            change = two - one if figure in _SHARES else _relative(one, two)
        known = moved.growth if moved is not None and figure == (RATIO if moved.in_units else P50) else None
        interval = None if known is None or change is None else (known.low, known.high)
        yield Row(subject=name, figure=figure, before=one, after=two, change=change, interval=interval, compared=compared)


def _relative(before: float, after: float) -> float | None:
    if before == after:
        return 0.0
    return after / before - 1 if before and not (figures.infinite(before) or figures.infinite(after)) else None


def _gates(name: str, before: Side, after: Side, p50: Gate | None) -> Iterator[Gate]:
    """The gates of a subject that both reports have; none for what the earlier one did not measure."""
    old, new = _figures(before), _figures(after)
    yield holds(f"{name}: present", True, "it is in both reports")
    if p50 is not None:
        yield p50
    elif before.subject.latency is not None and before.subject.file and after.subject.latency is None:
        yield holds(f"{name}: p50", None, NOT_MEASURED)
    for figure in _SHARES:
        if old[figure] is not None:
            yield _share(f"{name}: {figure}", figure, before, after)
    if before.subject.bytes:
        yield at_most(f"{name}: size", after.subject.bytes / 1e6 or None, before.subject.bytes / 1e6 * (1 + LARGER), "MB")
    if old[GATES] == "pass":
        kept = None if new[GATES] is None else new[GATES] == "pass"
        yield holds(f"{name}: its own gates", kept, "they passed before and " + ("pass now" if kept else "fail now"))


def _invalid(before: Subject | None, after: Subject | None) -> str:
    """Why two latencies prove nothing about each other; empty when both are VALID, or when there are no two."""
    pair = [("earlier", before.latency if before else None), ("later", after.latency if after else None)]
    told = [
        f"the {when} measurement is INVALID ({', '.join(reason.partition(':')[0] for reason in one.reasons)})"
        for when, one in pair
        if one is not None and one.status != "VALID"
    ]
    return "; ".join(told) if all(one is not None for _, one in pair) else ""


def _share(name: str, figure: str, before: Side, after: Side) -> Gate:
    """Top-1 or agreement, compared in whole samples: shares of them differ by rounding."""
    one, two = _counted(before.subject, figure), _counted(after.subject, figure)
    if one is None or two is None:
        return holds(name, None, NOT_MEASURED)
    old, new = before.report.data, after.report.data
    key = "digest" if "digest" in old and "digest" in new else "source"
    why = differing(old, new, (key,))
    if one[1] != two[1]:
        why.append(f"{counted(one[1], 'sample')} before and {two[1]} after")
    if why:
        return holds(name, False, f"not comparable: {'; '.join(why)}")
    lost, samples = one[0] - two[0], one[1]
    allowed = max(1, math.floor(TOP1_DROP * samples + 1e-9)) if figure == TOP1 else 0
    told = f"{one[0]} of {counted(samples, 'sample')} before, {two[0]} after; a loss of {allowed} is allowed"
    return holds(name, lost <= allowed, told)


def _counted(subject: Subject, figure: str) -> tuple[int, int] | None:
    """Samples that count for a share, and all samples."""
    if figure == TOP1 or (subject.accuracy is not None and subject.accuracy.agreement is not None):
        accuracy = subject.accuracy
        value = None if accuracy is None else accuracy.right if figure == TOP1 else accuracy.agreeing
        return None if accuracy is None or value is None else (value, accuracy.samples)
    real = next((one for one in subject.parity if one.agreement is not None), None)
    if real is None or real.agreeing is None:
        return None
    return real.agreeing, real.samples

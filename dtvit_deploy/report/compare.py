"""Two reports side by side: what became slower, larger or less accurate, and whether that is a regression.

A regression is judged on equal terms only. Latencies compare when both were taken on the same device under the same conditions, answers
when both were given to the same samples; otherwise the gate fails as *not comparable*, since nothing was proved. What was measured before
and no longer is, fails too. A latency that is INVALID says something about the machine and nothing about the artefact: it is listed as
*not compared*, and is neither a pass nor a regression.

The limits:

* p50 in units of the reference's, which was measured in the same run, may grow by 5 %, the share of ExecuTorch's own check for regressions:
  a machine that became slower as a whole slows both. Where one of the runs has no VALID latency of the reference, or one of another torch,
  it is p50 itself;
* top-1 may fall by 0.4 points, and by one sample in any case. The samples are the same in both, so the interval of either share, which
  is about drawing other samples, says nothing about the difference; but one answer near a tie may go either way for no reason;
* agreement with the reference may not fall;
* the file may grow by 5 %.

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
from dtvit_deploy.report.tables import labels

if TYPE_CHECKING:
    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.report.schema import Report, Subject

SLOWER = 0.05
LARGER = 0.05
TOP1_DROP = 0.004
"""Shares by which p50 and the size may grow, and top-1 may fall."""
SAME_DEVICE = ("device", "processor", "architecture", "cores", "power mode", "governor")
SAME_CONDITIONS = ("rung", "device", "runtime", "provider", "threads", "precision", "batch")
"""What must be equal for latencies to compare."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one subject, before and after; None where it was not measured.

    Attributes:
        figure: ``p50 ms``, ``p50 ÷ torch``, ``top-1``, ``agreement``, ``max |Δ|``, ``size MB`` or ``gates``.
        before, after: shares for top-1 and agreement, text for gates.
        change: after less before for shares; after over before, less one, for the rest; None where there is none.
        compared: False for a p50 that is INVALID in either report.
    """

    subject: str
    figure: str
    before: float | str | None
    after: float | str | None
    change: float | None = None
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
            moved = figures.change(self.change)
        return figures.plain(self.subject), self.figure, self._text(self.before), self._text(self.after), moved

    def _text(self, value: float | str | None) -> str:
        return value if isinstance(value, str) else _TEXT[self.figure](value)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Every figure of every subject, and the verdict over the gates of those that both reports have.

    Attributes:
        not_compared: what no gate could be held to, and why.
    """

    rows: tuple[Row, ...]
    verdict: Verdict
    not_compared: tuple[str, ...] = ()


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


def compare_reports(before: Report, after: Report, *, slower: float = SLOWER) -> Comparison:
    """Compare subjects of the same name.

    Args:
        slower: share by which p50, in units of the reference's, may grow.

    Raises:
        InputError: the reports have no subject in common, or ``slower`` is no share.
    """
    if not 0 <= slower < math.inf:
        raise InputError(f"p50 cannot be allowed to grow by {slower}", remedy="give a share of at least 0, such as 0.05")
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
    for name in dict.fromkeys([*one, *two]):
        old, new = (_Side(report, found[name]) if name in found else None for report, found in ((before, one), (after, two)))
        rows += _rows(name, old, new)
        if old is not None and new is not None:
            gates += _gates(name, old, new, slower)
            if one[name].file and (why := _invalid(one[name], two[name])):
                not_compared.append(f"{name}: p50: {why}")
        elif name in one:
            gates.append(holds(f"{name}: present", False, "it is in the earlier report and not in the later one"))
    return Comparison(rows=tuple(rows), verdict=verdict(gates), not_compared=tuple(not_compared))


class _Side(msgspec.Struct, frozen=True):
    """One subject and the report that it is in."""

    report: Report
    subject: Subject

    @property
    def yardstick(self) -> Subject | None:
        """The reference, where it has a VALID latency and is not this subject itself."""
        if "device" in self.subject.conditions:  # whose ratio to another machine's torch would be that of the machines
            return None
        found = next((one for one in self.report.subjects if not one.file), None)
        return found if self.subject.file and found is not None and found.latency is not None and found.latency.status == "VALID" else None

    @property
    def ratio(self) -> float | None:
        """p50 in units of the reference's; None where there is none."""
        mine, other = self.subject.latency, self.yardstick.latency if self.yardstick is not None else None
        return mine.p50 / other.p50 if mine is not None and other is not None and other.p50 > 0 else None


def _figures(side: _Side | None) -> dict[str, float | str | None]:
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


def _rows(name: str, before: _Side | None, after: _Side | None) -> Iterator[Row]:
    old, new = _figures(before), _figures(after)
    for figure in _TEXT:
        one, two = old.get(figure), new.get(figure)
        if one is None and two is None:
            continue
        change = None
        compared = not (figure in (P50, RATIO) and _invalid(before.subject if before else None, after.subject if after else None))
        if compared and isinstance(one, float) and isinstance(two, float):
            change = two - one if figure in _SHARES else _relative(one, two)
        yield Row(subject=name, figure=figure, before=one, after=two, change=change, compared=compared)


def _relative(before: float, after: float) -> float | None:
    if before == after:
        return 0.0
    return after / before - 1 if before and not (figures.infinite(before) or figures.infinite(after)) else None


def _gates(name: str, before: _Side, after: _Side, slower: float) -> Iterator[Gate]:
    """The gates of a subject that both reports have; none for what the earlier one did not measure."""
    old, new = _figures(before), _figures(after)
    yield holds(f"{name}: present", True, "it is in both reports")
    if before.subject.latency is not None and before.subject.file and not _invalid(before.subject, after.subject):
        yield _p50(f"{name}: p50", before, after, slower)
    for figure in _SHARES:
        if old[figure] is not None:
            yield _share(f"{name}: {figure}", figure, before, after)
    if before.subject.bytes:
        yield at_most(f"{name}: size", after.subject.bytes / 1e6 or None, before.subject.bytes / 1e6 * (1 + LARGER), "MB")
    if old[GATES] == "pass":
        kept = None if new[GATES] is None else new[GATES] == "pass"
        yield holds(f"{name}: its own gates", kept, "they passed before and " + ("pass now" if kept else "fail now"))


def _p50(name: str, before: _Side, after: _Side, slower: float) -> Gate:
    one, two = before.subject.latency, after.subject.latency
    if one is None or two is None:
        return holds(name, None, NOT_MEASURED)
    if "device" in before.subject.conditions:
        why = _unequal(before.subject.conditions, after.subject.conditions, SAME_DEVICE)
    else:
        why = _unequal(before.report.device, after.report.device, SAME_DEVICE)
    why += _unequal(_terms(before.subject, one), _terms(after.subject, two), SAME_CONDITIONS)
    if why:
        return holds(name, False, f"not comparable: {'; '.join(why)}")
    if before.ratio is not None and after.ratio is not None and _same_yardstick(before, after):
        return at_most(f"{name} ÷ torch", after.ratio, before.ratio * (1 + slower))
    return at_most(name, two.p50, one.p50 * (1 + slower), "ms")


def _same_yardstick(before: _Side, after: _Side) -> bool:
    """Whether both references are the same torch under the same conditions, so that their times differ by the machine alone."""
    pair = []
    for side in (before, after):
        assert side.yardstick is not None
        assert side.yardstick.latency is not None
        known = side.yardstick.conditions | side.yardstick.latency.conditions
        pair.append(_terms(side.yardstick, side.yardstick.latency) | {"runtime": known.get("runtime", "")})
    return not _unequal(pair[0], pair[1], SAME_CONDITIONS)


def _invalid(before: Subject | None, after: Subject | None) -> str:
    """Why two latencies prove nothing about each other; empty when both are VALID, or when there are no two."""
    pair = [("earlier", before.latency if before else None), ("later", after.latency if after else None)]
    told = [
        f"the {when} measurement is INVALID ({', '.join(reason.partition(':')[0] for reason in one.reasons)})"
        for when, one in pair
        if one is not None and one.status != "VALID"
    ]
    return "; ".join(told) if all(one is not None for _, one in pair) else ""


def _terms(subject: Subject, measured: Measurement) -> dict[str, str]:
    """What a latency was measured under. Of the runtime only the name: an upgrade is what one compares for."""
    found = subject.conditions | measured.conditions
    asked = f"{subject.precision} ({found['precision']})" if "precision" in found else subject.precision
    return found | {"rung": str(subject.rung), "precision": asked, "runtime": found.get("runtime", "").partition(" ")[0]}


def _unequal(one: dict[str, str], two: dict[str, str], keys: tuple[str, ...]) -> list[str]:
    return [
        f"{key} was {one.get(key) or 'not recorded'} and is {two.get(key) or 'not recorded'}"
        for key in keys
        if one.get(key) != two.get(key)
    ]


def _share(name: str, figure: str, before: _Side, after: _Side) -> Gate:
    """Top-1 or agreement, compared in whole samples: shares of them differ by rounding."""
    one, two = _counted(before.subject, figure), _counted(after.subject, figure)
    if one is None or two is None:
        return holds(name, None, NOT_MEASURED)
    old, new = before.report.data, after.report.data
    key = "digest" if "digest" in old and "digest" in new else "source"
    why = _unequal(old, new, (key,))
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

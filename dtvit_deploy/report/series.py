"""A series of reports: what each found of each artefact's latency, and whether the newest is slower than those before it.

One point is one artefact in one report, with what it was measured under and the interval of its p50, which is all that later reports are
held against: raw samples stay in the reports. Points lie in the order in which they were added (`dtvit_deploy.report.series_file`), so that
tools that look for change points can read them as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Amount, Count, Natural, Share
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Level, Run, growth_over, typical
from dtvit_deploy.harness.latency.measurement import FEWEST_SAMPLES
from dtvit_deploy.harness.verdict import Gate, holds, verdict
from dtvit_deploy.plural import counted
from dtvit_deploy.report.compare import P50, RATIO, Comparison, Row
from dtvit_deploy.report.content import real_agreement
from dtvit_deploy.report.first_stretch import first_stretch
from dtvit_deploy.report.slower import SAME_CONDITIONS, SAME_DEVICE, Side, Slower, differing, require_band, reset, untold
from dtvit_deploy.report.tables import labels

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report

LAST = 10
"""Earlier points that a report is held against."""
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]

_WIDEST = 1e6
"""Times that the upper end of an interval is the lower one, at most: samples of one run lie closer."""


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One artefact in one report. Flat, but for the conditions, so that a table can be made of it.

    Attributes:
        time: when the report was made: UTC, ISO 8601.
        report: SHA-256 of the report's data; the same report is one point, however often it is added.
        model, subject, file, sha256: whose latency it is.
        machine, conditions, torch: what must be equal for latencies to compare, of the machine, of the artefact's measurement and of the
            reference's; ``torch`` is empty where there was no VALID one.
        settings: what somebody had set on the machine by then; another value of one is another condition, and one that is not told is none.
        slower: whether it was found slower than those before it when it was added.
        runtime: with its version.
        p50_ms, p50_ms_low, p50_ms_high: with a 95 % interval of this run.
        p50_ratio, p50_ratio_low, p50_ratio_high: the same in units of the reference's p50; None without ``torch``.
        p90_ms, p99_ms, p90_early_stopping_ms: None where there are too few samples.
        top1, agreement: shares; None where they were not measured.
    """

    time: str
    report: str
    model: str
    subject: str
    file: str
    sha256: str
    machine: dict[str, str]
    conditions: dict[str, str]
    torch: dict[str, str]
    runtime: str
    status: Literal["VALID", "INVALID"]
    samples: Natural
    p50_ms: Positive
    p50_ms_low: Positive
    p50_ms_high: Positive
    p50_ratio: Positive | None = None
    p50_ratio_low: Positive | None = None
    p50_ratio_high: Positive | None = None
    p90_ms: Amount | None = None
    p90_early_stopping_ms: Amount | None = None
    p99_ms: Amount | None = None
    top1: Share | None = None
    agreement: Share | None = None
    bytes: Count = 0
    settings: dict[str, str] = {}
    slower: bool = False
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        if self.status == "VALID" and self.samples < FEWEST_SAMPLES:
            raise ValueError(f"it is VALID with {self.samples} of at least {FEWEST_SAMPLES} samples")
        for low, middle, high in (
            (self.p50_ms_low, self.p50_ms, self.p50_ms_high),
            (self.p50_ratio_low, self.p50_ratio, self.p50_ratio_high),
        ):
            if (low is None) != (middle is None) or (high is None) != (middle is None):
                raise ValueError("p50 has a part of an interval")
            if low is not None and middle is not None and high is not None and not (low <= middle <= high and high < _WIDEST * low):
                raise ValueError(f"p50 is {middle}, and its interval from {low} to {high}")

    def level(self, *, in_units: bool) -> Level | None:
        """p50 with its interval, in units of the reference's or in milliseconds."""
        if not in_units:
            return Level(median=self.p50_ms, low=self.p50_ms_low, high=self.p50_ms_high)
        if self.p50_ratio is None or self.p50_ratio_low is None or self.p50_ratio_high is None:
            return None
        return Level(median=self.p50_ratio, low=self.p50_ratio_low, high=self.p50_ratio_high)


def digest(report: Report) -> str:
    """SHA-256 of what a report says."""
    return hashlib.sha256(msgspec.json.encode(report, order="sorted")).hexdigest()


def points(report: Report) -> list[Point]:
    """A point for each artefact that has a latency of some time.

    Raises:
        InputError: none has.
    """
    known, found = digest(report), []
    for name, subject in zip(labels(report.subjects), report.subjects, strict=True):
        side = Side(report, subject)
        if side.run is None or not subject.file or (alone := _level(Run(measured=side.run.measured))) is None:
            continue
        latency = side.run.measured
        relative = _level(side.run) if side.run.yardstick is not None else None
        found.append(
            Point(
                time=report.created,
                report=known,
                model=report.model,
                subject=name,
                file=subject.file,
                sha256=subject.sha256,
                machine=_kept(side.machine, SAME_DEVICE),
                conditions=_kept(side.terms, SAME_CONDITIONS),
                torch=_kept(side.yardstick_terms, SAME_CONDITIONS),
                settings=side.settings,
                runtime=(subject.conditions | latency.conditions).get("runtime", ""),
                status=latency.status,
                samples=len(latency.samples_ms),
                p50_ms=alone.median,
                p50_ms_low=alone.low,
                p50_ms_high=alone.high,
                p50_ratio=None if relative is None else relative.median,
                p50_ratio_low=None if relative is None else relative.low,
                p50_ratio_high=None if relative is None else relative.high,
                p90_ms=latency.p90,
                p90_early_stopping_ms=latency.p90_early_stopping,
                p99_ms=latency.p99,
                top1=None if subject.accuracy is None else subject.accuracy.top1,
                agreement=real_agreement(subject),
                bytes=subject.bytes,
            )
        )
    if not found:
        raise InputError("the report has no latency of an artefact, and a series is of those", remedy="give a report of `profile` or `run`")
    return found


def compare_with_series(earlier: Sequence[Point], report: Report, *, last: int = LAST, slower: float | None = None) -> Comparison:
    """As `judged`, without the points."""
    return judged(earlier, report, last=last, slower=slower)[0]


def judged(
    earlier: Sequence[Point], report: Report, *, last: int = LAST, slower: float | None = None
) -> tuple[Comparison, tuple[Point, ...]]:
    """Compare each p50 with the last of those in a series that were measured under the same conditions; points of this report do not count.

    Args:
        last: how many of them.
        slower: as of `dtvit_deploy.report.compare.compare_reports`.

    Returns:
        The comparison, and the report's points, with what was found of them.

    Raises:
        InputError: the report has no latency, or ``slower`` is no share.
    """
    require_band(slower)
    new: list[Point] = []
    sides = {name: Side(report, subject) for name, subject in zip(labels(report.subjects), report.subjects, strict=True)}
    rows: list[Row] = []
    gates: list[Gate] = []
    not_compared: list[str] = []
    undecided: list[str] = []
    notes: list[str] = []
    for point in points(report):
        name, run = point.subject, sides[point.subject].run
        assert run is not None
        gates.append(holds(f"{name}: measured", True, "its latency is in the report"))
        before = [one for one in earlier if (one.subject, one.model) == (name, point.model) and one.report != point.report]
        like = [one for one in before if one.status == "VALID" and not _otherwise(one, point)]
        if why := _why_not(before, like, point):
            new.append(point)
            not_compared.append(f"{name}: p50: {why}")
            rows.append(Row(subject=name, figure=P50, before=None, after=point.p50_ms, compared=not before))
            continue
        found, row = _held(like, point, run, last)
        rows.append(row)
        notes += [f"{name}: {told}" for told in untold(like[-1].settings, point.settings)]
        told = [gate for gate in (found.gate(name, slower), _crept(like, point, run, last, slower)) if gate is not None]
        gates += told
        if not told:
            undecided.append(found.undecided(name, slower))
        new.append(msgspec.structs.replace(point, slower=any(not gate.passed for gate in told)))
    if new and report.command == "profile" and all(point.status != "VALID" for point in new):
        invalid = f"of {counted(len(new), 'artefact')} none has a VALID latency"
        gates.append(holds("a latency to compare", False, f"{invalid}: a series of such says nothing; measure again"))
    found_of_all = Comparison(
        rows=tuple(rows), verdict=verdict(gates), not_compared=tuple(not_compared), undecided=tuple(undecided), notes=tuple(notes)
    )
    return found_of_all, tuple(new)


def _held(like: Sequence[Point], point: Point, run: Run, last: int) -> tuple[Slower, Row]:
    """A point against the last of those like it, in units of the reference's where they have the same one."""
    with_torch = _with_torch(like, point)
    in_units = bool(with_torch)
    levels = _levels((with_torch or like)[-last:], in_units=in_units)
    found = growth_over(levels, run if in_units else Run(measured=run.measured))
    after = point.level(in_units=in_units)
    assert after is not None
    row = Row(
        subject=point.subject,
        figure=RATIO if in_units else P50,
        before=typical(levels),
        after=after.median,
        change=found.share,
        interval=(found.low, found.high),
    )
    return Slower(growth=found, in_units=in_units), row


def _crept(like: Sequence[Point], point: Point, run: Run, last: int, band: float | None) -> Gate | None:
    """That a point is slower than what the series began with, and the one before it was, too; None where they are not.

    Two in a row, for what creeps stays: a single run that lies far off among runs that lie apart is held against the last ones alone.
    """
    with_torch = _with_torch(like, point)
    in_units = bool(with_torch)
    units, levels = with_torch or like, _levels(with_torch or like, in_units=in_units)
    allowed = Slower(in_units=in_units).allowed(band)
    begun = levels[first_stretch([one.median for one in levels], [one.slower for one in units], last=last, band=allowed)]
    if not begun or levels[-1].median <= (1 + allowed) * typical(begun):
        return None
    found = Slower(growth=growth_over(begun, run if in_units else Run(measured=run.measured)), in_units=in_units)
    gate = found.gate(point.subject, band)
    return None if gate is None or gate.passed else msgspec.structs.replace(gate, name=f"{gate.name} since the series began")


def _with_torch(like: Sequence[Point], point: Point) -> list[Point]:
    """Those that are in units of the same reference."""
    return [one for one in like if one.p50_ratio is not None and one.torch == point.torch] if point.p50_ratio is not None else []


def _levels(found: Sequence[Point], *, in_units: bool) -> list[Level]:
    return [level for one in found if (level := one.level(in_units=in_units)) is not None]


def _why_not(before: Sequence[Point], like: Sequence[Point], point: Point) -> str:
    """Why there is nothing to hold a point against; empty where there is."""
    if point.status != "VALID":
        return "the measurement is INVALID"
    if like:
        return ""
    if not before:
        return "it is the first in the series"
    why = _otherwise(before[-1], point) or ["it is INVALID"]
    return f"none of {counted(len(before), 'earlier one')} was measured so; of the last, {'; '.join(why)}"


def _level(run: Run) -> Level | None:
    """None where a report from elsewhere holds times of 0."""
    try:
        return run.level()
    except InputError:
        return None


def _otherwise(one: Point, other: Point) -> list[str]:
    machine, conditions = differing(one.machine, other.machine, SAME_DEVICE), differing(one.conditions, other.conditions, SAME_CONDITIONS)
    return list(dict.fromkeys([*machine, *conditions, *reset(one.settings, other.settings)]))


def _kept(facts: dict[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: facts[key] for key in keys if key in facts}


def lines(found: Sequence[Point]) -> Iterator[bytes]:
    """Each as one line of JSON."""
    for one in found:
        yield msgspec.json.encode(one, order="sorted") + b"\n"

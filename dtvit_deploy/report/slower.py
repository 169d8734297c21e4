"""Did a latency grow? By how much, how well the samples know that, and whether the two may be compared at all.

A p50 is divided by the reference's, which was measured in the same rounds, where both runs have a VALID one of the same torch; else it is
p50 itself. Its growth has a 95 % interval from the raw samples of both runs. Between two runs of the same artefact lies more than their
samples know: another process, another layout of memory, another neighbour. That is what the declared band is for. Slower is what lies
beyond the band with the whole of its interval; what lies across its edge is *undecided*, which is neither a pass nor a regression.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import Growth, Measurement, Run, growth
from dtvit_deploy.harness.latency.between_runs import FEWEST_RUNS
from dtvit_deploy.harness.state import judging
from dtvit_deploy.harness.verdict import Gate, holds, percent
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Report, Subject

BAND = 0.02
"""Share by which p50 may grow in units of the reference's: what moves the machine moves both."""
BAND_ALONE = 0.05
"""The same of p50 itself, which whatever moves the machine moves too."""
SAME_DEVICE = ("device", "model", "processor", "architecture", "cores", "governor", "power mode")
SAME_CONDITIONS = (
    "rung", "device", "chip", "runtime", "provider", "threads", "threads used", "precision", "batch",
    "sustained load", "clocks", "launch", "transfers", "latency", "host latency", "device latency",
)  # fmt: skip
"""What must be equal for latencies to compare; the last ones say what of a run was timed."""
_ROUNDING = 1e-9


class Side(msgspec.Struct, frozen=True):
    """One subject and the report that it is in."""

    report: Report
    subject: Subject

    @property
    def yardstick(self) -> Subject | None:
        """The reference, where it has a VALID latency of some time under the same settings and is not this subject itself."""
        if "device" in self.subject.conditions:  # whose ratio to another machine's torch would be that of the machines
            return None
        found = next((one for one in self.report.subjects if not one.file), None)
        if found is None or found.latency is None or found.latency.status != "VALID" or not self.subject.file:
            return None
        return None if reset(_settings(found), self.settings) else found

    @property
    def run(self) -> Run | None:
        """Its measurement beside that of the reference, where there are both."""
        return _run(self.subject.latency, self.yardstick)

    @property
    def ratio(self) -> float | None:
        """p50 in units of the reference's, over the rounds that both took part in; None where there is none."""
        if self.run is None or self.run.yardstick is None:
            return None
        try:
            return self.run.median()
        except InputError:
            return None

    @property
    def terms(self) -> dict[str, str]:
        """What its latency was measured under. Of the runtime only the name: an upgrade is what one compares for."""
        known = _terms(self.subject)
        return known | {"runtime": known.get("runtime", "").partition(" ")[0]}

    @property
    def machine(self) -> dict[str, str]:
        """What it was measured on."""
        return self.subject.conditions if "device" in self.subject.conditions else self.report.device

    @property
    def settings(self) -> dict[str, str]:
        """What somebody had set on it by then; empty where the report does not tell."""
        return _settings(self.subject)

    @property
    def yardstick_settings(self) -> dict[str, str]:
        """The same of the reference."""
        return {} if self.yardstick is None else _settings(self.yardstick)

    @property
    def yardstick_terms(self) -> dict[str, str]:
        """The same of the reference, whose version counts; empty where there is none."""
        return {} if self.yardstick is None else _terms(self.yardstick)


class Slower(msgspec.Struct, frozen=True):
    """What became of one p50.

    Attributes:
        growth: None where the two may not be compared.
        in_units: of the reference's p50, and not in milliseconds.
        unequal: why they may not.
        untold: settings that one of the two alone tells, which are held to be the same.
    """

    growth: Growth | None = None
    in_units: bool = False
    unequal: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    def gate(self, name: str, band: float | None) -> Gate | None:
        """Whether it became slower; None where the samples do not decide that.

        Args:
            name: of the subject.
            band: share by which it may grow; None for `BAND`, or `BAND_ALONE` where there is no reference.
        """
        if self.growth is None:
            return holds(f"{name}: p50", False, f"not comparable: {'; '.join(self.unequal)}")
        allowed = self.allowed(band)
        slower = _beyond(self.growth.low, allowed)
        if not slower and _beyond(self.growth.high, allowed):
            return None
        told = f"{self.told}, {'all of it beyond' if slower else 'within'} the band of {percent(allowed)}"
        if slower and self.growth.runs < FEWEST_RUNS:
            told += (
                f"; {counted(self.growth.runs, 'process')} before and one after say nothing of how far processes of one artefact lie apart"
                " (docs/compare.md): `dtvit-deploy ab` settles that"
            )
        return Gate(f"{name}: p50{' ÷ torch' * self.in_units}", allowed, self.growth.share, not slower, told)

    def undecided(self, name: str, band: float | None) -> str:
        """What to say where `gate` has nothing."""
        return (
            f"{name}: p50{' ÷ torch' * self.in_units}: {self.told}, across the edge of the band of {percent(self.allowed(band))};"
            " more samples (--samples, --seconds) decide"
        )

    def allowed(self, band: float | None) -> float:
        return band if band is not None else BAND if self.in_units else BAND_ALONE

    @property
    def told(self) -> str:
        assert self.growth is not None
        runs = f" from the median of {self.growth.runs} runs" if self.growth.runs > 1 else ""
        return f"{self.growth}{runs}"


def slower(before: Side, after: Side) -> Slower:
    """Compare the p50 of one subject in two reports; both have a VALID one."""
    unequal = differing(before.machine, after.machine, SAME_DEVICE) + differing(before.terms, after.terms, SAME_CONDITIONS)
    unequal += reset(before.settings, after.settings)
    one, two = before.run, after.run
    assert one is not None
    assert two is not None
    in_units = one.yardstick is not None and two.yardstick is not None
    if in_units and (
        differing(before.yardstick_terms, after.yardstick_terms, SAME_CONDITIONS)
        or reset(before.yardstick_settings, after.yardstick_settings)
    ):
        in_units = False  # the times of two torches differ by more than the machine
    if not in_units:
        one, two = Run(measured=one.measured), Run(measured=two.measured)
    if unequal:
        return Slower(unequal=tuple(dict.fromkeys(unequal)), in_units=in_units)
    try:
        return Slower(growth=growth(one, two), in_units=in_units, untold=tuple(untold(before.settings, after.settings)))
    except InputError as error:  # a report from elsewhere may hold anything, times of 0 as well
        return Slower(unequal=(str(error),), in_units=in_units)


def require_band(band: float | None) -> None:
    """Refuse what is no band.

    Raises:
        InputError: it is no share of at least 0.
    """
    if band is not None and not 0 <= band < math.inf:
        raise InputError(f"p50 cannot be allowed to grow by {band}", remedy="give a share of at least 0, such as 0.05")


def differing(one: dict[str, str], two: dict[str, str], keys: tuple[str, ...]) -> list[str]:
    """Which of the conditions were other ones."""
    return [
        f"{key} was {one.get(key) or 'not recorded'} and is {two.get(key) or 'not recorded'}"
        for key in keys
        if one.get(key) != two.get(key)
    ]


def reset(one: dict[str, str], two: dict[str, str]) -> list[str]:
    """Which settings were other ones: a device on which somebody changed one is another device. What either does not tell is no difference,
    for reports that are older than a setting do not tell it.
    """
    return [f"{key} was {one[key]} and is {two[key]}" for key in judging.SETTINGS if key in one and key in two and one[key] != two[key]]


def untold(one: dict[str, str], two: dict[str, str]) -> list[str]:
    """A sentence on what one of the two alone tells."""
    told = ", ".join(key for key in judging.SETTINGS if (key in one) != (key in two))
    return [f"told of one of the two alone, and held to be the same: {told}"] if told else []


def _settings(subject: Subject) -> dict[str, str]:
    state = None if subject.latency is None else subject.latency.state
    if state is None or subject.latency is None:
        return {}
    return judging.settings(state if subject.latency.device is not None else state.of_processor)


def _run(measured: Measurement | None, yardstick: Subject | None) -> Run | None:
    return None if measured is None else Run(measured=measured, yardstick=None if yardstick is None else yardstick.latency)


def _terms(subject: Subject) -> dict[str, str]:
    found = subject.conditions | (subject.latency.conditions if subject.latency is not None else {})
    if subject.latency is not None and (lasting := subject.latency.sustained) is not None:  # whose median is that of another heat
        found["sustained load"] = f"{lasting.asked_seconds:g} s"
    asked = f"{subject.precision} ({found['precision']})" if "precision" in found else subject.precision
    return found | {"rung": str(subject.rung), "precision": asked}


def _beyond(share: float, band: float) -> bool:
    """Whether a growth is more than a band, and not by rounding alone."""
    return share > band + _ROUNDING

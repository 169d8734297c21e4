"""The state of devices while latencies were taken, and the energy of an inference, in a section."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.report import figures
from dtvit_deploy.report.figures import ABSENT
from dtvit_deploy.report.tables import Section, Table, amounts, ordered, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.state.record import Channel, Watched
    from dtvit_deploy.report.schema import Subject

COUNTED = ("energy", "events", "seconds")
"""Kinds of which the rise is told, and not the value."""


def state(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """What each device said before and after, what was read of it meanwhile, and what an inference takes of each rail."""
    tables = [_energy(pairs)]
    for names, watched in grouped(pairs):
        of = ", ".join(names)
        tables += [_facts(of, watched), _series(of, watched)]
    tables = [one for one in tables if one.columns and one.columns[0].cells]
    if not tables:
        return None
    told = (
        "Read twice a second by a process of its own. Temperatures, clocks and power are those while samples were taken; of counters it is"
        " what they rose by. A device that held itself back, or that nobody watched, makes a latency INVALID. –: not told, which is not 0."
    )
    return section("state", "Device state", (told,), tables)


def grouped(pairs: Sequence[tuple[str, Subject]]) -> list[tuple[list[str], Watched]]:
    """Each state once, with all that were measured in it."""
    found: list[tuple[list[str], Watched]] = []
    for name, subject in pairs:
        watched = None if subject.latency is None else subject.latency.state
        if watched is None:
            continue
        for names, known in found:
            if known == watched:
                names.append(name)
                break
        else:
            found.append(([name], watched))
    return found


def _energy(pairs: Sequence[tuple[str, Subject]]) -> Table:
    every = [(name, one) for name, subject in pairs if subject.latency is not None for one in subject.latency.energy]
    columns = (
        words("", (name for name, _ in every)),
        words("rail", (one.rail for _, one in every)),
        amounts("mJ for one inference", (_digits(one.millijoules) for _, one in every)),
        amounts("95% interval", (f"[{_digits(one.low)}–{_digits(one.high)}]" for _, one in every)),
        amounts("busy W", (_digits(one.busy_mw / 1e3) for _, one in every)),
        amounts("idle W", (_digits(one.idle_mw / 1e3) for _, one in every)),
        amounts("inferences", (f"{one.runs:,}" for _, one in every)),
        amounts("blocks", (str(one.blocks) for _, one in every)),
        words("method", (one.method for _, one in every)),
        words("source", (one.source for _, one in every)),
    )
    return table("Energy of an inference: what the idle device takes is subtracted", columns)


def _facts(of: str, watched: Watched) -> Table:
    names = [name for name, _ in ordered({**watched.before, **watched.after})]
    columns = (
        words("", names),
        words("before", (watched.before.get(name, "") for name in names)),
        words("after", (watched.after.get(name, "") for name in names)),
    )
    return table(f"{of}: what the device said before and after", columns, long=True)


def _series(of: str, watched: Watched) -> Table:
    every = [(one, [value for _, value in watched.during(one)]) for one in watched.channels]
    plain = [(one, [] if one.kind in COUNTED else values) for one, values in every]
    columns = (
        words("", (one.name for one, _ in every)),
        words("unit", (one.unit for one, _ in every)),
        amounts("least", (_digits(min(values, default=None)) for _, values in plain)),
        amounts("median", (_digits(statistics.median(values) if values else None) for _, values in plain)),
        amounts("most", (_digits(max(values, default=None)) for _, values in plain)),
        amounts("rise", (_digits(watched.rise(one) if one.kind in COUNTED else None) for one, _ in every)),
        amounts("limit", (_digits(one.limit if one.kind == "temperature" else None) for one, _ in every)),
        amounts("readings", (f"{len(values)}" for _, values in every)),
        words("source", (one.source for one, _ in every)),
    )
    failed = (index for index, (one, _) in enumerate(every) if _harmed(watched, one))
    return table(f"{of}: {watched.sampled_s:.1f} s of sampling", columns, failed)


def _harmed(watched: Watched, channel: Channel) -> bool:
    from dtvit_deploy.harness.state.judging import held_back

    return bool(held_back(watched, channel))


def _digits(value: float | None) -> str:
    """Three digits, and no exponent within what a device says."""
    if value is None:
        return ABSENT
    if figures.infinite(value):
        return figures.number(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

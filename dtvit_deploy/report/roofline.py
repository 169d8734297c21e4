"""How much of what the machine can do each artefact uses, and how it was found what that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy.plural import counted
from dtvit_deploy.report import figures
from dtvit_deploy.report.figures import ABSENT
from dtvit_deploy.report.tables import Section, Table, amounts, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.roofline import Peaks, Roof
    from dtvit_deploy.report.schema import Subject

HEADING = "% of machine"
_EXPLAINED = (
    "The least time is what convolutions and matrix products take at the measured peak of their precision, or what weights, inputs and"
    " outputs take from memory, whichever is more; everything else a network does comes on top of it."
)


def used(subject: Subject) -> str:
    """In per cent, with a question mark where the latency is not to be believed."""
    roof, latency = subject.roof, subject.latency
    if roof is None or latency is None:
        return ABSENT
    return f"{100 * roof.share(latency.p50):.0f}%" + ("" if latency.status == "VALID" else " ?")


def roofline(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """The roof of each subject that has one, and the peaks that it is made of."""
    found = [(name, subject, subject.roof) for name, subject in pairs if subject.roof is not None and subject.latency is not None]
    if not found:
        return None
    over = [name for name, subject, roof in found if subject.latency is not None and roof.share(subject.latency.p50) > 1]
    sentences = [_EXPLAINED]
    if over:
        sentences.append(
            f"{' and '.join(over)} took less time than that: the machine was busy when its peaks were measured, or weights stay in a cache."
        )
    tables = [
        table(
            "",
            (
                words("", (name for name, _, _ in found)),
                words("10⁶ multiply–accumulates", (_macs(roof.work.macs) for _, _, roof in found)),
                amounts("MB", (f"{roof.work.bytes / 1e6:.1f}" for _, _, roof in found)),
                amounts("least ms", (figures.milliseconds(roof.ms) for _, _, roof in found)),
                words("set by", (roof.limit for _, _, roof in found)),
                amounts("p50 ms", (figures.milliseconds(subject.latency.p50 if subject.latency else None) for _, subject, _ in found)),
                amounts(HEADING, (used(subject) for _, subject, _ in found)),
            ),
        )
    ]
    return section("roofline", "What the machine can do", sentences, (*tables, *_of_machines(found)))


def _macs(macs: dict[str, int]) -> str:
    return ", ".join(f"{count / 1e6:,.0f} {precision}" for precision, count in sorted(macs.items()) if count)


def _of_machines(found: Sequence[tuple[str, Subject, Roof]]) -> list[Table]:
    """The peaks of each machine; where there are several, with the artefacts that ran on it."""
    every: list[tuple[Peaks, list[str]]] = []
    for name, _, roof in found:
        known = next((names for peaks, names in every if peaks == roof.peaks), None)
        if known is None:
            every.append((roof.peaks, [name]))
        else:
            known.append(name)
    return [_peaks(peaks, f"{', '.join(names)}: m" if len(every) > 1 else "M") for peaks, names in every]


def _peaks(peaks: Peaks, begin: str) -> Table:
    busy = "; the machine had something else to do meanwhile, so that peaks are too low and shares too high, and they are not kept"
    caption = (
        f"{begin}easured {peaks.taken} with {counted(peaks.threads, 'thread')}: the fastest of several runs each; memory was copied"
        f" {peaks.copy_mib} MiB at a time, at {peaks.copy_gb_s:.1f} GB/s read and written{busy * peaks.disturbed}"
    )
    return table(
        caption,
        (
            words("precision", (one.precision for one in peaks.products)),
            amounts("10⁹ operations/s", (f"{one.gflops:,.0f}" for one in peaks.products)),
            amounts("median", (f"{one.median_gflops:,.0f}" for one in peaks.products)),
            words("by", (one.runtime for one in peaks.products)),
            words("product", (one.size for one in peaks.products)),
            amounts("runs", (str(one.runs) for one in peaks.products)),
        ),
    )

"""What was measured, in sections: parity, accuracy, latency, layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtvit_deploy import plural
from dtvit_deploy.harness.state.judging import contended
from dtvit_deploy.report import figures
from dtvit_deploy.report.devices import own
from dtvit_deploy.report.figures import ABSENT
from dtvit_deploy.report.tables import Photo, Section, Table, amounts, listed, section, table, words

if TYPE_CHECKING:
    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.harness.layers import LayerReport, ModuleDifference
    from dtvit_deploy.report.schema import Report, Subject

WORST = 10
"""Modules and flips that are listed; the data have all."""


def parity(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    tables, sentences = [], []
    for name, subject in pairs:
        found = subject.parity
        if not found:
            continue
        outputs = list(dict.fromkeys(one.output for one in found))
        columns = (
            *([words("output", (one.output for one in found))] if len(outputs) > 1 else []),
            words("feeds", (one.feeds for one in found)),
            words("result", ("pass" if one.passed else "FAIL" for one in found)),
            amounts("samples", (str(one.samples) for one in found)),
            amounts("max |Δ|", (figures.number(one.max_abs) for one in found)),
            amounts("tolerance", (figures.number(one.tolerance) for one in found)),
            amounts("floor", (figures.number(one.floor) for one in found)),
            amounts("least SQNR dB", (figures.decibel(one.least_sqnr) for one in found)),
            amounts("mean |Δ|", (figures.number(one.mean_abs) for one in found)),
            amounts("relative", (figures.number(one.max_rel) for one in found)),
            amounts("1 − cosine", (figures.number(1 - one.cosine) for one in found)),
            amounts("SQNR dB", (figures.decibel(one.sqnr) for one in found)),
            amounts("agreement", (figures.share(one.agreement) for one in found)),
            amounts("near-ties", (ABSENT if one.agreement is None else str(one.near_ties) for one in found)),
            amounts("worst at", (",".join(map(str, one.at)) for one in found)),
        )
        sentences += [f"{name}, {one.output!r} on {one.feeds}: {one.reason}." for one in found if one.reason]
        failed = (index for index, one in enumerate(found) if not one.passed)
        of = f", output {outputs[0]!r}" if len(outputs) == 1 else ""
        tables.append(table(f"{name}{of}, {subject.rung}: {listed(own(subject.conditions))}", columns, failed))
    if not tables:
        return None
    told = (
        "Δ is an artefact's output less torch FP32's. The floor is what the reference itself moves by when nothing is wrong with it; the"
        " tolerance is a stated multiple of it. Near-ties changed their top-1 where the reference's two best scores are closer than that."
        " INT8, and weights that were compressed, have neither: they are held to a least SQNR, and to top-1 agreement on real input."
    )
    return section("parity", "Parity", (told, *sentences), tables)


def accuracy(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    scored = [(name, subject.accuracy, subject.rung) for name, subject in pairs if subject.accuracy is not None]
    if not scored:
        return None
    columns = (
        words("", (name for name, _, _ in scored)),
        amounts("samples", (str(one.samples) for _, one, _ in scored)),
        amounts("top-1", (figures.share(one.top1) for _, one, _ in scored)),
        amounts("95% interval", (figures.interval(one.interval) for _, one, _ in scored)),
        amounts("top-5", (figures.share(one.top5) for _, one, _ in scored)),
        amounts("agreement", (figures.share(one.agreement) for _, one, _ in scored)),
        amounts("95% interval of it", (figures.interval(one.agreement_interval) for _, one, _ in scored)),
        amounts("flips", (ABSENT if one.agreement is None else str(one.flipped) for _, one, _ in scored)),
        words("rung", (str(rung) for _, _, rung in scored)),
    )
    tables = [table(f"{report.data.get('source', 'an unknown source')}; Wilson intervals", columns)]
    photos = []
    for name, one, _ in scored:
        flips = sorted(one.flips, key=lambda flip: -flip.margin)[:WORST]
        if not flips:
            continue
        tables.append(
            table(
                f"{name}: {len(flips)} of {plural.counted(one.flipped, 'sample')} with another top-1 than the reference's,"
                f" the most decided first",
                (
                    words("sample", (flip.image for flip in flips)),
                    amounts("label", (ABSENT if flip.label is None else str(flip.label) for flip in flips)),
                    amounts("reference", (str(flip.reference) for flip in flips)),
                    amounts("artefact", (str(flip.artifact) for flip in flips)),
                    amounts("reference's margin", (figures.number(flip.margin) for flip in flips)),
                ),
            )
        )
        photos += [
            Photo(flip.picture, f"{name}: {flip.reference} → {flip.artifact}" + ("" if flip.label is None else f", label {flip.label}"))
            for flip in flips
            if flip.picture
        ]
    return section("accuracy", "Accuracy", (), tables, photos)


def latency(report: Report, pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    timed = [(name, subject.latency, subject.rung) for name, subject in pairs if subject.latency is not None]
    if not timed:
        return None
    reference = next((subject.latency for _, subject in pairs if not subject.file), None)
    every = [one for _, one, _ in timed]
    columns = (
        words("", (name for name, _, _ in timed)),
        amounts("samples", (f"{len(one.samples_ms):,}" for one in every)),
        *(
            amounts(heading, (figures.milliseconds(getattr(one, field)) for one in every))
            for heading, field in (
                ("p50 ms", "p50"),
                ("p90", "p90"),
                ("p90 early stopping", "p90_early_stopping"),
                ("p99", "p99"),
                ("p99 early stopping", "p99_early_stopping"),
                ("p99.9", "p99_9"),
                ("p99.9 early stopping", "p99_9_early_stopping"),
                ("mean", "mean"),
                ("IQR", "iqr"),
                ("min", "min"),
                ("max", "max"),
            )
        ),
        amounts("device p50", (figures.milliseconds(one.device.p50 if one.device else None) for one in every)),
        amounts("device p99", (figures.milliseconds(one.device.p99 if one.device else None) for one in every)),
        amounts("burst p50", (figures.milliseconds(one.sustained.burst_ms if one.sustained else None) for one in every)),
        amounts("sustained p50", (figures.milliseconds(one.sustained.sustained_ms if one.sustained else None) for one in every)),
        amounts("sustained ÷ burst", (figures.ratio(one.sustained.ratio if one.sustained else None) for one in every)),
        amounts("p50 ÷ reference", (_ratio(one, reference) for one in every)),
        amounts("warm-up", (str(one.warmup_runs) for one in every)),
        words("rung", (str(rung) for _, _, rung in timed)),
        words("status", (one.status for one in every)),
    )
    failed = (index for index, one in enumerate(every) if one.status == "INVALID")
    here = "" if all(map(elsewhere, every)) else f"On {report.device.get('processor', 'an unknown processor')}; "
    if here and any(map(elsewhere, every)):
        here = f"{here[:-2]}, but for what is named after a device; "
    sentences = [f"{here}percentiles are nearest-rank, of raw samples that report.json keeps."]
    if any(one.p90_early_stopping is not None for one in every):
        sentences.append(
            "An early stopping estimate is MLPerf's: for independent runs the device's own percentile lies above it with a chance of 1% at"
            " most; a percentile without samples enough for one is withheld."
        )
    for name, one, _ in timed:
        sentences.append(f"{name}: {one.status}{''.join(f'; {why}' for why in _told(one))}. {listed(one.conditions)}")
    return section("latency", "Latency", sentences, (table("", columns, failed),))


def contention(subjects: Sequence[Subject]) -> list[str]:
    """One sentence for each machine that had other work while latencies were taken on it, with the names of those that are VALID."""
    found: dict[str, list[str]] = {}
    for subject in subjects:
        one = subject.latency
        if one is not None and one.state is not None and one.status == "VALID" and (why := "; ".join(contended(one.state))):
            found.setdefault(why, []).append(subject.name)
    return [
        f"latency of {', '.join(names)} was taken on a machine with other work: {why}. VALID says that samples were steady, not that the"
        " machine was free: what holds is p50 ÷ torch"
        for why, names in found.items()
    ]


def _told(one: Measurement) -> list[str]:
    """What is to be said of a measurement beside its figures."""
    return [*one.reasons, *one.notes, *([str(one.sustained)] if one.sustained is not None else [])]


def elsewhere(one: Measurement) -> bool:
    """Whether it was taken on another machine than the reference's, so that their ratio is that of the machines."""
    return "device" in one.conditions


def _ratio(one: Measurement, reference: Measurement | None) -> str:
    from dtvit_deploy.errors import InputError
    from dtvit_deploy.harness.latency import ratio

    if reference is None or one is reference or elsewhere(one):
        return ABSENT
    try:
        return str(ratio(one, reference)) + " ?" * ("INVALID" in (one.status, reference.status))
    except InputError:
        return ABSENT


def excess(module: ModuleDifference, precision: str) -> float:
    """Error in units of the noise floor; of the precision's own rounding where the floor is less."""
    from dtvit_deploy.harness.parity import ROUNDOFF

    if figures.infinite(module.error):
        return math.inf
    floor = 0.0 if figures.infinite(module.floor) else module.floor
    least = max(floor, {str(one): value for one, value in ROUNDOFF.items()}.get(precision, 0.0))
    return module.error / least if least else (math.inf if module.error else 0.0)


def lost(module: ModuleDifference, subject: Subject) -> float:
    """What modules are ranked by: the error that a module adds where there is no noise floor; else how far it is above its floor."""
    return module.added if subject.quantised else excess(module, subject.precision)


def layers(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    tables, sentences = [], []
    for name, subject in pairs:
        found = subject.layers
        if found is None:
            continue
        sentences.append(f"{name}: {found.verdict} ({counted(found)}, {found.rung or subject.rung})")
        ranked = sorted(found.modules, key=lambda one: -lost(one, subject))[:WORST]
        conditions = f"error is the root mean square of Δ over that of the tensor; {listed(own(found.conditions or subject.conditions))}"
        if ranked:
            order = "those that add most error" if subject.quantised else "the furthest above their floor"
            caption = f"{name}: {len(ranked)} of {plural.counted(len(found.modules), 'module')}, {order} first; {conditions}"
            tables.append(_modules(caption, ranked, subject))
        if len(ranked) < len(found.modules):
            tables.append(
                _modules(
                    f"{name}: all {plural.counted(len(found.modules), 'module')} in the order of execution",
                    found.modules,
                    subject,
                    long=True,
                )
            )
    return section("layers", "Layers", sentences, tables)


def counted(found: LayerReport) -> str:
    """What a layer report is of, and which runtime gave the tensors."""
    where = f", in {found.conditions['runtime']}" if "runtime" in found.conditions else ""
    tensors = plural.counted(found.program_tensors, "program tensor")
    return f"{plural.counted(found.samples, 'sample')}, {len(found.layers)} of {tensors}{where}"


def plans(pairs: Sequence[tuple[str, Subject]]) -> Section | None:
    """Which units operations are meant for; those that are not meant for the main one, with their modules, in a folded table."""
    tables, sentences = [], []
    for name, subject in pairs:
        plan = subject.plan
        if plan is None:
            continue
        sentences.append(f"{name}: {plan}.")
        columns = (
            words("operation", (one.name for one in plan.elsewhere)),
            words("type", (one.operator for one in plan.elsewhere)),
            words("unit", (one.preferred for one in plan.elsewhere)),
            words("could run on", (", ".join(one.supported) for one in plan.elsewhere)),
            amounts("share of the cost", (ABSENT if one.cost is None else f"{one.cost:.2%}" for one in plan.elsewhere)),
            words("torch module", (one.module for one in plan.elsewhere)),
        )
        verb = "is" if len(plan.elsewhere) == 1 else "are"
        caption = (
            f"{name}: {len(plan.elsewhere)} of {plural.counted(len(plan.operations), 'operation')} {verb} not meant for the {plan.main}"
        )
        tables.append(table(caption, columns, long=True))
    if sentences:
        sentences.insert(0, "A compute plan is what Core ML anticipates, and no measurement; its costs are estimates.")
    return section("plan", "Compute plan", sentences, tables)


def _modules(caption: str, modules: Sequence[ModuleDifference], subject: Subject, *, long: bool = False) -> Table:
    first = subject.layers.first if subject.layers is not None else None
    columns = (
        words("module", (one.module or "(the network itself)" for one in modules)),
        amounts("tensors", (str(one.tensors) for one in modules)),
        amounts("inherited", (figures.number(one.inherited) for one in modules)),
        amounts("error", (figures.number(one.error) for one in modules)),
        *(
            (amounts("added", (figures.number(one.added) for one in modules)),)
            if subject.quantised
            else (
                amounts("floor", (figures.number(one.floor) for one in modules)),
                amounts("error ÷ floor", (_times(excess(one, subject.precision)) for one in modules)),
            )
        ),
        words("finding", (finding(subject.layers, one) for one in modules)),
    )
    return table(caption, columns, (index for index, one in enumerate(modules) if first is not None and one.suspect), long=long)


def finding(report: LayerReport | None, module: ModuleDifference, here: str = "the error arises here") -> str:
    """What is to be said of a module; none is suspected where no error reaches an output."""
    if report is None or report.first is None:
        return "above its floor" if module.suspect else ""
    return here if module.module == report.first else "suspect" if module.suspect else ""


def _times(excess: float) -> str:
    return figures.number(excess) if figures.infinite(excess) or excess >= 1e5 else f"{excess:.2f}"

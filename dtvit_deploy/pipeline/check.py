"""Artefacts against their reference, on some material, held to gates: the composition behind verify, evaluate, profile and run."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from dtvit_deploy.accuracy import Accuracy
from dtvit_deploy.artifact import Artifact
from dtvit_deploy.devices import local
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.evidence import Rung
from dtvit_deploy.latency import Measurement, MeasureOptions
from dtvit_deploy.layers import LayerReport
from dtvit_deploy.parity import REAL, Difference
from dtvit_deploy.pipeline import measure
from dtvit_deploy.pipeline.calibration_set import SYNTHETIC
from dtvit_deploy.pipeline.material import NOT_REAL, Material
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import ProgramEntry, versions
from dtvit_deploy.recipe import Gates, Limits
from dtvit_deploy.recommend import Candidate, recommend
from dtvit_deploy.report.schema import Report, Subject
from dtvit_deploy.runtimes.registry import open_session, runtime_for, why_emulated
from dtvit_deploy.search import Search
from dtvit_deploy.target import Precision
from dtvit_deploy.verdict import Gate, at_least, at_most, holds, verdict

_EMULATED = "emulated, at a speed that is not the device's; a figure needs the device"


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What to measure. ``parity`` is the number of real samples; 0 measures none. ``cuda_graph`` is that of every session."""

    parity: int = 0
    layers: bool = False
    accuracy: bool = False
    latency: MeasureOptions | None = None
    cuda_graph: bool = True


def check(
    command: str,
    program: ProgramEntry,
    artifacts: Sequence[Artifact],
    material: Material,
    wants: Wants,
    *,
    threads: int,
    gates: Gates | None = None,
    progress: Progress,
) -> Report:
    """Measure what is wanted, hold it to the gates, and report.

    Raises:
        InputError: an artefact is not derived from ``program``, or the material does not fit.
        MissingError: nothing but a latency is wanted, and nothing that could be timed is here.
    """
    for artifact in artifacts:
        require_same_root(artifact, program)
    bench = measure.Bench(program, tuple(artifacts), material, threads, progress, wants.cuda_graph)
    untimed = [artifact.name for artifact in artifacts if measure.is_emulated(artifact)] if wants.latency is not None else []
    if len(untimed) == len(artifacts) and wants == Wants(latency=wants.latency, cuda_graph=wants.cuda_graph):
        reasons = "; ".join(dict.fromkeys(map(why_emulated, artifacts)))
        raise MissingError(
            f"the latency of {', '.join(untimed)} cannot be measured here: {_EMULATED} ({reasons})",
            remedy="profile on the device; verify and evaluate work here",
        )
    scored = measure.accuracy(bench) if wants.accuracy else []  # first: this alone reads every image, and finds the broken one
    compared = measure.parity(bench, wants.parity) if wants.parity else []
    inside = measure.layers(bench) if wants.layers else []
    timed = measure.latency(bench, wants.latency) if wants.latency is not None else []
    subjects = [_reference(bench, scored, timed)]
    for index, artifact in enumerate(artifacts):
        subjects.append(
            _subject(
                bench,
                artifact,
                parity=compared[index] if compared else (),
                layers=inside[index] if inside else None,
                accuracy=scored[index + 1] if scored else None,
                reference=scored[0] if scored else None,
                latency=timed[index + 1] if timed else None,
                gates=gates or Gates(),
            )
        )
    manifest = program.artifact.manifest
    every = [gate for subject in subjects if subject.verdict for gate in subject.verdict.gates]
    advice, places = recommend(list(map(_candidate, artifacts, subjects[1:])), subjects[0].accuracy) if scored and timed else ((), ())
    every += places
    notes = [note for link in manifest.lineage for note in link.notes]
    notes += [*_stains(artifacts), *(() if material.real else (NOT_REAL,))]
    emulated = [artifact.name for artifact in artifacts if measure.is_emulated(artifact)]
    notes += [f"{', '.join(emulated)}: emulated; their graphs were evaluated by another engine than the vendor's"] if emulated else []
    notes += [f"latency of {', '.join(untimed)} not measured: {_EMULATED}"] if untimed else []
    return Report(
        command=command,
        model=manifest.model,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        lineage=tuple(f"{link.kind} {link.sha256}" for link in manifest.lineage),
        data=material.facts() | _counts(wants, material, timed=any(timed)),
        device=local.state(),
        versions=versions("torch", "onnx", "onnxruntime", "onnxsim", "openvino", "numpy"),
        subjects=tuple(subjects),
        notes=tuple(notes),
        recommendations=advice,
        verdict=verdict(every) if every else None,
    )


def _stains(artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """Said loudly, over all figures: which artefacts were calibrated on no data, or on those that they are judged by."""
    found = []
    for artifact in artifacts:
        link = artifact.manifest.parent("int8")
        options = link.options if link is not None else {}
        if options.get("synthetic") is True:
            found.append(f"{artifact.name}: {SYNTHETIC}")
        if options.get("leaked"):
            found.append(
                f"{artifact.name}: CALIBRATED ON {options['leaked']} EVALUATION IMAGES (--allow-leak), which its accuracy proves little on"
            )
    return tuple(found)


def _counts(wants: Wants, material: Material, *, timed: bool) -> dict[str, str]:
    """How much of the material each kind of figure was taken on."""
    counts: dict[str, str] = {}
    if wants.parity:
        counts["parity"] = f"{min(wants.parity, len(material))} samples and {len(material.adversarial())} adversarial feeds"
    if wants.layers:
        counts["layers"] = f"{min(measure.LAYER_SAMPLES, len(material))} samples"
    if wants.accuracy:
        counts["accuracy"] = f"{len(material)} samples"
    if timed:
        counts["latency"] = "1 sample, again and again"
    return counts


def require_same_root(artifact: Artifact, program: ProgramEntry) -> None:
    """Refuse to compare an artefact with a program that it was not made from."""
    link = artifact.manifest.parent("program")
    mine = program.artifact.manifest.sha256
    if link is None or link.sha256 != mine:
        made_from = link.sha256[:16] + "…" if link else "no program"
        raise InputError(
            f"{artifact.name} was made from {made_from}, not from the reference {mine[:16]}…: comparing them would mean nothing",
            remedy="give the model and the checkpoint that it was exported from; another torch release traces another program, so after an"
            f" upgrade export again (made with torch {link.tools.get('torch', '?') if link else '?'})",
        )


def _reference(bench: measure.Bench, scored: list[Accuracy], timed: list[Measurement | None]) -> Subject:
    artifact = bench.program.artifact
    runtime = runtime_for(artifact)
    return Subject(
        name="torch FP32",
        file="",
        sha256=artifact.manifest.sha256,
        precision=str(artifact.manifest.precision),
        rung=runtime.rung,
        conditions={"runtime": f"torch {runtime.available().version}", "threads": str(bench.threads), "precision": "fp32"},
        accuracy=scored[0] if scored else None,
        latency=timed[0] if timed else None,
    )


def _subject(
    bench: measure.Bench,
    artifact: Artifact,
    *,
    parity: tuple[Difference, ...],
    layers: LayerReport | None,
    accuracy: Accuracy | None,
    reference: Accuracy | None,
    latency: Measurement | None,
    gates: Gates,
) -> Subject:
    manifest = artifact.manifest
    with open_session(artifact, bench.options()) as session:
        conditions = session.conditions
    held = _gates(gates.of(manifest.precision), parity, accuracy, reference, latency, artifact.name)
    held += _not_measured(getattr(gates, manifest.precision.value), held, artifact.name)
    return Subject(
        name=f"{manifest.format.upper()} {manifest.precision.value.upper()}",
        file=artifact.name,
        sha256=manifest.sha256,
        precision=str(manifest.precision),
        rung=runtime_for(artifact).rung,
        conditions=conditions,
        bytes=artifact.bytes,
        notes=tuple(note for link in manifest.lineage for note in link.notes if link.kind not in ("checkpoint", "seeded")),
        parity=parity,
        accuracy=accuracy,
        latency=latency,
        layers=layers,
        search=_search_of(artifact),
        verdict=verdict(held) if held else None,
    )


def _candidate(artifact: Artifact, subject: Subject) -> Candidate:
    return Candidate(
        runtime=artifact.manifest.format,
        name=subject.name,
        file=subject.file,
        precision=artifact.manifest.precision,
        products=_products(artifact),
        sound=subject.verdict is not None and subject.verdict.passed,
        accuracy=subject.accuracy,
        latency=subject.latency,
        emulated=subject.rung is Rung.EMULATED,
    )


def _products(artifact: Artifact) -> int:
    """Products that are INT8, as the manifest says; NNCF does not tell, and quantises what there is."""
    link = artifact.manifest.parent("int8")
    found = link.options.get("products") if link is not None else int(artifact.manifest.precision is Precision.INT8)
    return found if isinstance(found, int) else 0


def _search_of(artifact: Artifact) -> Search | None:
    """What the search for an INT8 artefact found, as its manifest has it."""
    link = artifact.manifest.parent("int8")
    if link is None or "search" not in link.options:
        return None
    try:
        return msgspec.convert(link.options["search"], Search)
    except msgspec.ValidationError as error:
        raise InputError(f"the manifest of {artifact.name} tells of a search that makes no sense: {error}") from error


def _not_measured(asked: Limits, held: list[Gate], name: str) -> list[Gate]:
    """A gate that fails for every limit that a recipe sets and that nothing measured could be held to."""
    said = {"agreement": "top-1 agreement", "max_abs": "max |Δ| of", "cosine": "cosine of", "top1_drop": "loss of top-1", "p50_ms": "p50"}
    return [
        at_most(f"{name}: {words} (gate {limit!r} of the recipe)", None, getattr(asked, limit))
        for limit, words in said.items()
        if getattr(asked, limit) is not None and not any(gate.name.startswith(f"{name}: {words}") for gate in held)
    ]


def _gates(
    limits: Limits,
    parity: tuple[Difference, ...],
    accuracy: Accuracy | None,
    reference: Accuracy | None,
    latency: Measurement | None,
    name: str,
) -> list[Gate]:
    """The gates that what was measured can be held to."""
    label = f"{name}: "
    found = [holds(f"{label}parity of {one.output!r} on {one.feeds}", one.passed, one.reason or one.reached) for one in parity]
    real = [one for one in parity if one.feeds in REAL]
    if limits.agreement is not None:
        found += [
            at_least(f"{label}top-1 agreement of {one.output!r}, near-ties apart", one.decided_agreement, limits.agreement)
            for one in real
            if one.agreement is not None
        ]
        if not real and any(one.agreement is not None and one.tolerance is None for one in parity):
            # Without a tolerance, nothing but agreement says that the decisions are still the same.
            found.append(at_least(f"{label}top-1 agreement on real input (give --data)", None, limits.agreement))
        if accuracy is not None:
            found.append(at_least(f"{label}top-1 agreement over all images", accuracy.agreement, limits.agreement))
    if limits.max_abs is not None:
        found += [at_most(f"{label}max |Δ| of {one.output!r} on {one.feeds}", one.max_abs, limits.max_abs) for one in real]
    if limits.cosine is not None:
        found += [at_least(f"{label}cosine of {one.output!r}", one.cosine, limits.cosine) for one in real]
    if limits.top1_drop is not None and accuracy is not None and reference is not None:
        both = accuracy.top1 is not None and reference.top1 is not None
        # Two of 500 images are 0.004, and not 0.0040000000000000036.
        drop = round(reference.top1 - accuracy.top1, 9) if both else None  # type: ignore[operator]
        found.append(at_most(f"{label}loss of top-1", drop, limits.top1_drop))
    if limits.p50_ms is not None and latency is not None:
        found.append(at_most(f"{label}p50", latency.p50 if latency.status == "VALID" else None, limits.p50_ms, "ms"))
    return found

"""Artefacts against their reference, on some material, held to gates: the composition behind verify, evaluate, profile and run."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.devices import local
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.harness.parity import LEAST_SQNR, Difference
from dtvit_deploy.harness.recommend import recommend
from dtvit_deploy.harness.verdict import verdict
from dtvit_deploy.pipeline import measure, scoring, timing
from dtvit_deploy.pipeline.arm64 import SAMPLES, emulated_arm64, known_on_arm64, meant_for_arm64
from dtvit_deploy.pipeline.calibration_set import SYNTHETIC
from dtvit_deploy.pipeline.compared import parity
from dtvit_deploy.pipeline.gates import disagrees
from dtvit_deploy.pipeline.material import NOT_REAL, Material
from dtvit_deploy.pipeline.origin import require_same_root
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import NOT_INSTALLED, ProgramEntry, versions
from dtvit_deploy.pipeline.subjects import candidate_of, reference_subject, subject_of
from dtvit_deploy.plural import counted, some
from dtvit_deploy.recipe import Gates
from dtvit_deploy.report.schema import Report, Subject
from dtvit_deploy.runtimes.pairing import pairings
from dtvit_deploy.runtimes.registry import why_emulated

_EMULATED = "emulated, at a speed that is not the device's; a figure needs the device"

AGREEMENT_ONLY = "agreement only: the samples have no labels, so that nothing is said of how many answers are right"


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What to measure.

    Attributes:
        parity: number of real samples; 0 measures none.
        adversarial: whether parity is measured on adversarial feeds too.
        tolerances: greatest |Δ| of outputs by name, in place of measured ones.
        layers: whether inner tensors are walked; None does it for those that parity fails.
        cuda_graph: of every session.
        arm64: whether ONNX artefacts are to run on an ARM64 CPU; those that were exported for one are anyway.
    """

    parity: int = 0
    adversarial: bool = True
    tolerances: Mapping[str, float] = field(default_factory=dict)
    layers: bool | None = None
    accuracy: bool = False
    latency: MeasureOptions | None = None
    cuda_graph: bool = True
    arm64: bool = False


def check(
    command: str,
    program: ProgramEntry,
    artifacts: Sequence[Artifact],
    material: Material,
    wants: Wants,
    *,
    threads: int,
    runtimes: Sequence[str] = (),
    gates: Gates | None = None,
    progress: Progress,
) -> Report:
    """Measure what is wanted, hold it to the gates, and report.

    Args:
        command: that asks, for the report.
        program: the reference.
        artifacts: made from it.
        material: what is fed.
        wants: what is measured.
        threads: of one inference.
        runtimes: names of those that artefacts are loaded in, each in every one that loads its format; the best here by default.
        gates: of a recipe.
        progress: told what is going on.

    Raises:
        InputError: an artefact is not derived from ``program``, the material does not fit, or a runtime loads none of the artefacts.
        MissingError: a runtime cannot be used here; or nothing but a latency is wanted, and nothing that could be timed is here.
    """
    for artifact in artifacts:
        require_same_root(artifact, program)
    if wants.arm64 and not any(artifact.manifest.format == "onnx" for artifact in artifacts):
        raise InputError(
            f"--arm64 is for ONNX artefacts, and {', '.join(artifact.name for artifact in artifacts)} are none",
            remedy="leave it out: what it looks at is ONNX Runtime's arithmetic",
        )
    only_timed = wants.latency is not None and not (wants.parity or wants.layers or wants.accuracy)
    found = pairings(artifacts, runtimes, timed=only_timed)
    bench = measure.Bench(program, found, material, threads, progress, wants.cuda_graph)
    emulated = [one for one in found if one.emulated]
    untimed = ", ".join(one.name for one in emulated) if wants.latency is not None else ""
    if only_timed and untimed and len(emulated) == len(found):
        reasons = "; ".join(dict.fromkeys(why_emulated(one.artifact) for one in emulated))
        raise MissingError(
            f"the latency of {untimed} cannot be measured here: {_EMULATED} ({reasons})",
            remedy="profile on the device; verify and evaluate work here",
        )
    gates = gates or Gates()
    scored = scoring.accuracy(bench) if wants.accuracy else []  # first: this alone reads every image, and finds the broken one
    compared = parity(bench, wants.parity, adversarial=wants.adversarial, tolerances=wants.tolerances) if wants.parity else []
    inside = _inside(bench, wants, compared, gates)
    timed = timing.latency(bench, wants.latency) if wants.latency is not None else []
    subjects = [reference_subject(bench, scored, timed)]
    for index, pairing in enumerate(found):
        subjects.append(
            subject_of(
                bench,
                pairing,
                parity=compared[index] if compared else (),
                layers=inside[index] if inside else None,
                accuracy=scored[index + 1] if scored else None,
                reference=scored[0] if scored else None,
                timed=timed[index + 1] if timed else timing.Timed(),
                gates=gates,
            )
        )
    there = [one for one in artifacts if wants.arm64 or meant_for_arm64(one)] if wants.parity else []
    subjects += _on_arm64(bench, there, wants, gates)
    manifest = program.artifact.manifest
    every = [gate for subject in subjects if subject.verdict for gate in subject.verdict.gates]
    advice, places = (
        recommend(list(map(candidate_of, found, subjects[1 : len(found) + 1])), subjects[0].accuracy) if scored and timed else ((), ())
    )
    every += places
    notes = [note for link in manifest.lineage for note in link.notes]
    notes += [*_stains(artifacts), *(() if material.real else (NOT_REAL,)), *material.notes]
    if scored and material.images is not None and material.images.alphabetical:
        order = some([f"{name} is {number}" for number, name in enumerate(material.images.classes)])
        notes.append(f"the classes were numbered in alphabetical order ({order}), as neither the checkpoint nor --class-map orders them")
    if scored and scored[0].top1 is None:
        notes.append(AGREEMENT_ONLY)
    notes += [
        f"{artifact.name}: its weights are quantised, so that it is held to an SQNR of at least {LEAST_SQNR:g} dB on real input,"
        f" as INT8 is, and not to the rounding of {artifact.manifest.precision.value.upper()}"
        for artifact in artifacts
        if artifact.manifest.judged_as is not artifact.manifest.precision
    ]
    for artifact in artifacts if wants.parity else ():
        known, told = known_on_arm64(artifact, held=artifact in there)
        every += known
        notes += told
    names = ", ".join(one.name for one in emulated)
    notes += [f"{names}: emulated; their graphs were evaluated by another engine than the vendor's"] if emulated else []
    notes += [f"latency of {untimed} not measured: {_EMULATED}"] if untimed else []
    return Report(
        command=command,
        model=manifest.model,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        lineage=tuple(f"{link.kind} {link.sha256}" for link in manifest.lineage),
        data=material.facts() | _counts(wants, material, layers=any(inside), timed=any(one.latency for one in timed)),
        device=local.state(),
        versions=_versions(artifacts),
        subjects=tuple(subjects),
        notes=tuple(notes),
        recommendations=advice,
        verdict=verdict(every) if every else None,
    )


def _on_arm64(bench: measure.Bench, artifacts: Sequence[Artifact], wants: Wants, gates: Gates) -> list[Subject]:
    """FP16 artefacts as an ARM64 core adds, against an ideal that adds so; gates on accuracy and latency are for what runs here."""
    found = emulated_arm64(artifacts)
    if not found:
        return []
    bench = dataclasses.replace(bench, pairings=found, adding=True)
    compared = parity(bench, min(wants.parity, SAMPLES), adversarial=wants.adversarial, tolerances=wants.tolerances)
    inside = _inside(bench, wants, compared, gates)
    held = msgspec.structs.replace(gates, fp16=msgspec.structs.replace(gates.fp16, top1_drop=None, p50_ms=None))
    return [
        subject_of(
            bench,
            pairing,
            parity=differences,
            layers=inside[index] if inside else None,
            accuracy=None,
            reference=None,
            timed=timing.Timed(),
            gates=held,
        )
        for index, (pairing, differences) in enumerate(zip(found, compared, strict=True))
    ]


def _versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Of the packages here that artefacts were made with, and of those that everything is compared with."""
    tools = {tool for artifact in artifacts for link in artifact.manifest.lineage for tool in link.tools}
    named = (tool for tool in sorted(tools) if re.fullmatch(r"[\w-]{1,40}", tool, re.ASCII))
    return {name: version for name, version in versions("torch", "numpy", *named).items() if version != NOT_INSTALLED}


def _inside(bench: measure.Bench, wants: Wants, compared: list[tuple[Difference, ...]], gates: Gates) -> list[LayerReport | None]:
    """The layers of all, of none, or of those whose outputs are wrong: who reads that wants to know of which module it is the fault."""
    if wants.layers is False:
        return []
    judged = [
        (one, disagrees(gates.of(one.artifact.manifest.precision), found)) for one, found in zip(bench.pairings, compared, strict=False)
    ]
    if wants.layers:
        return measure.layers(bench, sound=[one.key for one, is_wrong in judged if not is_wrong])
    wrong = [one for one, is_wrong in judged if is_wrong]
    return measure.layers(bench, wrong) if wrong else []


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


def _counts(wants: Wants, material: Material, *, layers: bool, timed: bool) -> dict[str, str]:
    """How much of the material each kind of figure was taken on."""
    counts: dict[str, str] = {}
    if wants.parity:
        adversarial = len(material.adversarial()) if wants.adversarial else 0
        counts["parity"] = f"{counted(min(wants.parity, len(material)), 'sample')} and {counted(adversarial, 'adversarial feed')}"
    if layers:
        counts["layers"] = counted(min(measure.LAYER_SAMPLES, len(material)), "sample")
    if wants.accuracy:
        counts["accuracy"] = counted(len(material), "sample")
    if timed:
        counts["latency"] = "1 sample, again and again"
    return counts

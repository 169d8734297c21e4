"""Figures of artefacts are held to the gates and become a report: the composition behind verify, evaluate, profile and run."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.devices import local
from dtvit_deploy.harness.class_scores import is_row
from dtvit_deploy.harness.parity import LEAST_SQNR
from dtvit_deploy.harness.recommend import Recommendation, recommend
from dtvit_deploy.harness.verdict import Gate, holds, verdict
from dtvit_deploy.pipeline import measure, timing
from dtvit_deploy.pipeline.arm64 import emulated_arm64, known_on_arm64
from dtvit_deploy.pipeline.calibration_set import SYNTHETIC
from dtvit_deploy.pipeline.elsewhere import EMULATED
from dtvit_deploy.pipeline.figures import Figures, Measured
from dtvit_deploy.pipeline.gates import CLASS_SCORES, measured_at_all
from dtvit_deploy.pipeline.material import NOT_REAL, Material
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import NOT_INSTALLED, versions
from dtvit_deploy.pipeline.subjects import candidate_of, reference_subject, subject_of
from dtvit_deploy.pipeline.taking import adds_in_half, bench_of, for_arm64, taken
from dtvit_deploy.plural import counted, some
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.place import Place, There
from dtvit_deploy.remote.told import ABOUT
from dtvit_deploy.report.schema import Report, Subject

AGREEMENT_ONLY = "agreement only: the samples have no labels, so that nothing is said of how many answers are right"


def check(
    command: str,
    program: ProgramEntry,
    artifacts: Sequence[Artifact],
    material: Material,
    recipe: Recipe,
    figures: Figures,
    progress: Progress,
    places: Sequence[Place] = (),
) -> Report:
    """Take figures, on this machine and on the request's devices, hold them to the gates, and report.

    Args:
        command: that asks, for the report.
        program: the reference.
        artifacts: made from it.
        material: what is fed.
        recipe: how figures are taken, in which runtimes, and the gates.
        figures: which are taken.
        progress: told what is going on.
        places: the request's devices, reached.

    Raises:
        InputError: an artefact is not derived from ``program``, the material does not fit, or a runtime loads none of the artefacts.
        MissingError: a runtime cannot be used here; or nothing but a latency is wanted, and nothing that could be timed is here.
    """
    bench = bench_of(program, artifacts, material, recipe, figures, progress, places)
    found = taken(bench, recipe, figures)
    return judged(command, bench, artifacts, recipe, figures, found)


def judged(
    command: str,
    bench: measure.Bench,
    artifacts: Sequence[Artifact],
    recipe: Recipe,
    figures: Figures,
    measured: Measured,
    missing: Sequence[tuple[str, str]] = (),
) -> Report:
    """The report of figures that were taken.

    Args:
        command, artifacts, recipe, figures: as of `check`.
        bench: artefacts in their runtimes; no session of it is opened.
        measured: the figures.
        missing: names of what was to be built and could not, and why.
    """
    measured = _of_decisions(bench, figures, measured)
    scored, timed, compared = measured.scored, measured.timed, measured.compared
    material, manifest = bench.material, bench.program.artifact.manifest
    subjects = [reference_subject(bench, scored, timed)]
    for index, pairing in enumerate(bench.pairings):
        subjects.append(
            subject_of(
                pairing,
                measured.conditions[index],
                parity=compared.outputs[index] if compared.outputs else (),
                layers=compared.layers[index] if compared.layers else None,
                accuracy=scored[index + 1] if scored else None,
                reference=scored[0] if scored else None,
                timed=timed[index + 1] if timed else timing.Timed(),
                gates=recipe.gates,
            )
        )
    subjects += _on_arm64(artifacts, recipe, measured)
    every = [gate for subject in subjects if subject.verdict for gate in subject.verdict.gates]
    every += [holds(f"{name}: built", False, why) for name, why in missing]
    latencies = {f"{subject.name}, {subject.file}": subject.latency for subject in subjects[1:] if subject.latency is not None}
    every += [measured_at_all(latencies)] if figures.only_latency else []
    advice, places = _advice(bench, subjects, measured)
    every += places
    notes = [*_notes(artifacts, material, bench.program), *_notes_of_accuracy(material, measured)]
    notes += _undecided(bench, artifacts) if figures.parity else []
    there = for_arm64(artifacts, recipe)
    for artifact in artifacts if figures.parity else ():
        known, told = known_on_arm64(artifact, held=artifact in there)
        every += known
        notes += told
    notes += [*_notes_of_emulation(bench, figures), *_notes_of_sums(bench)]
    return Report(
        command=command,
        model=manifest.model,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        lineage=tuple(f"{link.kind} {link.sha256}" for link in manifest.lineage),
        data=material.facts() | _counts(recipe, figures, material, measured),
        device=(measured.device or local.state()) | _elsewhere(bench, measured),
        versions=_versions(artifacts),
        subjects=tuple(subjects),
        notes=tuple(notes),
        recommendations=advice,
        verdict=verdict(every) if every else None,
    )


def _elsewhere(bench: measure.Bench, measured: Measured) -> dict[str, str]:
    """What is to be said of the other machines that figures come from."""
    found = {f"{what} taken by": worker for what, worker in measured.workers.items()}
    for pairing, conditions in zip(bench.pairings, measured.conditions, strict=True):
        if pairing.device:
            found[f"on {pairing.device}"] = ", ".join(conditions[name] for name in ABOUT if name in conditions)
    return found


def _notes_of_emulation(bench: measure.Bench, figures: Figures) -> list[str]:
    engines, processors = (
        ", ".join(one.name for one in bench.pairings if one.runtime.rung is rung) for rung in (Rung.EMULATED, Rung.EMULATED_PROCESSOR)
    )
    notes = [f"{engines}: emulated; their graphs were evaluated by another engine than the vendor's"] if engines else []
    notes += [f"{processors}: run on an emulated processor, whose answers count, and no time that it takes"] if processors else []
    emulated = ", ".join(filter(None, (engines, processors)))
    return [*notes, f"latency of {emulated} not measured: {EMULATED}"] if emulated and figures.latency else notes


def _notes_of_sums(bench: measure.Bench) -> list[str]:
    """Where FP16 was judged by more than a device may need, since it does not say how its cores add."""
    unsure = [one.name for one in bench.pairings if adds_in_half(one) and isinstance(one.runtime, There) and one.runtime.may_add_in_half]
    told = "judged by an ideal that adds in FP16, as nothing says whether the cores there have FP16 arithmetic; without it less is allowed"
    return [f"{', '.join(unsure)}: {told}"] if unsure else []


def _of_decisions(bench: measure.Bench, figures: Figures, measured: Measured) -> Measured:
    """Without accuracy that was taken by the way, of an output whose greatest entry is no decision; who asks for it alone has it."""
    return measured if bench.class_scores or not figures.parity else msgspec.structs.replace(measured, scored=())


def _undecided(bench: measure.Bench, artifacts: Sequence[Artifact]) -> list[str]:
    """That no decision is held to anything, where INT8 or labels would want one, and nobody said that there is none."""
    rows = [spec.name for spec in bench.material.signature.outputs if is_row(spec)]
    quantised = any(artifact.manifest.judged_as is Precision.INT8 for artifact in artifacts)
    labelled = bench.material.images is not None and bench.material.images.labelled
    if not rows or not (quantised or labelled) or bench.class_scores or bench.called_scores is not None:
        return []
    named = f"{some([repr(name) for name in rows])} {'is' if len(rows) == 1 else 'are'} class scores"
    told = f"no top-1 is compared{', and INT8 is held to its SQNR alone' if quantised else ''}: nothing says that {named}"
    return [f"{told}; --class-scores NAME says so, and --class-scores none that there are none ({CLASS_SCORES})"]


def _advice(bench: measure.Bench, subjects: Sequence[Subject], measured: Measured) -> tuple[tuple[Recommendation, ...], tuple[Gate, ...]]:
    """What to ship, where both accuracy and latency are known."""
    if not (measured.scored and measured.timed):
        return (), ()
    return recommend(list(map(candidate_of, bench.pairings, subjects[1 : len(bench.pairings) + 1])), subjects[0].accuracy)


def _notes(artifacts: Sequence[Artifact], material: Material, program: ProgramEntry) -> list[str]:
    """What is to be known before any figure."""
    notes = [note for link in program.artifact.manifest.lineage for note in link.notes]
    notes += [*_stains(artifacts), *(() if material.real else (NOT_REAL,)), *material.notes]
    return notes + [
        f"{artifact.name}: its weights are quantised, so that it is held to an SQNR of at least {LEAST_SQNR:g} dB on real input,"
        f" as INT8 is, and not to the rounding of {artifact.manifest.precision.value.upper()}"
        for artifact in artifacts
        if artifact.manifest.judged_as is not artifact.manifest.precision
    ]


def _notes_of_accuracy(material: Material, measured: Measured) -> list[str]:
    if not measured.scored:
        return []
    notes = []
    if material.images is not None and material.images.alphabetical:
        order = some([f"{name} is {number}" for number, name in enumerate(material.images.classes)])
        notes.append(f"the classes were numbered in alphabetical order ({order}), as neither the checkpoint nor --class-map orders them")
    if measured.scored[0].top1 is None:
        notes.append(AGREEMENT_ONLY)
    return notes


def _on_arm64(artifacts: Sequence[Artifact], recipe: Recipe, measured: Measured) -> list[Subject]:
    """FP16 artefacts as an ARM64 core adds, against an ideal that adds so; gates on accuracy and latency are for what runs here."""
    found, gates = measured.on_arm64, recipe.gates
    if not found.outputs:
        return []
    held = msgspec.structs.replace(gates, fp16=msgspec.structs.replace(gates.fp16, top1_drop=None, p50_ms=None))
    return [
        subject_of(
            pairing,
            measured.conditions_on_arm64[index],
            parity=found.outputs[index],
            layers=found.layers[index] if found.layers else None,
            accuracy=None,
            reference=None,
            timed=timing.Timed(),
            gates=held,
        )
        for index, pairing in enumerate(emulated_arm64(for_arm64(artifacts, recipe)))
    ]


def _versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Of the packages here that artefacts were made with, and of those that everything is compared with."""
    tools = {tool for artifact in artifacts for link in artifact.manifest.lineage for tool in link.tools}
    named = (tool for tool in sorted(tools) if re.fullmatch(r"[\w-]{1,40}", tool, re.ASCII))
    return {name: version for name, version in versions("torch", "numpy", *named).items() if version != NOT_INSTALLED}


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


def _counts(recipe: Recipe, figures: Figures, material: Material, measured: Measured) -> dict[str, str]:
    """How much of the material each kind of figure was taken on."""
    counts: dict[str, str] = {}
    if figures.parity:
        adversarial = len(material.adversarial()) if recipe.parity.adversarial else 0
        counts["parity"] = f"{counted(min(recipe.data.samples, len(material)), 'sample')} and {counted(adversarial, 'adversarial feed')}"
    if any(measured.compared.layers):
        counts["layers"] = counted(min(measure.LAYER_SAMPLES, len(material)), "sample")
    if measured.scored:
        counts["accuracy"] = counted(len(material), "sample")
    if any(one.latency for one in measured.timed):
        counts["latency"] = "1 sample, again and again"
    return counts

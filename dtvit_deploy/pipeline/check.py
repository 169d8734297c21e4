"""Figures of artefacts are held to the gates and become a report: the composition behind verify, evaluate, profile and run."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.devices import local
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.class_scores import is_row
from dtvit_deploy.harness.parity import LEAST_SQNR
from dtvit_deploy.harness.recommend import Recommendation, recommend
from dtvit_deploy.harness.verdict import Gate, holds, verdict
from dtvit_deploy.pipeline import measure, timing
from dtvit_deploy.pipeline.arm64 import emulated_arm64, known_on_arm64
from dtvit_deploy.pipeline.calibration_set import SYNTHETIC
from dtvit_deploy.pipeline.elsewhere import EMULATED, measures_here
from dtvit_deploy.pipeline.figures import Figures, Measured
from dtvit_deploy.pipeline.gates import CLASS_SCORES, measured_at_all
from dtvit_deploy.pipeline.material import NOT_REAL, Material
from dtvit_deploy.pipeline.measured_there import Group, Remembered
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import NOT_INSTALLED, versions
from dtvit_deploy.pipeline.subjects import candidate_of, reference_subject, subject_of
from dtvit_deploy.pipeline.taking import bench_of, for_arm64, is_half, require_timed, taken
from dtvit_deploy.plural import counted, some
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.place import Place
from dtvit_deploy.remote.there import There
from dtvit_deploy.remote.told import ABOUT
from dtvit_deploy.report.schema import Report, Subject
from dtvit_deploy.runtimes.pairing import Pairing

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
    bench = bench_of(program, artifacts, material, recipe, figures, progress, places, here=measures_here(recipe))
    if figures.only_latency:
        require_timed(bench)
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
    elsewhere: Sequence[Group] = (),
    more: Sequence[str] = (),
) -> Report:
    """The report of figures that were taken.

    Args:
        command, artifacts, recipe, figures: as of `check`.
        bench: artefacts in their runtimes; no session of it is opened.
        measured: the figures.
        missing: gates that fail since what they are about could not be done, and why it could not.
        elsewhere: what devices have measured besides, each on its own.
        more: notes.
    """
    groups = [Group(one.pairings, _of_decisions(bench, figures, one.measured)) for one in (Group(bench.pairings, measured), *elsewhere)]
    measured = groups[0].measured
    scored = next((one.measured.scored for one in groups if one.measured.scored), ())
    material, manifest = bench.material, bench.program.artifact.manifest
    subjects = [reference_subject(bench, scored, measured.timed), *(subject for one in groups for subject in _subjects(one, recipe))]
    advice, places = _advice(groups, subjects)
    subjects += _on_arm64(artifacts, recipe, measured)
    every = [gate for subject in subjects if subject.verdict for gate in subject.verdict.gates]
    every += [holds(name, False, why) for name, why in missing]
    latencies = {f"{subject.name}, {subject.file}": subject.latency for subject in subjects[1:] if subject.latency is not None}
    every += [measured_at_all(latencies)] if figures.only_latency else []
    every += places
    notes = [*_notes(artifacts, material, bench.program), *_notes_of_accuracy(material, scored), *more]
    notes += _undecided(bench, artifacts) if figures.parity else []
    there = for_arm64(artifacts, recipe)
    for artifact in artifacts if figures.parity else ():
        known, told = known_on_arm64(artifact, held=artifact in there)
        every += known
        notes += told
    every_pairing = [pairing for one in groups for pairing in one.pairings]
    notes += [*_notes_of_emulation(every_pairing, figures), *_notes_of_sums(every_pairing), *_notes_of_energy(groups, recipe, figures)]
    return Report(
        command=command,
        model=manifest.model,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        lineage=tuple(f"{link.kind} {link.sha256}" for link in manifest.lineage),
        data=material.facts() | _counts(recipe, figures, material, [one.measured for one in groups]),
        device=next((one.measured.device for one in groups if one.measured.device), local.state()) | _elsewhere(groups),
        versions=_versions(artifacts),
        subjects=tuple(subjects),
        notes=tuple(notes),
        recommendations=advice,
        verdict=verdict(every) if every else None,
    )


def _subjects(group: Group, recipe: Recipe) -> Iterator[Subject]:
    """What was measured of each artefact on one machine, held to the gates."""
    measured = group.measured
    scored, timed, compared = measured.scored, measured.timed, measured.compared
    for index, pairing in enumerate(group.pairings):
        yield subject_of(
            pairing,
            measured.conditions[index],
            parity=compared.outputs[index] if compared.outputs else (),
            layers=compared.layers[index] if compared.layers else None,
            accuracy=scored[index + 1] if scored else None,
            reference=scored[0] if scored else None,
            timed=timed[index + 1] if timed else timing.Timed(),
            gates=recipe.gates,
        )


def _elsewhere(groups: Sequence[Group]) -> dict[str, str]:
    """What is to be said of the other machines that figures come from."""
    found = {f"{what} taken by": worker for one in groups for what, worker in one.measured.workers.items()}
    for one in groups:
        measured = [f"measured {one.measured.device['measured']}"] if "measured" in one.measured.device else []
        for pairing, conditions in zip(one.pairings, one.measured.conditions, strict=True):
            if pairing.device:
                found[f"on {pairing.device}"] = ", ".join([*(conditions[name] for name in ABOUT if name in conditions), *measured])
    return found


def _notes_of_emulation(pairings: Sequence[Pairing], figures: Figures) -> list[str]:
    engines, processors = (
        ", ".join(one.name for one in pairings if one.runtime.rung is rung) for rung in (Rung.EMULATED, Rung.EMULATED_PROCESSOR)
    )
    notes = [f"{engines}: emulated; their graphs were evaluated by another engine than the vendor's"] if engines else []
    notes += [f"{processors}: run on an emulated processor, whose answers count, and no time that it takes"] if processors else []
    emulated = ", ".join(filter(None, (engines, processors)))
    return [*notes, f"latency of {emulated} not measured: {EMULATED}"] if emulated and figures.latency else notes


def _notes_of_sums(pairings: Sequence[Pairing]) -> list[str]:
    """Where FP16 was judged by more than a device may need, since it does not say how its cores add."""
    unsure = [one.name for one in pairings if is_half(one) and isinstance(one.runtime, There | Remembered) and one.runtime.may_add_in_half]
    told = "judged by an ideal that adds in FP16, as nothing says whether the cores there have FP16 arithmetic; without it less is allowed"
    return [f"{', '.join(unsure)}: {told}"] if unsure else []


def _notes_of_energy(groups: Sequence[Group], recipe: Recipe, figures: Figures) -> list[str]:
    """That there is none, where it was asked for in so many words; by default it is taken where there is a rail."""
    asked = recipe.profile.energy
    watched = [timed.latency.state for one in groups for timed in one.measured.timed if timed.latency and timed.latency.state]
    if not (figures.latency and asked and asked != Profile().energy and watched):
        return []
    rails = [channel for state in watched for channel in state.channels if channel.kind in ("energy", "power")]
    closed = next((state.before["energy counters"] for state in watched if "energy counters" in state.before), "")
    return [] if rails else [f"no energy: {closed or 'no rail, and no counter of energy, can be read'} (docs/device-state.md)"]


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


def _advice(groups: Sequence[Group], subjects: Sequence[Subject]) -> tuple[tuple[Recommendation, ...], tuple[Gate, ...]]:
    """What to ship, of what was measured where both accuracy and latency are known; after the reference, subjects are in their order."""
    pairings = [(pairing, bool(one.measured.scored and one.measured.timed)) for one in groups for pairing in one.pairings]
    known = [candidate_of(pairing, subject) for (pairing, is_known), subject in zip(pairings, subjects[1:], strict=True) if is_known]
    return recommend(known, subjects[0].accuracy)


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


def _notes_of_accuracy(material: Material, scored: Sequence[Accuracy]) -> list[str]:
    if not scored:
        return []
    notes = []
    if material.images is not None and material.images.alphabetical:
        order = some([f"{name} is {number}" for number, name in enumerate(material.images.classes)])
        notes.append(f"the classes were numbered in alphabetical order ({order}), as neither the checkpoint nor --class-map orders them")
    if scored[0].top1 is None:
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


def _counts(recipe: Recipe, figures: Figures, material: Material, measured: Sequence[Measured]) -> dict[str, str]:
    """How much of the material each kind of figure was taken on."""
    counts: dict[str, str] = {}
    if figures.parity:
        adversarial = len(material.adversarial()) if recipe.parity.adversarial else 0
        counts["parity"] = f"{counted(min(recipe.data.samples, len(material)), 'sample')} and {counted(adversarial, 'adversarial feed')}"
    if any(layers for one in measured for layers in one.compared.layers):
        counts["layers"] = counted(min(measure.LAYER_SAMPLES, len(material)), "sample")
    if any(one.scored for one in measured):
        counts["accuracy"] = counted(len(material), "sample")
    if any(timed.latency for one in measured for timed in one.timed):
        counts["latency"] = "1 sample, again and again"
    return counts

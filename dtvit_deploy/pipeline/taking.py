"""Figures are taken: each kind by a function of its own, which needs nothing of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Cpu, Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.class_scores import require_rows
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.pipeline import measure, scoring
from dtvit_deploy.pipeline.arm64 import SAMPLES, emulated_arm64, meant_for_arm64
from dtvit_deploy.pipeline.compared import parity
from dtvit_deploy.pipeline.elsewhere import asked_there, no_time
from dtvit_deploy.pipeline.figures import Compared, Figures, Measured
from dtvit_deploy.pipeline.gates import disagrees
from dtvit_deploy.pipeline.latencies import latency_of
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.origin import require_same_root
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.recipe.judging import Gates
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.remote.place import Place
from dtvit_deploy.runtimes.base import Elsewhere
from dtvit_deploy.runtimes.pairing import Pairing, pairings
from dtvit_deploy.runtimes.registry import why_emulated


def bench_of(
    program: ProgramEntry,
    artifacts: Sequence[Artifact],
    material: Material,
    recipe: Recipe,
    figures: Figures,
    progress: Progress,
    places: Sequence[Place] = (),
    *,
    here: bool = True,
) -> measure.Bench:
    """Artefacts, each in the runtimes that it is loaded in, ``here`` and on ``places``, beside their reference.

    Devices have answered by then to all that the figures are taken of.

    Raises:
        InputError: an artefact is not derived from ``program``, or a runtime loads none of the artefacts.
        MissingError: a runtime cannot be used here.
    """
    require_comparable(program, artifacts, recipe)
    found = pairings(artifacts, recipe.run.runtimes, timed=figures.only_latency) if here else ()
    for place in places:
        found += asked_there(place, artifacts, material, recipe, figures)
    return bench_around(program, found, material, recipe, progress)


def require_comparable(program: ProgramEntry, artifacts: Sequence[Artifact], recipe: Recipe) -> None:
    """Refuse what a request cannot be about, before anything is loaded or asked.

    Raises:
        InputError: an artefact is not derived from ``program``, an output that is called class scores is none, or an ARM64 CPU is named and
            no artefact is ONNX.
    """
    require_rows(program.artifact.manifest.signature.outputs, recipe.parity.class_scores)
    for artifact in artifacts:
        require_same_root(artifact, program)
    if recipe.export.cpu is Cpu.ARM64 and not any(artifact.manifest.format == "onnx" for artifact in artifacts):
        raise InputError(
            f"an ARM64 CPU is named (--arm64; in a recipe: export.cpu), which is for ONNX artefacts, and"
            f" {', '.join(artifact.name for artifact in artifacts)} {'is' if len(artifacts) == 1 else 'are'} none",
            remedy="leave it out: what it looks at is ONNX Runtime's arithmetic",
        )


def bench_around(
    program: ProgramEntry, found: tuple[Pairing, ...], material: Material, recipe: Recipe, progress: Progress
) -> measure.Bench:
    """Artefacts whose runtimes are known already, beside their reference."""
    return measure.Bench(
        program, found, material, recipe.run.threads, progress, recipe.profile.cuda_graph, called_scores=recipe.parity.class_scores
    )


def require_timed(bench: measure.Bench) -> None:
    """Refuse artefacts none of which could be timed.

    Raises:
        MissingError: with the reason of each.
    """
    found = bench.pairings
    if all(one.emulated for one in found):
        reasons = [f"the processor of {one.device}" if one.device else why_emulated(one.artifact) for one in found]
        raise no_time([one.name for one in found], reasons)


def taken(bench: measure.Bench, recipe: Recipe, figures: Figures) -> Measured:
    """Every kind of figure that is wanted, one after the other."""
    found = Measured()
    if figures.accuracy:  # first: this alone reads every image, and finds the broken one
        found = found.with_(Measured(scored=tuple(scoring.accuracy(bench))))
    if figures.parity or figures.layers:
        found = found.with_(parity_of(bench, recipe, figures))
    if figures.latency:
        found = found.with_(latency_of(bench, recipe))
    return found.with_(Measured(conditions=conditions_of(bench)))


def parity_of(bench: measure.Bench, recipe: Recipe, figures: Figures) -> Measured:
    """Outputs and layers of every artefact, and as an ARM64 core answers."""
    found = compared_of(bench, recipe, figures)
    there = emulated_arm64(for_arm64(bench.artifacts, recipe)) if figures.parity else ()
    if there:
        adding = dataclasses.replace(bench, pairings=there, adding=True)
        compared = _compared(adding, recipe, figures, min(recipe.data.samples, SAMPLES))
        found = found.with_(Measured(on_arm64=compared, conditions_on_arm64=conditions_of(adding)))
    return found


def compared_of(bench: measure.Bench, recipe: Recipe, figures: Figures) -> Measured:
    """Outputs and layers of every artefact."""
    return Measured(compared=_compared(bench, recipe, figures, recipe.data.samples))


def conditions_of(bench: measure.Bench) -> tuple[dict[str, str], ...]:
    """What the sessions of each artefact say of themselves."""
    return tuple(bench.conditions(pairing) for pairing in bench.pairings)


def for_arm64(artifacts: Sequence[Artifact], recipe: Recipe) -> list[Artifact]:
    """Artefacts that are to run on an ARM64 CPU too."""
    return [
        one
        for one in {artifact.path: artifact for artifact in artifacts}.values()
        if recipe.export.cpu is Cpu.ARM64 or meant_for_arm64(one)
    ]


def _compared(bench: measure.Bench, recipe: Recipe, figures: Figures, samples: int) -> Compared:
    """Outputs and layers, those of artefacts that were added in FP16 against an ideal that adds so."""
    adding = [one for one in bench.pairings if adds_in_half(one)]
    if not adding or bench.adding:
        return _compared_alike(bench, recipe, figures, samples)
    outputs: dict[tuple[str, str], tuple[Difference, ...]] = {}
    layers: dict[tuple[str, str], LayerReport | None] = {}
    for some, adds in ((tuple(one for one in bench.pairings if one not in adding), False), (tuple(adding), True)):
        if some:
            found = _compared_alike(dataclasses.replace(bench, pairings=some, adding=adds), recipe, figures, samples)
            outputs |= {one.key: each for one, each in zip(some, found.outputs, strict=False)}
            layers |= {one.key: each for one, each in zip(some, found.layers, strict=False)}
    keys = [one.key for one in bench.pairings]
    return Compared(
        tuple(outputs[key] for key in keys) if outputs else (), tuple(layers.get(key) for key in keys) if any(layers.values()) else ()
    )


def is_half(one: Pairing) -> bool:
    """Whether an artefact is FP16."""
    return one.artifact.manifest.precision is Precision.FP16


def adds_in_half(one: Pairing) -> bool:
    """Whether a device has answered whose runtime adds the products of an FP16 artefact in FP16."""
    return is_half(one) and isinstance(one.runtime, Elsewhere) and one.runtime.adds_in_half


def _compared_alike(bench: measure.Bench, recipe: Recipe, figures: Figures, samples: int) -> Compared:
    allowed = recipe.parity
    outputs: list[tuple[Difference, ...]] = []
    if figures.parity:
        outputs = parity(bench, samples, adversarial=allowed.adversarial, tolerances=allowed.tolerance)
    return Compared(tuple(outputs), tuple(_inside(bench, figures, outputs, recipe.gates)))


def _inside(bench: measure.Bench, figures: Figures, compared: list[tuple[Difference, ...]], gates: Gates) -> list[LayerReport | None]:
    """The layers of all, of none, or of those whose outputs are wrong: one wants to know of which module that is the fault."""
    if figures.layers is False:
        return []
    judged: list[tuple[Pairing, bool]] = [
        (one, disagrees(gates.of(one.artifact.manifest.precision), found)) for one, found in zip(bench.pairings, compared, strict=False)
    ]
    if figures.layers:
        return measure.layers(bench, sound=[one.key for one, is_wrong in judged if not is_wrong])
    wrong = [one for one, is_wrong in judged if is_wrong]
    return measure.layers(bench, wrong) if wrong else []

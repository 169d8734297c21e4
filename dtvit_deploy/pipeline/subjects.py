"""What a report has of the reference and of each artefact in each runtime: figures, conditions, notes and a verdict."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.recommend import Candidate
from dtvit_deploy.harness.search import Search
from dtvit_deploy.harness.verdict import holds, verdict
from dtvit_deploy.pipeline.gates import gates_of, not_measured
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.timing import Timed
from dtvit_deploy.recipe.judging import Gates
from dtvit_deploy.report.schema import Subject
from dtvit_deploy.runtimes.pairing import Pairing


def reference_subject(bench: Bench, scored: Sequence[Accuracy], timed: Sequence[Timed]) -> Subject:
    """The yardstick, torch itself, which is held to nothing."""
    artifact, runtime = bench.reference.artifact, bench.reference.runtime
    return Subject(
        name="torch FP32",
        file="",
        sha256=artifact.manifest.sha256,
        precision=str(artifact.manifest.precision),
        rung=runtime.rung,
        conditions={"runtime": f"torch {runtime.available().version}", "threads": str(bench.threads), "precision": "fp32"},
        accuracy=scored[0] if scored else None,
        latency=timed[0].latency if timed else None,
    )


def subject_of(
    pairing: Pairing,
    conditions: dict[str, str],
    *,
    parity: tuple[Difference, ...],
    layers: LayerReport | None,
    accuracy: Accuracy | None,
    reference: Accuracy | None,
    timed: Timed,
    gates: Gates,
) -> Subject:
    """What was measured of an artefact in one runtime, held to the gates of its precision.

    Raises:
        InputError: its manifest tells of a search that makes no sense.
    """
    artifact, manifest = pairing.artifact, pairing.artifact.manifest
    held = gates_of(gates.of(manifest.precision), parity, accuracy, reference, timed.latency, pairing.name)
    held += [holds(f"{pairing.name}: measured", False, f"{timed.failure}")] if timed.failure is not None else []
    held += not_measured(getattr(gates, manifest.precision.value), held, pairing.name)
    notes = [note for link in manifest.lineage for note in link.notes if link.kind not in ("checkpoint", "seeded")]
    return Subject(
        name=f"{manifest.title}{pairing.where}",
        file=artifact.name,
        sha256=manifest.sha256,
        precision=str(manifest.precision),
        rung=pairing.runtime.rung,
        conditions=conditions,
        bytes=artifact.bytes,
        notes=(*notes, *timed.notes),
        parity=parity,
        accuracy=accuracy,
        latency=timed.latency,
        failure=timed.failure,
        layers=layers,
        plan=timed.plan,
        roof=timed.roof,
        layer_times=timed.layers,
        search=_search_of(artifact),
        verdict=verdict(held) if held else None,
    )


def candidate_of(pairing: Pairing, subject: Subject) -> Candidate:
    """What is to be known of it before it is recommended."""
    return Candidate(
        runtime=pairing.artifact.manifest.format,
        where=pairing.where,
        name=subject.name,
        file=subject.file,
        precision=pairing.artifact.manifest.precision,
        products=_products(pairing.artifact),
        sound=subject.verdict is not None and subject.verdict.passed,
        accuracy=subject.accuracy,
        latency=subject.latency,
        emulated=pairing.emulated,
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

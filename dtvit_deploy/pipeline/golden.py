"""What a device checks itself with: a few real feeds, the reference's answers, and how far an artefact's may be from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtvit_deploy.parity import LEAST_SQNR, LEAST_SQNR_ELSEWHERE, compare_outputs
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.measure import Bench, Reference, scores_of
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.target import Precision

if TYPE_CHECKING:
    from dtvit_deploy.artifact import Artifact
    from dtvit_deploy.export.tensorrt.on_device import Golden
    from dtvit_deploy.pipeline.stages import ProgramEntry

SAMPLES = 4
"""Feeds that travel with a job: a few megabytes, and enough to see that an engine answers as it should."""


def golden_of(program: ProgramEntry, artifact: Artifact, material: Material) -> Golden:
    """Feeds and the FP32 network's answers, with the tolerance that the artefact's precision has on just these.

    Args:
        program: the reference.
        artifact: whose precision decides the tolerance.
        material: real input where the user gave some, else noise.
    """
    from dtvit_deploy.export.tensorrt.on_device import Golden

    some = material.subset(SAMPLES)
    feeds = list(some.feeds())
    precision = artifact.manifest.precision
    reference = Reference(Bench(program, (artifact,), some, 1, Silent()))
    expected = [reference.fp32.run(feed) for feed in feeds]
    exact = [reference.fp64.run(feed) for feed in feeds]
    ideal = [reference.ideal[reference.floor_of(precision)].run(feed) for feed in feeds]
    floors = [*zip(ideal, exact, strict=True), *(zip(expected, exact, strict=True) if precision is Precision.FP32 else ())]
    held = compare_outputs({"golden": expected}, {"golden": expected}, {"golden": floors}, precision)
    scores = scores_of(program.artifact.manifest.signature)
    tolerances = {one.output: one.tolerance for one in held if one.tolerance is not None}
    return Golden(
        feeds=feeds,
        expected=expected,
        tolerance=tolerances or None,
        least_sqnr=None if tolerances else (LEAST_SQNR if material.real else LEAST_SQNR_ELSEWHERE),
        top1=scores.name if scores is not None and material.real else None,
    )

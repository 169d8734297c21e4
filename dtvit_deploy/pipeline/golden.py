"""What a device checks itself with: a few real feeds, the reference's answers, and how far an artefact's may be from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.garbage import uncollected
from dtvit_deploy.parity import ROUNDOFF, compare_outputs
from dtvit_deploy.pipeline.material import Material, digest_of
from dtvit_deploy.pipeline.measure import Reference, kept_for_precision
from dtvit_deploy.pipeline.scoring import scores_of
from dtvit_deploy.pipeline.stages import source_digest, versions
from dtvit_deploy.target import Precision

if TYPE_CHECKING:
    from dtvit_deploy.artifact import Artifact
    from dtvit_deploy.cache import Cache
    from dtvit_deploy.export.tensorrt.on_device import Golden
    from dtvit_deploy.pipeline.stages import ProgramEntry
    from dtvit_deploy.signature import Feeds, Outputs

SAMPLES = 4
"""Feeds that travel with a job: a few megabytes, and enough to see that an engine answers as it should."""
_EXPECTED, _EXACT, _PLANTED = "expected", "exact", "planted"


def golden_stage(program: ProgramEntry, graph: Artifact, material: Material, cache: Cache) -> Golden:
    """Feeds and the FP32 network's answers, with the tolerance that the artefact's precision has on just these.

    Args:
        program: the reference.
        graph: the typed graph, whose precision decides the tolerance.
        material: real input where the user gave some, else noise.
        cache: holds the reference's answers, which are the same for every precision.

    Raises:
        InputError: the precision cannot carry the network, so that no tolerance would mean anything.
    """
    from dtvit_deploy.export.tensorrt.on_device import Golden

    some = material.subset(SAMPLES)
    feeds = list(some.feeds())
    precision = graph.manifest.precision
    answers = _answers(program, feeds, kept_for_precision([graph]), cache)
    expected, exact = answers[_EXPECTED], answers[_EXACT]
    group = "images" if material.images else "feeds" if material.real else "noise"
    floors = [*zip(answers[str(precision if str(precision) in answers else Precision.FP32)], exact, strict=True)]
    planted: list[tuple[Outputs, Outputs]] = []
    if precision is Precision.FP32:
        floors += zip(expected, exact, strict=True)
        planted += zip(exact, answers[_PLANTED], strict=True)
    held = compare_outputs({group: expected}, {group: expected}, {group: floors}, precision, planted={group: planted})
    if hopeless := [one for one in held if not one.passed]:
        raise InputError(
            f"no device could be held to {graph.manifest.stem}: {'; '.join(one.reason for one in hopeless)}",
            remedy=f"leave {precision} out, or keep the modules that lose most in FP32 (--keep-fp32; `verify --layers` names them)",
        )
    scores = scores_of(program.artifact.manifest.signature)
    return Golden(
        feeds=feeds,
        expected=expected,
        source=f"of {material.source}" if material.real else "seeded noise, not images: the job was exported without --data",
        tolerance={one.output: one.tolerance for one in held if one.tolerance is not None},
        least_sqnr=next((one.least_sqnr for one in held if one.least_sqnr is not None), None),
        top1=scores.name if scores is not None and material.real else None,
    )


def _answers(program: ProgramEntry, feeds: list[Feeds], kept: frozenset[str], cache: Cache) -> dict[str, list[Outputs]]:
    """What the reference answers in FP32, in FP64 without and with planted rounding errors, and in the ideal FP16."""
    outputs = [spec.name for spec in program.artifact.manifest.signature.outputs]

    def build(folder: Path) -> None:
        from dtvit_deploy.runtimes.roundoff import moved_by_rounding

        with uncollected():  # what was traced a moment ago is still there to be looked through
            reference = Reference(program, 1, (Precision.FP16,), kept)
            sessions: dict[str, Any] = {_EXPECTED: reference.fp32, _EXACT: reference.fp64}
            sessions |= {str(precision): session for precision, session in reference.ideal.items()}
            every = {name: [session.run(feed) for feed in feeds] for name, session in sessions.items()}
            unit = ROUNDOFF[Precision.FP32]
            every[_PLANTED] = [moved_by_rounding(reference.fp64, feed, unit, draw) for draw, feed in enumerate(feeds)]
            for name, runs in every.items():
                np.savez(folder / f"{name}.npz", *(np.stack([run[output] for run in runs]) for output in outputs))

    key = {
        "program": program.artifact.manifest,
        "feeds": digest_of(feeds),
        "kept": sorted(kept),
        "tools": versions("torch"),
        "source": source_digest(),
    }
    folder = cache.entry("golden", key, build)
    found: dict[str, list[Outputs]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            stacked = {name: stored[f"arr_{place}"] for place, name in enumerate(outputs)}
        found[path.stem] = [{name: array[index] for name, array in stacked.items()} for index in range(len(feeds))]
    return found

"""What a device checks itself with: a few real feeds, the reference's answers, and how far an artefact's may be from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.garbage import uncollected
from dtvit_deploy.harness.parity import compare_outputs
from dtvit_deploy.pipeline.expected import Pairs, expected_of
from dtvit_deploy.pipeline.material import Material, digest_of
from dtvit_deploy.pipeline.measure import Reference, kept_for_precision
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.stages import versions

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.artifacts.signature import Feeds, Outputs, Signature
    from dtvit_deploy.export.tensorrt.on_device import Golden
    from dtvit_deploy.pipeline.program import ProgramEntry

SAMPLES = 4
"""Feeds that travel with a job: a few megabytes, and enough to see that an engine answers as it should."""
_EXPECTED, _PLANTED = "expected", "planted"
_SIDES = ("one", "other")


def golden_stage(
    program: ProgramEntry, graph: Artifact, material: Material, cache: Cache, called_scores: Sequence[str] | None = None
) -> Golden:
    """Feeds and the FP32 network's answers, with the tolerance that the artefact's precision has on just these.

    Args:
        program: the reference.
        graph: the typed graph, whose precision decides the tolerance.
        material: real input where the user gave some, else noise.
        called_scores: outputs that the user calls class scores; None says nothing.
        cache: holds the reference's answers, which are the same for every precision.

    Raises:
        InputError: the precision cannot carry the network, so that no tolerance would mean anything.
    """
    from dtvit_deploy.export.tensorrt.on_device import Golden

    some = material.subset(SAMPLES)
    feeds = list(some.feeds())
    precision = graph.manifest.precision
    stored = _answers(program, feeds, kept_for_precision([graph]), cache)
    expected = stored.answers
    group = "images" if material.images else "feeds" if material.real else "noise"
    floors = {group: stored.pairs[str(precision if str(precision) in stored.pairs else Precision.FP32)]}
    planted = {group: stored.pairs[_PLANTED] if precision is Precision.FP32 else []}
    held = compare_outputs({group: expected}, {group: expected}, floors, precision, planted=planted)
    if hopeless := [one for one in held if not one.passed]:
        raise InputError(
            f"no device could be held to {graph.manifest.stem}: {'; '.join(one.reason for one in hopeless)}",
            remedy=f"leave {precision} out, or keep the modules that lose most in FP32 (--keep-fp32; `verify --layers` names them)",
        )
    scores = material.class_scores(program.artifact.manifest, called_scores)
    return Golden(
        feeds=feeds,
        expected=expected,
        source=f"of {material.source}" if material.real else "seeded noise, not images: the job was exported without --data",
        tolerance={one.output: one.tolerance for one in held if one.tolerance is not None},
        least_sqnr=next((one.least_sqnr for one in held if one.least_sqnr is not None), None),
        top1=scores[0] if scores and material.real else None,
    )


class _Stored(NamedTuple):
    """What the reference answers in FP32, and pairs of runs that ought to be equal: by precision, and with planted rounding errors."""

    answers: list[Outputs]
    pairs: dict[str, Pairs]


def _answers(program: ProgramEntry, feeds: list[Feeds], kept: frozenset[str], cache: Cache) -> _Stored:
    """Evaluate the reference as `verify` does, ties of its rankings told apart."""
    signature = program.artifact.manifest.signature

    def build(folder: Path) -> None:
        with uncollected():  # what was traced a moment ago is still there to be looked through
            reference = Reference(program, 1, (Precision.FP16,), kept, ranked=True, rounding=True)
            found = expected_of(reference, signature, "golden", feeds, Silent())
            pairs = {**{str(precision): each for precision, each in found.floors.items()}, _PLANTED: found.planted()}
        _save(folder / f"{_EXPECTED}.npz", signature, found.answers)
        for name, each in pairs.items():
            for side, runs in zip(_SIDES, zip(*each, strict=True), strict=True):
                _save(folder / f"{name}-{side}.npz", signature, runs)

    key = {
        "program": program.artifact.manifest,
        "feeds": digest_of(feeds),
        "kept": sorted(kept),
        "tools": versions("torch"),
        "source": source_digest(__name__),
    }
    folder = cache.entry("golden", key, build)
    names = [path.stem.removesuffix(f"-{_SIDES[0]}") for path in sorted(folder.glob(f"*-{_SIDES[0]}.npz"))]
    sides = {name: [_load(folder / f"{name}-{side}.npz", signature) for side in _SIDES] for name in names}
    pairs = {name: list(zip(one, other, strict=True)) for name, (one, other) in sides.items()}
    return _Stored(_load(folder / f"{_EXPECTED}.npz", signature), pairs)


def _save(path: Path, signature: Signature, runs: Sequence[Outputs]) -> None:
    """Runs, stacked, in the order of the outputs: their names may be none of a file's."""
    np.savez(path, *(np.stack([run[spec.name] for run in runs]) for spec in signature.outputs))


def _load(path: Path, signature: Signature) -> list[Outputs]:
    with np.load(path) as stored:
        stacked = {spec.name: stored[f"arr_{place}"] for place, spec in enumerate(signature.outputs)}
    return [{name: array[index] for name, array in stacked.items()} for index in range(len(next(iter(stacked.values()))))]

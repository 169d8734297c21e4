"""A report is data first: every figure with its samples, its conditions and its rung. Text and pictures are made from it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Natural, unit
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.failure import Failure
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.ranges import Convergence
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import Measurement
from dtvit_deploy.harness.layer_times import LayerTimes
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.harness.recommend import Recommendation
from dtvit_deploy.harness.roofline import Roof
from dtvit_deploy.harness.search import Search
from dtvit_deploy.harness.verdict import Verdict
from dtvit_deploy.runtimes.compute_plan import ComputePlan

SCHEMA = 3
"""2: percentiles may be withheld, and stand beside their early stopping estimates. 3: starts, stage by stage, and failures by class."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured: the reference, or an artefact.

    Attributes:
        name: as tables show it (``ONNX FP16``).
        file: the artefact's file name; empty for the reference.
        sha256: of the artefact's content; of the exported program for the reference.
        precision: that it was exported in: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        rung: how far these figures were proved.
        conditions: what every session reports of itself: runtime, version, threads, precision really used.
        bytes: size of the file; 0 for the reference.
        notes: what its manifest and its runtime have to say.
        parity: how far each output is from the reference's, on each group of feeds; empty where nobody asked.
        accuracy: top-1, top-5 and agreement; None where nobody asked, or no output is class scores.
        latency: with all samples; None where it was not measured.
        failure: why it has no latency, where it failed; None where it did not.
        layers: inner tensors beside the reference's; None where they were not compared.
        plan: which unit each operation is meant for; None where the runtime has one unit, or does not tell.
        roof: the least time that this machine's measured peaks allow for it; None where nobody asked.
        layer_times: where its time goes, by layers and torch modules; None where nobody asked, or the runtime does not tell.
        search: which modules stay in float in an INT8 artefact, and why; None where nobody searched.
        verdict: over its own gates; None where it is held to none.
    """

    name: str
    file: str
    sha256: str
    precision: str
    rung: Rung
    conditions: dict[str, str]
    bytes: Annotated[Count, unit("byte")] = 0
    notes: tuple[str, ...] = ()
    parity: tuple[Difference, ...] = ()
    accuracy: Accuracy | None = None
    latency: Measurement | None = None
    failure: Failure | None = None
    layers: LayerReport | None = None
    plan: ComputePlan | None = None
    roof: Roof | None = None
    layer_times: LayerTimes | None = None
    search: Search | None = None
    verdict: Verdict | None = None

    @property
    def quantised(self) -> bool:
        """Whether it is held to a least SQNR, INT8 or weights that were compressed, and has no noise floor to be ranked by."""
        return self.precision == str(Precision.INT8) or any(one.least_sqnr is not None for one in self.parity)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What INT8 artefacts were calibrated on.

    Attributes:
        ranges: digest of the range table that their manifests carry.
        source, samples: the images, and how many.
        synthetic: whether they were random numbers.
        conclusion: whether as many are enough, in one sentence.
        convergence: how far the ranges still were from the final ones, at growing numbers of images.
    """

    ranges: str
    source: str
    samples: Natural
    synthetic: bool
    conclusion: str
    convergence: tuple[Convergence, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one command found.

    Attributes:
        command: ``verify``, ``evaluate``, ``profile`` or ``run``.
        model: as it was asked for.
        created: UTC, ISO 8601.
        lineage: the steps from the checkpoint to the program, each ``kind sha256``.
        data: what was fed: source, digest, counts, preprocessing, seed.
        device: state of the device.
        versions: of the tools.
        subjects: what was measured, the reference first.
        notes: what a reader must know before any figure (seeded weights, random feeds, …).
        recommendations: what to ship, for each runtime that has an INT8 artefact.
        calibration: of those; None where nothing says.
        verdict: over all subjects' gates; None when nothing was asked.
        schema: number of this form of a report.
    """

    command: str
    model: str
    created: str
    lineage: tuple[str, ...]
    data: dict[str, str]
    device: dict[str, str]
    versions: dict[str, str]
    subjects: tuple[Subject, ...]
    notes: tuple[str, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    calibration: Calibration | None = None
    verdict: Verdict | None = None
    schema: Annotated[int, unit("version")] = SCHEMA

    @property
    def agreement_only(self) -> bool:
        """Whether answers were scored without labels, so that nothing is said of how many are right."""
        scored = [subject.accuracy for subject in self.subjects if subject.accuracy is not None]
        return bool(scored) and all(one.top1 is None for one in scored)

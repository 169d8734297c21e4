"""From a model and real images to a range table."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import encode_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import replacing
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import Convergence, Interval, RangeTable, Settling, TensorRange, weights_of
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set, real_set
from dtvit_deploy.pipeline.export import with_preprocessing
from dtvit_deploy.pipeline.observation import Observation
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import ProgramEntry, program_stage, versions
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe import PreprocessingChanges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.models.reference import ModelOptions


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """What to calibrate, and on what.

    Attributes:
        model: registry name, ``timm:NAME`` or ``package.module:factory``; None when the checkpoint says.
        reference: checkpoint, sizes, names and seed of the network.
        data: images or feeds; None with ``random_data``.
        random_data: feed random numbers instead; the table carries the stain.
        samples: how many of them to observe.
        sampling_seed: of their choice and order.
        evaluation: images that must not be among them; None checks nothing.
        allow_leak: note evaluation images among them instead of refusing them.
        percentile: what the method of that name keeps, in per cent.
        threads: compute threads of one inference.
        preprocessing: changes to what the checkpoint says.
        class_map: what the images call the classes.
    """

    model: str | None
    reference: ModelOptions
    data: Path | None
    random_data: bool = False
    samples: int = 300
    sampling_seed: int = 0
    evaluation: Path | None = None
    allow_leak: bool = False
    percentile: float = 99.99
    threads: int = 1
    preprocessing: PreprocessingChanges | None = None
    class_map: ClassMap | None = None

    def __post_init__(self) -> None:
        if (self.data is None) != self.random_data:
            given = "images and random numbers" if self.random_data else "nothing to calibrate on"
            raise InputError(
                f"{given} was asked for; ranges come from real images"
                if self.data
                else "calibration needs real images, and none were given",
                remedy="give --data a folder of some hundred; --random-data, to try things out only, needs none",
            )
        if self.samples < 2:
            raise InputError(
                f"{self.samples} samples were asked for; ranges of one image would fit no other", remedy="ask for some hundred"
            )
        if not 50 <= self.percentile <= 100:
            raise InputError(f"the percentile {self.percentile} must be from 50 to 100", remedy="99.99 leaves out one value of 10,000")


def calibrate(
    options: CalibrateOptions,
    out: Path,
    cache: Cache,
    progress: Progress,
    *,
    program: ProgramEntry | None = None,
    unfinished: Path | None = None,
) -> RangeTable:
    """Observe every tensor of the program on every sample, and write the table to ``out``.

    Until that is done, how far it has come lies in ``unfinished``, else beside ``out``, with ``.unfinished`` behind its name. The next call
    with the same model, samples and options goes on from there, and ends with the same bytes; whoever interrupts this one is told so, where
    the file lies beside ``out``. ``program`` is that of the same options, where it is at hand.

    Raises:
        InputError: model, data or ``out`` cannot be used, a tensor holds NaN, or the images show nothing; ``out`` is as it was then.
        MissingError: PyTorch is not installed.
    """
    beside = unfinished is None
    unfinished = unfinished or out.with_name(out.name + ".unfinished")
    with replacing(out) as part:  # as early, so that an unusable output too is refused before a minute's work
        if program is None:
            progress.step("tracing the network")
            program = program_stage(options.model, options.reference, cache)
        program = with_preprocessing(program, options.preprocessing)
        if no_use := _no_use(program):
            progress.step(no_use)
        progress.step("reading the samples")
        chosen = _chosen(options, program.artifact.manifest)
        observation = Observation(program, chosen, percentile=options.percentile, threads=options.threads)
        try:
            observation.run(unfinished, progress)
            table = _table(observation, program, chosen, options, no_use)
        except DeployError:
            unfinished.unlink(missing_ok=True)
            raise
        except BaseException:  # Ctrl-C, most of all
            if beside and observation.saved and unfinished.is_file():
                total = len(chosen.samples)
                progress.step(
                    f"{observation.saved} of {counted(total, 'sample')} are kept in {unfinished.name}: the same command goes on from there"
                )
            raise
        part.write_bytes(encode_json(table))
    with contextlib.suppress(OSError):  # what is left of it is not believed where it does not fit
        unfinished.unlink(missing_ok=True)
    return table


def _chosen(options: CalibrateOptions, manifest: Manifest) -> CalibrationSet:
    if options.data is None:
        return random_set(manifest.signature, options.samples, options.sampling_seed)
    return real_set(
        options.data,
        manifest,
        options.samples,
        options.sampling_seed,
        evaluation=options.evaluation,
        allow_leak=options.allow_leak,
        class_map=options.class_map,
    )


def _no_use(program: ProgramEntry) -> str:
    """Why nothing of a network can be INT8, which is known before a single image is read; empty where something can."""
    from dtvit_deploy.artifacts.graph import inferred, read_graph
    from dtvit_deploy.export.onnx.products import LEAST_MACS, products

    found = products(inferred(read_graph(program.translated)), LEAST_MACS).values()
    if any(not product.refusal for product in found):
        return ""
    reasons = Counter(product.refusal for product in found)
    told = "; ".join(f"{count} of {len(found)}: {reason}" for reason, count in reasons.most_common())
    why = f"none of its convolutions and matrix products gains by it ({told})" if told else "it has no convolution and no matrix product"
    return f"NOTHING IN {program.artifact.manifest.model} CAN BE INT8, so that these ranges are of no use: {why}; export it in float"


def _table(observation: Observation, program: ProgramEntry, chosen: CalibrationSet, options: CalibrateOptions, no_use: str) -> RangeTable:
    manifest, observer = program.artifact.manifest, observation.observer
    if observation.flat == observation.done:
        raise InputError(
            f"each of the {observation.done} samples is of a single colour: their ranges would say nothing",
            remedy="look at the images, and at mean and std of the preprocessing",
        )
    verb = "is" if observation.flat == 1 else "are"
    flat = (f"{observation.flat} of the {observation.done} samples {verb} of a single colour",) if observation.flat else ()
    tensors, unbounded = _tensors(observation)
    if not tensors:
        raise InputError(
            "every tensor reaches infinity: there is no range of any", remedy="look at the network's weights and at the samples"
        )
    return RangeTable(
        model=manifest.model,
        program=manifest.sha256,
        weights=weights_of(manifest),
        signature=manifest.signature,
        inputs=observer.inputs,
        preprocessing=chosen.preprocessing,
        preprocessing_digest=chosen.preprocessing.digest if chosen.preprocessing else "",
        samples=chosen.samples,
        source=chosen.source,
        seed=options.sampling_seed,
        synthetic=options.random_data,
        leaked=chosen.leaked,
        percentile=options.percentile,
        threads=options.threads,
        tensors=tensors,
        unbounded=unbounded,
        convergence=_convergence(observation),
        notes=(*(note for link in manifest.lineage for note in link.notes), *chosen.notes, *flat),
        tools=versions("torch", "numpy", "pillow"),
        no_use=no_use,
    ).sealed()


def _tensors(observation: Observation) -> tuple[dict[str, TensorRange], tuple[str, ...]]:
    """Ranges by name, and the names of tensors that have none."""
    from dtvit_deploy.calibration.thresholds import clipped

    histograms, observed = observation.observer.histograms, observation.observer.tensors
    bounded = histograms.bounded
    outside = [clipped(histograms, bounds) for bounds in observation.curve[-1]]
    tensors = {}
    for index, tensor in enumerate(observed):
        if bounded[index]:
            ranges = {m.value: _interval(observation.curve[-1, row, index], outside[row][index]) for row, m in enumerate(Method)}
            tensors[tensor.name] = TensorRange(module=tensor.module, op=tensor.op, values=tensor.values, **ranges)
    return tensors, tuple(tensor.name for tensor, is_bounded in zip(observed, bounded, strict=True) if not is_bounded)


def _interval(bounds: NDArray[np.float32], clipped: np.float64) -> Interval:
    low, high = (float(str(bound)) for bound in bounds)  # through text, which writes an FP32 number as short as it can be
    return Interval(low, high, float(clipped))


def _convergence(observation: Observation) -> tuple[Convergence, ...]:
    from dtvit_deploy.calibration.thresholds import changes

    found = changes(observation.curve[:, :, observation.observer.histograms.bounded])
    return tuple(
        Convergence(images=images, **{method.value: Settling(*map(float, at[row])) for row, method in enumerate(Method)})
        for images, at in zip(observation.points, found, strict=True)
    )

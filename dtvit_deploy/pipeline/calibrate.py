"""From a model and real images to a range table."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import encode_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import replacing
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import Convergence, Interval, RangeTable, Settling, TensorRange, weights_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set, real_set
from dtvit_deploy.pipeline.material import assumed, with_preprocessing
from dtvit_deploy.pipeline.observation import Observation
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.calibration.counts import Counts


def calibrate(
    recipe: Recipe,
    out: Path,
    cache: Cache,
    progress: Progress,
    *,
    program: ProgramEntry | None = None,
    class_map: ClassMap | None = None,
    unfinished: Path | None = None,
    counted_apart: Iterable[list[Counts]] | None = None,
) -> RangeTable:
    """Observe every tensor of the program on every sample, and write the table to ``out``.

    Until that is done, how far it has come lies in ``unfinished``, else beside ``out``, with ``.unfinished`` behind its name. The next call
    with the same model, samples and options goes on from there, and ends with the same bytes; whoever interrupts this one is told so, where
    the file lies beside ``out``. ``program`` is that of the same request, where it is at hand. Of what stretches ``counted_apart``,
    which make up all samples in order, comes a table of the same bytes.

    Raises:
        InputError: model, data or ``out`` cannot be used, a tensor holds NaN, or the images show nothing; ``out`` is as it was then.
        MissingError: PyTorch is not installed.
    """
    _require_data(recipe)
    beside = unfinished is None
    unfinished = unfinished or out.with_name(out.name + ".unfinished")
    with replacing(out) as part:  # as early, so that an unusable output too is refused before a minute's work
        if program is None:
            progress.step("tracing the network")
            program = with_preprocessing(program_stage(recipe.model, cache), recipe.preprocessing)
        if no_use := _no_use(program):
            progress.step(no_use)
        progress.step("reading the samples")
        chosen = chosen_of(recipe, program.artifact.manifest, class_map)
        observation = Observation(program, chosen, percentile=recipe.int8.percentile, threads=recipe.run.threads)
        try:
            if counted_apart is None:
                observation.run(unfinished, progress)
            else:
                observation.take(counted_apart)
            table = _table(observation, program, chosen, recipe, no_use)
        except InputError:
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


def _require_data(recipe: Recipe) -> None:
    """Refuse a calibration on nothing, or on two things."""
    random = recipe.int8.random_data
    if (recipe.data.calibration is None) != random:
        raise InputError(
            "images and random numbers were asked for; ranges come from real images"
            if random
            else "calibration needs real images, and none were given",
            remedy="give --data (data.calibration) a folder of some hundred; --random-data, to try things out only, needs none",
        )
    data = recipe.data.calibration
    if data is not None and not os.path.exists(data):  # noqa: PTH110 Path.exists raises for some that are not there
        raise InputError(f"{data} does not exist", remedy="give a folder of images, a .txt list of them, or an .npz of feeds")


def chosen_of(recipe: Recipe, manifest: Manifest, class_map: ClassMap | None) -> CalibrationSet:
    """The samples that a request is calibrated on.

    Raises:
        InputError: its images cannot be used.
    """
    asked = recipe.int8
    if recipe.data.calibration is None:
        return random_set(manifest.signature, asked.samples, asked.sampling_seed)
    return real_set(
        recipe.data.calibration,
        manifest,
        asked.samples,
        asked.sampling_seed,
        evaluation=recipe.data.evaluation,
        allow_leak=asked.allow_leak,
        class_map=class_map,
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


def _table(observation: Observation, program: ProgramEntry, chosen: CalibrationSet, recipe: Recipe, no_use: str) -> RangeTable:
    manifest, counts = program.artifact.manifest, observation.counts
    if counts.flat == counts.stop:
        raise InputError(
            f"each of the {counts.stop} samples is of a single colour: their ranges would say nothing",
            remedy="look at the images, and at mean and std of the preprocessing",
        )
    verb = "is" if counts.flat == 1 else "are"
    flat = (f"{counts.flat} of the {counts.stop} samples {verb} of a single colour",) if counts.flat else ()
    unsaid = assumed(manifest) if chosen.preprocessing is not None else ()
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
        inputs=counts.terms.inputs,
        preprocessing=chosen.preprocessing,
        preprocessing_digest=chosen.preprocessing.digest if chosen.preprocessing else "",
        samples=chosen.samples,
        source=chosen.source,
        seed=recipe.int8.sampling_seed,
        synthetic=recipe.int8.random_data,
        leaked=chosen.leaked,
        percentile=recipe.int8.percentile,
        threads=recipe.run.threads,
        tensors=tensors,
        unbounded=unbounded,
        convergence=_convergence(observation),
        notes=(*(note for link in manifest.lineage for note in link.notes), *unsaid, *chosen.notes, *flat),
        tools=versions("torch", "numpy", "pillow"),
        no_use=no_use,
    ).sealed()


def _tensors(observation: Observation) -> tuple[dict[str, TensorRange], tuple[str, ...]]:
    """Ranges by name, and the names of tensors that have none."""
    from dtvit_deploy.calibration.thresholds import clipped

    histograms, observed = observation.counts.histograms, observation.counts.terms.tensors
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

    found = changes(observation.curve[:, :, observation.counts.histograms.bounded])
    return tuple(
        Convergence(images=images, **{method.value: Settling(*map(float, at[row])) for row, method in enumerate(Method)})
        for images, at in zip(observation.points, found, strict=True)
    )

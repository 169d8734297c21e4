"""A recipe from end to end: export, check, verdict, report."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import sha256_of, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.artifacts.target import Cpu, Precision
from dtvit_deploy.calibration.class_map import ClassMap, read_class_map
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.calibration.ranges import RangeTable, load_ranges
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.pipeline.check import Wants, check
from dtvit_deploy.pipeline.compared import require_outputs
from dtvit_deploy.pipeline.export import ExportOptions, exported, require_reachable
from dtvit_deploy.pipeline.int8 import TRIAL_SAMPLES, Int8
from dtvit_deploy.pipeline.material import are_images, open_material, require_images
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.scoring import scores_of
from dtvit_deploy.pipeline.stages import ProgramEntry, program_stage, source_digest, versions
from dtvit_deploy.recipe import Limits, Recipe
from dtvit_deploy.report import add_report, remove_older
from dtvit_deploy.report.schema import Calibration, Report
from dtvit_deploy.runtimes.pairing import require_usable

if TYPE_CHECKING:
    from dtvit_deploy.models.reference import ModelOptions

RANGES = "ranges.json"
"""The range table, beside the artefacts that were made with it."""


def run(recipe: Recipe, out: Path, cache: Cache, progress: Progress, *, layers: bool = True) -> Report:
    """Build everything a recipe asks for, measure everything its data allows, and hold it to its gates.

    Artefacts and report go into ``out`` together at the end, whether gates passed or not, since what missed the goal is what one wants to
    look at. An image that cannot be read, the last of thousands perhaps, leaves nothing there: what was built is in the cache by then, and
    is not built again.

    Args:
        recipe: what to build, on which data, and the gates.
        out: folder of the artefacts and the report.
        cache: holds what was built before.
        progress: told what is going on.
        layers: also walk the inner tensors.

    Raises:
        InputError: the recipe, what it names, or ``out`` cannot be used.
    """
    from dtvit_deploy.models.reference import ModelOptions

    for precision in Precision:
        if getattr(recipe.gates, precision.value) != Limits() and precision not in recipe.export.precisions:
            raise InputError(
                f"the recipe sets gates for {precision}, which it does not build", remedy=f"add {precision} to export.precisions"
            )
    model = recipe.model
    reference = ModelOptions(
        checkpoint=model.checkpoint,
        input_size=model.input_size,
        num_classes=model.num_classes,
        inputs=model.inputs,
        outputs=model.outputs,
        seed=model.seed,
    )
    class_map = read_class_map(recipe.data.class_map) if recipe.data.class_map is not None else None
    require_images(class_map, recipe.data.evaluation, recipe.data.calibration)
    options = ExportOptions(
        model=model.name,
        reference=reference,
        targets=recipe.export.targets,
        precisions=recipe.export.precisions,
        keep_fp32=recipe.export.keep_fp32,
        data=recipe.data.evaluation,
        preprocessing=recipe.preprocessing,
        tensorrt=recipe.tensorrt,
        coreml=recipe.coreml,
        class_map=class_map,
        cpu=recipe.export.cpu,
    )
    require_reachable(options)
    for name in recipe.run.runtimes:
        require_usable(name)
    with staged(out):  # opened before the calibration, so that an unusable one is refused before minutes of work
        progress.step("tracing the network")
        program = program_stage(model.name, reference, cache)
        require_outputs(program.artifact.manifest.signature, recipe.parity.tolerance)
        table = _ranges(recipe, reference, class_map, program, cache, progress) if Precision.INT8 in recipe.export.precisions else None
        if table is not None:
            options = dataclasses.replace(options, int8=_int8(recipe, table))
        with exported(options, out, cache, progress, program) as (program, artifacts, folder):
            material = open_material(recipe.data.evaluation, artifacts[0].manifest, class_map)
            scored = material.images is not None and scores_of(material.signature) is not None
            wants = Wants(
                parity=recipe.data.samples,
                adversarial=recipe.parity.adversarial,
                tolerances=recipe.parity.tolerance,
                layers=layers,
                accuracy=scored,
                latency=MeasureOptions(),
                arm64=recipe.export.cpu is Cpu.ARM64,
            )
            asked = recipe.run
            report = check(
                "run",
                program,
                artifacts,
                material,
                wants,
                threads=asked.threads,
                runtimes=asked.runtimes,
                gates=recipe.gates,
                progress=progress,
            )
            if table:
                report = msgspec.structs.replace(report, calibration=_facts(table))
                write_json(folder / RANGES, table)
            written = add_report(report, folder)
    remove_older(out, written)
    return report


def _ranges(
    recipe: Recipe, reference: ModelOptions, class_map: ClassMap | None, program: ProgramEntry, cache: Cache, progress: Progress
) -> RangeTable:
    """The range table of the recipe's calibration images, observed once and kept in the cache."""
    from dtvit_deploy.pipeline.calibrate import CalibrateOptions, calibrate

    assert recipe.data.calibration is not None
    given = [path for path in (recipe.data.calibration, recipe.data.evaluation) if path is not None]
    comparable = all(map(are_images, given))  # ready feeds are not compared: what became of an image is no image
    options = CalibrateOptions(
        model=recipe.model.name,
        reference=reference,
        data=recipe.data.calibration,
        samples=recipe.int8.samples,
        evaluation=recipe.data.evaluation if comparable else None,
        allow_leak=recipe.int8.allow_leak,
        threads=recipe.run.threads,
        preprocessing=recipe.preprocessing,
        class_map=class_map if are_images(recipe.data.calibration) else None,
    )
    classes = program.artifact.manifest.classes
    data = [
        open_images(path, classes=classes, class_map=class_map).digest if are_images(path) else sha256_of(path)
        for path in given
        if path.exists()
    ]
    asked = [recipe.int8.samples, recipe.int8.allow_leak, recipe.run.threads, str(options.data), msgspec.to_builtins(recipe.preprocessing)]
    key = {"program": program.artifact.manifest, "data": data, "asked": asked, "source": source_digest()}
    key |= {"tools": versions("torch", "numpy", "pillow")}
    unfinished = cache.root / f"calibration-{hashlib.sha256(msgspec.json.encode(key, order='sorted')).hexdigest()[:16]}.unfinished"

    def build(folder: Path) -> None:
        calibrate(options, folder / RANGES, cache, progress, program=program, unfinished=unfinished)

    return load_ranges(cache.entry("ranges", key, build) / RANGES)


def _int8(recipe: Recipe, table: RangeTable) -> Int8:
    """What INT8 is made from; the search sees only images that the calibration observed, which were held against the evaluation's."""
    search_data = recipe.data.calibration if recipe.int8.search else None
    few = min(TRIAL_SAMPLES, len(table.samples))
    return Int8(table=table, method=recipe.int8.method, search_data=search_data, search_samples=few, threads=recipe.run.threads)


def _facts(table: RangeTable) -> Calibration:
    return Calibration(
        ranges=table.sha256,
        source=table.source,
        samples=len(table.samples),
        synthetic=table.synthetic,
        conclusion=table.conclusion(),
        convergence=table.convergence,
    )

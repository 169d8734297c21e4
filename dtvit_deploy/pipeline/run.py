"""A recipe from end to end: export, check, verdict, report."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.cache import Cache
from dtvit_deploy.errors import InputError
from dtvit_deploy.latency import MeasureOptions
from dtvit_deploy.pipeline.check import Wants, check
from dtvit_deploy.pipeline.export import ExportOptions, exported
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.measure import scores_of
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.recipe import Limits, Recipe
from dtvit_deploy.report import add_report, remove_older
from dtvit_deploy.report.schema import Report
from dtvit_deploy.target import Precision


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
    asked = recipe.model
    options = ExportOptions(
        model=asked.name,
        reference=ModelOptions(
            checkpoint=asked.checkpoint,
            input_size=asked.input_size,
            num_classes=asked.num_classes,
            inputs=asked.inputs,
            outputs=asked.outputs,
            seed=asked.seed,
        ),
        targets=recipe.export.targets,
        precisions=recipe.export.precisions,
        keep_fp32=recipe.export.keep_fp32,
        data=recipe.data.evaluation,
        preprocessing=recipe.preprocessing,
    )
    with exported(options, out, cache, progress) as (program, artifacts, folder):
        material = open_material(recipe.data.evaluation, artifacts[0].manifest)
        scored = material.images is not None and scores_of(material.signature) is not None
        wants = Wants(parity=recipe.data.samples, layers=layers, accuracy=scored, latency=MeasureOptions())
        report = check("run", program, artifacts, material, wants, threads=recipe.run.threads, gates=recipe.gates, progress=progress)
        written = add_report(report, folder)
    remove_older(out, written)
    return report

"""`dtvit-deploy export`: artefacts for every target and precision that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.artifacts.target import Cpu, Target
from dtvit_deploy.cli import flags
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.flag import requesting
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact, Manifest


@explained
@requesting(
    *flags.NETWORK,
    flags.TARGETS,
    flags.PRECISIONS,
    flags.CHECKS,
    flags.CLASS_MAP,
    flags.KEEP_FP32,
    *flags.INT8,
    flags.EVALUATION,
    flags.CLASS_SCORES,
    *flags.TENSORRT,
    flags.BUILDER,
    *flags.COREML,
    *flags.MODEL[len(flags.NETWORK) :],
    *flags.PREPROCESSING,
    flags.ARM64,
)
def export(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artefacts.")] = Path("out"),
    workers: given.Workers = None,
    wait: given.Wait = True,
    no_cache: given.NoCache = False,
    as_json: given.Json = False,
) -> None:
    """Export a model to one or more targets and precisions."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline.built_there import builders
    from dtvit_deploy.pipeline.elsewhere import devices_of
    from dtvit_deploy.plan.exporting import export as exported

    with working() as progress, given.opened_cache(no_cache) as cache:
        if aside := [one.name for one in devices_of(recipe)] if not builders(recipe) else []:
            progress.step(
                f"{', '.join(aside)} left aside: devices build the jobs of the target trt (--flavour on-device), and none is asked for"
            )
        program, artifacts, compared = exported(recipe, out, cache, progress, workers, wait=wait)
    if as_json:
        show.as_json([{"file": str(artifact.path), "manifest": artifact.manifest} for artifact in artifacts])
    else:
        _show(recipe, program, artifacts, out, compared=compared)


def _show(recipe: Recipe, program: Manifest, artifacts: tuple[Artifact, ...], out: Path, *, compared: bool) -> None:
    from dtvit_deploy.cli import show
    from dtvit_deploy.pipeline.material import are_images, assumed
    from dtvit_deploy.report.figures import megabytes

    body = [
        (one.name, " ".join((str(it.precision), *it.variant)), megabytes(one.bytes), str(it.rung), it.sha256[:16])
        for one, it in ((artifact, artifact.manifest) for artifact in artifacts)
    ]
    show.rows(f"{program.model} → {out}", ("file", "precision", "MB", "rung", "SHA-256"), body, right=("MB",))
    told = ((artifact.name, [note for link in artifact.manifest.lineage for note in link.notes]) for artifact in artifacts)
    looked_at = [data for data in (recipe.checks, recipe.data.calibration) if data is not None and are_images(data)]
    by_pixels = recipe.coreml.image and Target.COREML in recipe.export.targets
    general = assumed(program) if looked_at or by_pixels else ()
    show.notes(general, told, show.console(), "in the manifests beside the artefacts")
    if recipe.checks is None:
        show.note("no --data: what converters checked or measured on the way was on seeded noise, not on images", show.console())
    if compared:
        show.console().say("compared with torch by a run of the same recipe, whose report says how near they came")
        return
    files = " ".join(str(a.path) for a in artifacts)
    also = f" --class-map {recipe.data.class_map}" if recipe.data.class_map else ""
    called = recipe.parity.class_scores
    also += "" if called is None else "".join(f" --class-scores {name}" for name in called or ("none",))
    also += " --arm64" if recipe.export.cpu is Cpu.ARM64 else ""
    data = recipe.data.evaluation or recipe.checks or "IMAGES"
    show.console().say(f"not yet compared with torch: dtvit-deploy verify {files} --data {data}{also}")

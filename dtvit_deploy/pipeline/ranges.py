"""The ranges that INT8 is made from: a table that was given, or observed on the request's calibration images and kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.images import open_images
from dtvit_deploy.calibration.ranges import RangeTable, load_ranges
from dtvit_deploy.pipeline.calibrate import calibrate, chosen_of
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, real_set, require_held_out
from dtvit_deploy.pipeline.int8 import TRIAL_SAMPLES
from dtvit_deploy.pipeline.material import are_images, open_material, preprocessing_of
from dtvit_deploy.pipeline.nncf import calibration_of
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.calibration.counts import Counts

RANGES = "ranges.json"
"""The range table, beside the artefacts that were made with it."""


def ranges_stage(
    recipe: Recipe,
    class_map: ClassMap | None,
    program: ProgramEntry,
    cache: Cache,
    progress: Progress,
    counted_apart: Iterable[list[Counts]] | None = None,
) -> RangeTable | None:
    """The table; None where INT8 needs none. It is the same where stretches of the samples were ``counted_apart``.

    Raises:
        InputError: the table that was given is of something else, or the calibration's images cannot be used.
    """
    if Precision.INT8 not in recipe.export.precisions or recipe.int8.quantizer == "nncf":
        return None
    if recipe.int8.ranges is None:
        return _observed(recipe, class_map, program, cache, progress, counted_apart)
    manifest = program.artifact.manifest
    table = load_ranges(recipe.int8.ranges)
    table.require(manifest, preprocessing_of(manifest) if table.preprocessing is not None else None)
    return table


def chosen_for(recipe: Recipe, program: ProgramEntry, class_map: ClassMap | None) -> CalibrationSet:
    """The samples that a request's table is made of.

    Raises:
        InputError: the calibration's images cannot be used.
    """
    return chosen_of(_comparable(recipe), program.artifact.manifest, _of_images(recipe, class_map))


def _comparable(recipe: Recipe) -> Recipe:
    """Without the evaluation's data, where these cannot be compared with the calibration's: ready feeds with images."""
    given = [path for path in (recipe.data.calibration, recipe.data.evaluation) if path is not None]
    if all(map(are_images, given)):
        return recipe
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, evaluation=None))


def _of_images(recipe: Recipe, class_map: ClassMap | None) -> ClassMap | None:
    return class_map if recipe.data.calibration is not None and are_images(recipe.data.calibration) else None


def _observed(
    recipe: Recipe,
    class_map: ClassMap | None,
    program: ProgramEntry,
    cache: Cache,
    progress: Progress,
    counted_apart: Iterable[list[Counts]] | None,
) -> RangeTable:
    manifest = program.artifact.manifest
    given = [path for path in (recipe.data.calibration, recipe.data.evaluation) if path is not None]
    data = [
        open_images(path, classes=manifest.classes, class_map=class_map).digest if are_images(path) else sha256_of(path)
        for path in given
        if path.exists()
    ]
    key = {"program": manifest, "data": data, "int8": _observing(recipe), "threads": recipe.run.threads, "source": source_digest(__name__)}
    key |= {"names": [path.name for path in given], "tools": versions("torch", "numpy", "pillow")}
    unfinished = cache.root / f"calibration-{hashlib.sha256(msgspec.json.encode(key, order='sorted')).hexdigest()[:16]}.unfinished"

    def build(folder: Path) -> None:
        calibrate(
            _comparable(recipe),
            folder / RANGES,
            cache,
            progress,
            program=program,
            class_map=_of_images(recipe, class_map),
            unfinished=unfinished,
            counted_apart=counted_apart,
        )

    return load_ranges(cache.entry("ranges", key, build) / RANGES)


def _observing(recipe: Recipe) -> list[object]:
    """What of ``[int8]`` a table depends on."""
    int8 = recipe.int8
    return [int8.samples, int8.sampling_seed, int8.percentile, int8.random_data, int8.allow_leak]


def require_sound_calibration(recipe: Recipe, class_map: ClassMap | None, program: ProgramEntry) -> None:
    """Refuse images that INT8 cannot be fitted to, evaluation images most of all, before anything is built.

    Raises:
        InputError: names what is wrong with them.
    """
    calibration, int8, manifest = recipe.data.calibration, recipe.int8, program.artifact.manifest
    if Precision.INT8 not in recipe.export.precisions or calibration is None:
        return
    comparable = recipe.data.evaluation is not None and are_images(calibration) and are_images(recipe.data.evaluation)
    evaluation = recipe.data.evaluation if comparable else None
    of_images = class_map if are_images(calibration) else None
    if int8.quantizer == "nncf":
        calibration_of(calibration, manifest, None if int8.allow_leak else evaluation, of_images)
    elif int8.ranges is None:
        chosen = (int8.samples, int8.sampling_seed)
        real_set(calibration, manifest, *chosen, evaluation=evaluation, allow_leak=int8.allow_leak, class_map=of_images)
    elif int8.search and evaluation is not None and not int8.allow_leak:
        found = open_material(calibration, manifest, of_images).subset(TRIAL_SAMPLES)
        assert found.images is not None
        require_held_out(found.images, "those of the search", evaluation, manifest, class_map)

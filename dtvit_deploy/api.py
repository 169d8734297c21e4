"""The package from Python: what the commands do, with a `Recipe` for a request.

    from dtvit_deploy import Data, Export, Model, Recipe, export, verify

    recipe = Recipe(model=Model(checkpoint=Path("net.safetensors")), data=Data(evaluation=Path("images")), export=Export(...))
    artifacts = export(recipe, Path("out"))
    report = verify(artifacts, recipe)
    assert report.verdict.passed

These names stay; everything else of the package may change with any release (docs/api.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.formats.engine.options import BuildOptions, Flavour
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.progress import Progress, Silent
from dtvit_deploy.recipe.judging import Gates, Limits, Parity, Profile
from dtvit_deploy.recipe.reading import load_recipe, validated
from dtvit_deploy.recipe.tables import Data, Device, Export, Int8, PreprocessingChanges, Recipe, Run, TensorRt
from dtvit_deploy.report.schema import Report

if TYPE_CHECKING:
    from dtvit_deploy.calibration.ranges import RangeTable

__all__ = [
    "Artifact",
    "BuildOptions",
    "CoreMlOptions",
    "Cpu",
    "Data",
    "Device",
    "Export",
    "Flavour",
    "Gates",
    "Int8",
    "Limits",
    "Method",
    "Model",
    "Parity",
    "Precision",
    "PreprocessingChanges",
    "Profile",
    "Recipe",
    "Report",
    "Run",
    "Target",
    "TensorRt",
    "TensorSpec",
    "calibrate",
    "evaluate",
    "export",
    "load_artifact",
    "load_recipe",
    "profile",
    "run",
    "verify",
]


def export(
    recipe: Recipe,
    out: Path,
    *,
    workers: int | None = None,
    wait: bool = True,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> tuple[Artifact, ...]:
    """Build every target and precision of a request into ``out``, all or none; INT8 is calibrated where no table is given.

    Args:
        recipe: what to build.
        out: the folder; it is made where it is not there.
        workers: processes that build side by side; none besides this one where 1; where None as many as there are cores and builds that
            take longer than to start one.
        wait: for a device of the recipe's that somebody else has.
        cache: what was built before; the user's own where None.
        progress: told what is going on; nobody where None.

    Raises:
        InputError: the request, what it names, or ``out`` cannot be used; nothing is left in ``out`` then.
        MissingError: something that is needed is not installed.
    """
    from dtvit_deploy.plan.exporting import export as exported

    return exported(validated(recipe), out, cache or Cache.default(), progress or Silent(), workers, wait=wait).artifacts


def calibrate(recipe: Recipe, out: Path, *, cache: Cache | None = None, progress: Progress | None = None) -> RangeTable:
    """Observe what every tensor reaches on ``recipe.data.calibration``, and write the table to the file ``out``.

    Raises:
        InputError: the network, the images or ``out`` cannot be used.
        MissingError: PyTorch is not installed.
    """
    from dtvit_deploy.pipeline.calibrate import calibrate as calibrated
    from dtvit_deploy.pipeline.material import class_map_of

    return calibrated(validated(recipe), out, cache or Cache.default(), progress or Silent(), class_map=class_map_of(recipe))


def verify(
    artifacts: Sequence[Artifact | Path | str],
    recipe: Recipe | None = None,
    *,
    layers: bool | None = None,
    wait: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Compare artefacts of one export with torch: outputs on ``recipe.data.evaluation`` and adversarial feeds, within measured tolerances.

    Args:
        artifacts: files, the folder of an export, or what `export` returned.
        recipe: data, runtimes, tolerances and gates; noise is fed where it names no data.
        layers: walk the inner tensors too; by itself where outputs are wrong, if None.
        wait: for a device of the recipe's that somebody else has.

    Raises:
        InputError: an artefact or the data cannot be used, or the reference is not here and cannot be made.
        MissingError: a runtime is not usable here.
    """
    return checked("verify", artifacts, recipe or Recipe(), Figures(parity=True, layers=layers), progress or Silent(), wait=wait)


def evaluate(artifacts: Sequence[Artifact | Path | str], recipe: Recipe, *, wait: bool = True, progress: Progress | None = None) -> Report:
    """Top-1, top-5 and agreement with torch over every image of ``recipe.data.evaluation``; ``wait`` as in `verify`.

    Raises:
        InputError, MissingError: as `verify`; or no output is a row of scores.
    """
    return checked("evaluate", artifacts, recipe, Figures(accuracy=True), progress or Silent(), wait=wait)


def profile(
    artifacts: Sequence[Artifact | Path | str], recipe: Recipe | None = None, *, wait: bool = True, progress: Progress | None = None
) -> Report:
    """Latency in milliseconds of artefacts and of torch, interleaved in one run on this machine, or on the recipe's devices.

    Raises:
        InputError, MissingError: as `verify`; or nothing that could be timed is here.
    """
    return checked("profile", artifacts, recipe or Recipe(), Figures(latency=True), progress or Silent(), wait=wait)


def run(
    recipe: Recipe,
    out: Path,
    *,
    layers: bool = True,
    workers: int | None = None,
    scheduler: str = "",
    insecure: bool = False,
    wait: bool = True,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Report:
    """Everything that a request asks for, as one plan: built, measured, held to its gates; artefacts and report go into ``out``.

    Args:
        workers: processes that work side by side; one for each core where None, none besides this one where 1.
        scheduler: address of a Dask scheduler whose workers do it (docs/farm.md); empty where this machine does.
        insecure: whether it may be reached without TLS off this machine.
        wait: for a device of the recipe's that somebody else has.

    Raises:
        InputError, MissingError: as `export` and `verify`.
    """
    from dtvit_deploy.plan.run import Request
    from dtvit_deploy.plan.run import run as carried_out

    asked = Request("", validated(recipe), out)
    return carried_out(
        [asked],
        cache or Cache.default(),
        progress or Silent(),
        layers=layers,
        workers=workers,
        scheduler=scheduler,
        insecure=insecure,
        wait=wait,
    )[0][1]


def checked(
    command: str,
    artifacts: Sequence[Artifact | Path | str],
    recipe: Recipe,
    figures: Figures,
    progress: Progress,
    *,
    trust: bool = False,
    wait: bool = True,
) -> Report:
    """Take figures of artefacts that were built before, and hold them to those of the request's gates that are about these figures.

    Args:
        command: that asks, for the report.
        trust: whether the user vouches for what these artefacts make this machine do.
        wait: for a device that somebody else has.

    Raises:
        InputError, MissingError: as `verify`.
    """
    from dtvit_deploy.pipeline.beforehand import able_places
    from dtvit_deploy.pipeline.check import check
    from dtvit_deploy.pipeline.gates import gates_for
    from dtvit_deploy.pipeline.opened import loaded_with_material
    from dtvit_deploy.pipeline.origin import reference_of

    recipe, cache = validated(recipe), Cache.default()
    loaded, material = loaded_with_material(artifacts, recipe, cache, trust=trust)
    with able_places(recipe, loaded, material, figures, progress, wait=wait) as places:
        program = reference_of(loaded, cache, recipe.model)
        held = msgspec.structs.replace(recipe, gates=gates_for(recipe.gates, figures))
        return check(command, program, loaded, material, held, figures, progress, places)

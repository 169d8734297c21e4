"""Whether what a request needs is here: said before a minute's work, not after it."""

from __future__ import annotations

import os

from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.coreml import require_coreml
from dtvit_deploy.pipeline.nncf import require_nncf
from dtvit_deploy.pipeline.tensorrt import chosen
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.runtimes.pairing import require_usable
from dtvit_deploy.runtimes.registry import RUNTIMES


def require_reachable(recipe: Recipe, *, here: bool = True) -> None:
    """Refuse data and packages that are not here.

    Args:
        here: whether runtimes that the request names are of this machine, and not of devices alone.

    Raises:
        InputError: there are no such data.
        MissingError: a target, a quantiser or a runtime needs a package that is not installed.
    """
    for key in ("checks", "evaluation", "calibration"):
        path = getattr(recipe.data, key)
        if path is not None and not os.path.exists(path):  # noqa: PTH110 Path.exists raises for some that are not there
            raise InputError(
                f"{path} does not exist (in a recipe: data.{key})",
                remedy="give a folder of images, a .txt list of them, or an .npz of feeds",
            )
    targets = recipe.export.targets
    if Target.OPENVINO in targets and (found := RUNTIMES["openvino"]().available()).version is None:
        raise MissingError(f"the target openvino needs OpenVINO, which is not usable here: {found.missing}", remedy=found.remedy)
    if Target.TRT in targets:
        chosen(recipe.tensorrt)
    if Target.COREML in targets:
        require_coreml(recipe.coreml, recipe.export.precisions)
    if Precision.INT8 in recipe.export.precisions and recipe.int8.quantizer == "nncf":
        require_nncf()
    for name in recipe.run.runtimes if here else ():
        require_usable(name)

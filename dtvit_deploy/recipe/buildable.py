"""Whether a request can be built at all: said before anything is looked at, not eleven seconds into tracing."""

from __future__ import annotations

from dtvit_deploy.artifacts.target import Cpu, Precision, Target, pairs
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.models import registry
from dtvit_deploy.recipe.judging import Limits
from dtvit_deploy.recipe.tables import Int8, Recipe, TensorRt

_IMAGES = "give --calibration (in a recipe: data.calibration) a folder of some hundred training images"


def require_model(recipe: Recipe) -> None:
    """Refuse a request without a network.

    Raises:
        InputError: with the forms of a model's name.
    """
    if recipe.model.name is None and recipe.model.checkpoint is None:
        raise InputError(
            "no model was given, and no checkpoint that names one",
            remedy=f"give one of {', '.join(registry.VARIANTS)}; or {registry.FORMS}",
        )


def require_buildable(recipe: Recipe) -> None:
    """Refuse what cannot be built, and what is asked for and would be passed over.

    Raises:
        InputError: with what to add, or to leave out.
    """
    require_model(recipe)
    targets, precisions = recipe.export.targets, recipe.export.precisions
    pairs(targets, precisions)
    tables = (
        (Target.TRT, recipe.tensorrt == TensorRt(), "TensorRT"),
        (Target.COREML, recipe.coreml == CoreMlOptions(), "Core ML"),
    )
    for target, is_usual, name in tables:
        if target not in targets and not is_usual:
            raise InputError(
                f"options of {name} were given, and the target {target} was not asked for",
                remedy=f"add --target {target} (in a recipe: to export.targets), or leave them out",
            )
    if Target.ONNX not in targets and recipe.export.cpu is Cpu.ARM64:
        raise InputError(
            "an ARM64 CPU was named, and the target onnx not: it is ONNX Runtime that computes otherwise there",
            remedy="add --target onnx (in a recipe: to export.targets), or leave --arm64 (in a recipe: export.cpu) out",
        )
    for precision in Precision:
        if getattr(recipe.gates, precision.value) != Limits() and precision not in precisions:
            raise InputError(
                f"the recipe sets gates for {precision}, which it does not build", remedy=f"add {precision} to export.precisions"
            )
    if Precision.INT8 in precisions:
        _require_calibration(recipe)
    elif recipe.int8 != Int8():
        raise InputError(
            "options of INT8 were given (such as --ranges, --method, --no-search; or [int8] of a recipe), and INT8 was not asked for",
            remedy="add --precision int8 (in a recipe: to export.precisions), or leave them out",
        )


def _require_calibration(recipe: Recipe) -> None:
    int8 = recipe.int8
    if int8.quantizer != "nncf" and (int8.smooth_quant or int8.bias_correction):
        raise InputError(
            "--smooth-quant and --bias-correction are NNCF's (int8.smooth_quant, int8.bias_correction)",
            remedy="add --quantizer nncf, or leave them out",
        )
    if int8.quantizer == "nncf":
        if int8.ranges is not None or int8.method is not Int8().method or int8.random_data:
            raise InputError(
                "NNCF takes neither --ranges nor --method nor random numbers: it observes the calibration's images itself",
                remedy="leave them out, or use --quantizer ours",
            )
        if set(recipe.export.targets) != {Target.OPENVINO}:
            raise InputError(
                "NNCF quantises OpenVINO's graph, and other targets were asked for",
                remedy="leave them to a command of their own, or use --quantizer ours",
            )
        if recipe.data.calibration is None:
            raise InputError("NNCF calibrates on images, and none were given", remedy=_IMAGES)
        if recipe.export.keep_fp32:
            raise InputError(
                "NNCF chooses by itself what stays in float; modules to keep there cannot be named",
                remedy="leave --keep-fp32 out, or use --quantizer ours",
            )
    elif int8.ranges is not None and int8.random_data:
        raise InputError("a range table was given, and random numbers to observe", remedy="give one of the two")
    elif int8.random_data and recipe.data.calibration is not None:
        raise InputError(
            "images and random numbers were asked for; ranges come from real images",
            remedy="leave --random-data (int8.random_data) out; it is to try things out only",
        )
    elif int8.ranges is None and not int8.random_data and recipe.data.calibration is None:
        raise InputError(
            "INT8 needs calibrated ranges, and there is nothing to take them from",
            remedy=f"{_IMAGES}; or --ranges (int8.ranges) a table that `dtvit-deploy calibrate` wrote",
        )

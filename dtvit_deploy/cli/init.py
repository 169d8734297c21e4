"""`dtvit-deploy init`: a recipe for a model, with every key in it and what it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dtvit_deploy.artifacts.target import Precision, Target, pairs
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.errors import InputError


@explained
def init(
    model: given.Model = None,
    checkpoint: given.Checkpoint = None,
    data: given.Data = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", help="Images to calibrate INT8 on.", show_default=False)] = None,
    class_map: given.ClassMap = None,
    target: given.Targets = None,
    precision: given.Precisions = None,
    inputs: given.Inputs = None,
    outputs: given.Outputs = None,
    input_size: given.InputSize = None,
    num_classes: given.Classes = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe; one that is there is left alone.")] = Path("recipe.toml"),
) -> None:
    """Write a recipe for a model: what was given, and every other key as a comment that says what it does."""
    from dtvit_deploy.artifacts.staging import replacing
    from dtvit_deploy.cli import show
    from dtvit_deploy.harness.accuracy import printable
    from dtvit_deploy.models.reference import require_form
    from dtvit_deploy.recipe import load_recipe
    from dtvit_deploy.recipe_keys import commented

    if model is not None:
        require_form(model)
    elif checkpoint is None or checkpoint.suffix.lower() != ".safetensors":
        raise InputError(
            "no model was given, and only the metadata of a .safetensors checkpoint could name it",
            remedy="give --model a name of `dtvit-deploy models`, timm:NAME or package.module:factory",
        )
    if Precision.INT8 in (precision or ()) and calibration is None:
        raise InputError("INT8 is calibrated on images, and none were given", remedy="give --calibration a folder of some hundred")
    targets, precisions = list(dict.fromkeys(target or [Target.ONNX])), list(dict.fromkeys(precision or [Precision.FP32]))
    pairs(targets, precisions)
    paths = {"model.checkpoint": checkpoint, "data.evaluation": data, "data.calibration": calibration, "data.class_map": class_map}
    for path in filter(None, paths.values()):
        if not path.exists():
            raise InputError(f"{path} does not exist", remedy="give what is there, or leave it out and write it into the recipe later")
    asked = given.model_options(checkpoint, inputs, outputs, input_size, num_classes, 0)
    values: dict[str, Any] = {
        "model.name": model,
        "model.input_size": asked.input_size,
        "model.num_classes": asked.num_classes,
        "model.inputs": asked.inputs or None,
        "model.outputs": asked.outputs or None,
        "export.targets": targets,
        "export.precisions": precisions,
    }
    values |= {key: None if path is None else _beside(path, out) for key, path in paths.items()}
    text = commented(values, f"A recipe for {model or Path(checkpoint or '').name}: dtvit-deploy run {out.name} -o out")
    try:
        content = text.encode()
    except UnicodeEncodeError as error:  # of a name of a file, or of an option: bytes that are no text
        line = printable(text.split("\n")[text.count("\n", 0, error.start)])
        raise InputError(f"a recipe is UTF-8, and a name for it is not: {line}", remedy="give it another name") from error
    with replacing(out) as part:
        if os.path.lexists(out):
            raise InputError(f"{out} exists, and is left as it is", remedy="give --out another name, or move that one away")
        part.write_bytes(content)
        try:
            load_recipe(part)
        except InputError as error:
            raise InputError(str(error).replace(str(part), str(out)), remedy="correct the options") from error
    show.console().say(f"{out} is written; next: dtvit-deploy run {out} -o out")


def _beside(path: Path, recipe: Path) -> str:
    """A path relative to the recipe, which may be moved together with what it names.

    Folders are taken for what they are, since ``..`` behind a link leads out of what it points to. A file may be a link and stay one: its
    name says what it is.
    """
    return os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(recipe.parent))  # noqa: PTH118

"""`dtvit-deploy init`: a recipe for a model, with every key in it and what it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dtvit_deploy.cli import flags
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.cli.flag import taking
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.buildable import require_buildable
from dtvit_deploy.recipe.reading import DEFAULT, load_recipe, request

_TAKEN = (
    *flags.MODEL,
    flags.DATA,
    flags.CALIBRATION,
    flags.CLASS_MAP,
    flags.TARGETS,
    flags.PRECISIONS,
    flags.KEEP_FP32,
    flags.ARM64,
    *flags.PREPROCESSING,
    *flags.TENSORRT,
    *flags.COREML,
)


@explained
@taking(*_TAKEN)
def init(
    said: dict[str, Any],
    names: dict[str, str],
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe; one that is there is left alone.")] = DEFAULT,
) -> None:
    """Write a recipe for a model: what was given, and every other key as a comment that says what it does."""
    from dtvit_deploy.artifacts.staging import replacing
    from dtvit_deploy.cli import show
    from dtvit_deploy.harness.accuracy import printable
    from dtvit_deploy.models.reference import require_form
    from dtvit_deploy.recipe.keys import commented

    recipe = request(None, said, names)
    model, checkpoint = recipe.model.name, recipe.model.checkpoint
    if model is not None:
        require_form(model)
    elif checkpoint is None or checkpoint.suffix.lower() != ".safetensors":
        raise InputError(
            "no model was given, and only the metadata of a .safetensors checkpoint could name it",
            remedy="give --model a name of `dtvit-deploy models`, timm:NAME or package.module:factory",
        )
    require_buildable(recipe)
    for path in (value for value in said.values() if isinstance(value, Path)):
        if not path.exists():
            raise InputError(f"{path} does not exist", remedy="give what is there, or leave it out and write it into the recipe later")
    values = {"export.targets": recipe.export.targets, "export.precisions": recipe.export.precisions} | said
    values = {key: _beside(value, out) if isinstance(value, Path) else value for key, value in values.items()}
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
    if model is not None and ":" in model and not recipe.model.inputs:
        told = f"unless {model} returns example inputs beside the network, describe them in it: model.inputs, or here by --input"
        show.note(told, show.console())


def _beside(path: Path, recipe: Path) -> str:
    """A path relative to the recipe, which may be moved together with what it names.

    Folders are taken for what they are, since ``..`` behind a link leads out of what it points to. A file may be a link and stay one: its
    name says what it is.
    """
    return os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(recipe.parent))  # noqa: PTH118

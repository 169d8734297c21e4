"""The options that commands share, and how a shape or a size is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.errors import InputError
from dtvit_deploy.signature import TensorSpec

if TYPE_CHECKING:
    from dtvit_deploy.models.reference import ModelOptions

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A name from `dtvit-deploy models`, timm:NAME, or package.module:factory.", show_default=False),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="Weights: .safetensors, or a .pt state dict (no code in it runs).", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Class-folder tree, folder or list of images, or an .npz of feeds.", show_default=False),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Compute threads of one inference; recorded with every figure.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Real samples that parity is proved on.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on standard output.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Build everything anew and keep nothing.")]
ReportFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for report.json, report.md and report.html.", show_default=False)
]
Artefacts = Annotated[list[Path], typer.Argument(help="Artefacts of one export (each with its manifest beside it).", show_default=False)]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME=1x3x224x224[:float32], repeatable: inputs of a network of your own.", show_default=False),
]
Outputs = Annotated[list[str] | None, typer.Option("--output", help="Name of an output, repeatable, in order.", show_default=False)]
InputSize = Annotated[str | None, typer.Option("--input-size", help="HEIGHTxWIDTH of the image.", show_default=False)]
Classes = Annotated[int | None, typer.Option("--num-classes", min=1, help="Outputs of the classifier.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of weights where there is no checkpoint.")]


def model_options(
    checkpoint: Path | None,
    inputs: list[str] | None,
    outputs: list[str] | None,
    input_size: str | None,
    num_classes: int | None,
    seed: int,
) -> ModelOptions:
    """The typed form of what describes a model.

    Raises:
        InputError: an input or a size is not written as it should be.
    """
    from dtvit_deploy.models.reference import ModelOptions

    return ModelOptions(
        checkpoint=checkpoint,
        input_size=None if input_size is None else _size(input_size),
        num_classes=num_classes,
        inputs=tuple(map(parse_input, inputs or [])),
        outputs=tuple(outputs or []),
        seed=seed,
    )


def parse_input(text: str) -> TensorSpec:
    """``name=1x3x224x224:float32`` → its spec.

    Raises:
        InputError: it is written otherwise.
    """
    match = re.fullmatch(r"([A-Za-z_]\w*)=(\d{1,9}(?:[x×]\d{1,9})*)(?::(\w+))?", text)
    if match is None:
        raise InputError(f"--input {text!r} is not NAME=SHAPE[:TYPE]", remedy="write it like image=1x3x224x224 or ids=1x16:int64")
    name, shape, dtype = match.groups()
    return TensorSpec(name, tuple(int(side) for side in re.split("[x×]", shape)), dtype or "float32")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text)
    if match is None:
        raise InputError(f"--input-size {text!r} is not HEIGHTxWIDTH", remedy="write it like 224x224")
    return int(match[1]), int(match[2] or match[1])

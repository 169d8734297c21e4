"""The options that commands share, and how a shape or a size is written."""

from __future__ import annotations

import enum
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import ALIASES, Precision, Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.runtimes.registry import RUNTIMES

if TYPE_CHECKING:
    from dtvit_deploy.calibration import class_map as classes
    from dtvit_deploy.models.reference import ModelOptions
    from dtvit_deploy.recipe import PreprocessingChanges


class Filter(enum.Enum):
    """Pillow's filters that images are resized with."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class ChannelOrder(enum.Enum):
    """The order of an image's channels in the array that a network is fed."""

    RGB = "rgb"
    BGR = "bgr"


def parse_target(text: str) -> Target:
    """A target by its name or by what people call it.

    Raises:
        typer.BadParameter: there is none of that name.
    """
    try:
        return Target(text)
    except ValueError as error:
        known = ", ".join(repr(str(target)) for target in Target)
        also = ", ".join(f"{alias!r} for {name!r}" for alias, name in ALIASES.items())
        raise typer.BadParameter(f"{text!r} is not one of {known} (and {also})") from error


Targets = Annotated[
    list[Target] | None,
    typer.Option("--target", "-t", help="Repeatable.", parser=parse_target, metavar=f"[{'|'.join(map(str, Target))}]", show_default="onnx"),
]
Precisions = Annotated[list[Precision] | None, typer.Option("--precision", "-p", help="Repeatable.", show_default="fp32")]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A name from `dtvit-deploy models`, timm:NAME, or package.module:factory.", show_default=False),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="Weights: .safetensors, .pt, .ckpt (no code in it runs).", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Class-folder tree, folder or list (text, CSV, COCO) of images, or an .npz of feeds.", show_default=False),
]
ClassMap = Annotated[
    Path | None,
    typer.Option("--class-map", help="What images call the classes: names, WordNet ids or numbers (text, CSV, JSON).", show_default=False),
]


def say_if_crowded(threads: int) -> int:
    """The number as it is; that it is more than can run at once is said on standard error.

    Raises:
        InputError: it is more than any machine like this one could start.
    """
    from dtvit_deploy.devices.local import cores, crowded, most_threads

    if threads > (most := most_threads()):
        raise InputError(
            f"{threads} threads were asked for, of at most {most} on this machine",
            remedy=f"this process may use {cores()} cores: give a thread to each of them, or 1",
        )
    if why := crowded(threads):
        from dtvit_deploy.cli.progress import Terminal

        Terminal().step(why)
    return threads


Threads = Annotated[
    int,
    typer.Option("--threads", min=1, help="Compute threads of one inference; recorded with every figure.", callback=say_if_crowded),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        help=f"Load artefacts in this one, repeatable; the best here if none: {', '.join(name for name in RUNTIMES if name != 'torch')}.",
        show_default=False,
    ),
]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Real samples that parity is proved on.")]
Adversarial = Annotated[
    bool,
    typer.Option(
        "--adversarial/--no-adversarial", help="Compare on zeros, one colour, saturated pictures and noise, too, not on real input alone."
    ),
]
Tolerances = Annotated[
    list[str] | None,
    typer.Option(
        "--tolerance", help="OUTPUT=NUMBER, repeatable: greatest |Δ| of an output, in place of a measured limit.", show_default=False
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Execute engines that were not built by you on this machine, which are native code, and load graphs untried."
    ),
]
Arm64 = Annotated[
    bool,
    typer.Option(
        "--arm64", help="ONNX artefacts are to run on an ARM64 CPU (Apple silicon, Graviton, Raspberry Pi 5), which adds in FP16."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on standard output.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Build everything anew and keep nothing.")]
ReportFolder = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for report.json, report.md and report.html.", show_default=False)
]
Artefacts = Annotated[
    list[Path], typer.Argument(help="Artefacts of one export (each with its manifest beside it), or its folder.", show_default=False)
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME=1x3x224x224[:float32], repeatable: inputs of a network of your own.", show_default=False),
]
Outputs = Annotated[list[str] | None, typer.Option("--output", help="Name of an output, repeatable, in order.", show_default=False)]
InputSize = Annotated[str | None, typer.Option("--input-size", help="HEIGHTxWIDTH of the image.", show_default=False)]
Classes = Annotated[int | None, typer.Option("--num-classes", min=1, help="Outputs of the classifier.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of weights where there is no checkpoint.")]
Resize = Annotated[
    int | None, typer.Option("--resize", min=1, help="Pixels of the shorter side, in place of the checkpoint's.", show_default=False)
]
Crop = Annotated[
    str | None, typer.Option("--crop", help="HEIGHTxWIDTH of the centre crop, in place of the checkpoint's.", show_default=False)
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", help="R,G,B of a 0-1 image, in the order of --channels, in place of the checkpoint's.", show_default=False),
]
Std = Annotated[str | None, typer.Option("--std", help="Standard deviations, like --mean.", show_default=False)]
Interpolation = Annotated[
    Filter | None, typer.Option("--interpolation", help="Of the resize, in place of the checkpoint's.", show_default=False)
]
Channels = Annotated[ChannelOrder | None, typer.Option("--channels", help="In place of the checkpoint's.", show_default=False)]


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
        input_size=None if input_size is None else _size("--input-size", input_size),
        num_classes=num_classes,
        inputs=tuple(map(parse_input, inputs or [])),
        outputs=tuple(outputs or []),
        seed=seed,
    )


def read_map(path: Path | None) -> classes.ClassMap | None:
    """What ``--class-map`` says, where it was given.

    Raises:
        InputError: see `read_class_map`.
    """
    from dtvit_deploy.calibration.class_map import read_class_map

    return None if path is None else read_class_map(path)


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


def tolerances(given: list[str] | None) -> dict[str, float]:
    """``boxes=0.5`` → a tolerance by output.

    Raises:
        InputError: it is written otherwise, or an output has two.
    """
    found: dict[str, float] = {}
    for text in given or []:
        name, _, number = text.rpartition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not name or not 0 <= limit < math.inf:
            raise InputError(f"--tolerance {text!r} is not OUTPUT=NUMBER", remedy="write it like boxes=0.5, with a number of at least 0")
        if name in found:
            raise InputError(f"two tolerances were given for {name!r}", remedy="give one")
        found[name] = limit
    return found


def preprocessing_changes(
    *, resize: int | None, crop: str | None, mean: str | None, std: str | None, interpolation: Filter | None, channels: ChannelOrder | None
) -> PreprocessingChanges:
    """The typed form of what is to be done to images otherwise than the checkpoint says.

    Raises:
        InputError: a size or a triple is not written as it should be.
    """
    import msgspec

    from dtvit_deploy.recipe import PreprocessingChanges

    given = {
        "resize": resize,
        "crop": None if crop is None else _size("--crop", crop),
        "mean": None if mean is None else _triple("--mean", mean),
        "std": None if std is None else _triple("--std", std),
        "interpolation": interpolation and interpolation.value,
        "channels": channels and channels.value,
    }
    return msgspec.convert(given, PreprocessingChanges)


def _size(option: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text)
    if match is None:
        raise InputError(f"{option} {text!r} is not HEIGHTxWIDTH", remedy="write it like 224x224")
    return int(match[1]), int(match[2] or match[1])


def _triple(option: str, text: str) -> tuple[float, float, float]:
    try:
        first, second, third = map(float, text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not three numbers", remedy="write it like 0.485,0.456,0.406") from error
    return first, second, third

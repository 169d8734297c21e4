"""A recipe: what to build from which model, on which data, and the gates it must pass. TOML, read strictly.

    [model]
    name = "dualtoken-vit-t-mix"        # or leave it to what the checkpoint says
    checkpoint = "digits.safetensors"   # paths are relative to the recipe

    [data]
    evaluation = "images/held-out"

    [export]
    targets = ["onnx"]
    precisions = ["fp32", "fp16"]

    [gates.fp16]
    top1_drop = 0.004

A key that is not known is refused: a misspelt gate would otherwise be a gate that is not there.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import inspect

from dtvit_deploy.artifacts.bounds import Cosine, Magnitude, Natural, Share
from dtvit_deploy.artifacts.nesting import require_shallow_toml
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.options import BuildOptions, Flavour
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.runtimes.registry import RUNTIMES

LARGEST_RECIPE = 1 << 20
"""Bytes: a recipe is a page of text."""
AGREEMENT = {Precision.FP32: 1.0, Precision.FP16: 0.998, Precision.BF16: 0.995, Precision.INT8: 0.99}
"""Least share of images with the reference's top-1; that of INT8 is what MLPerf Inference asks of an edge device."""

Name = Annotated[str, msgspec.Meta(min_length=1)]


def _like(*examples: object) -> msgspec.Meta:
    """What a key may hold, for ``docs/recipe.md`` and ``init``, where its default shows nothing."""
    return msgspec.Meta(examples=list(examples))


def _refuse_repeats(what: str, values: Any) -> None:
    if repeated := sorted({str(value) for value in values if list(values).count(value) > 1}):
        raise ValueError(f"Expected each {what} once, got {', '.join(repeated)} again")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a recipe. Its ``__post_init__`` raises ValueError, to which msgspec adds the key (see :func:`load_recipe`)."""


class Model(Table, frozen=True):
    """The network.

    Attributes:
        name: a registry name, ``timm:NAME`` or ``package.module:factory``; None when the checkpoint says. A factory is code, and is run.
        checkpoint: weights; None builds the network with weights from ``seed``.
        input_size: height and width of the image in pixels; None takes the model's own.
        num_classes: None takes the checkpoint's or the model's own.
        inputs: for a user's own network; one image input otherwise.
        outputs: names, for a user's own network, in the order it returns them.
        seed: of weights where there is no checkpoint.
    """

    name: Annotated[Name, _like("dualtoken-vit-s-mix")] | None = None
    checkpoint: Annotated[Path, _like("net.safetensors")] | None = None
    input_size: Annotated[tuple[Natural, Natural], _like([224, 224])] | None = None
    num_classes: Annotated[Natural, _like(1000)] | None = None
    inputs: Annotated[tuple[TensorSpec, ...], _like([{"name": "image", "shape": [1, 3, 224, 224]}])] = ()
    outputs: Annotated[tuple[Name, ...], _like(["logits"])] = ()
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        if self.name is None and self.checkpoint is None:
            raise ValueError("Expected a `name` or a `checkpoint`, or both")
        _refuse_repeats("input", [spec.name for spec in self.inputs])
        _refuse_repeats("output", self.outputs)


class Data(Table, frozen=True):
    """Images: class-folder trees, folders or lists, or an ``.npz`` of feeds.

    Attributes:
        evaluation: held-out images for parity and accuracy.
        calibration: images that the ranges of activations are observed on.
        samples: how many of the evaluation images parity is proved on.
        class_map: a text, CSV or JSON file that says what the images call the network's classes.
    """

    evaluation: Annotated[Path, _like("images/held-out")] | None = None
    calibration: Annotated[Path, _like("images/train")] | None = None
    samples: Natural = 64
    class_map: Annotated[Path, _like("classes.csv")] | None = None


class PreprocessingChanges(Table, frozen=True):
    """What is done to images otherwise than the model or its checkpoint says; None leaves it as it is.

    Attributes:
        resize: pixels that the shorter side is brought to.
        crop: height and width of the centre crop, in pixels.
        interpolation: Pillow's filter.
        mean: of each channel of a 0–1 image, in the order of ``channels``.
        std: standard deviation of each channel, likewise.
        channels: their order in the array.
    """

    resize: Annotated[int, _like(256)] | None = None
    crop: Annotated[tuple[int, int], _like([224, 224])] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    mean: Annotated[tuple[float, float, float], _like([0.485, 0.456, 0.406])] | None = None
    std: Annotated[tuple[float, float, float], _like([0.229, 0.224, 0.225])] | None = None
    channels: Literal["rgb", "bgr"] | None = None

    def of(self, base: Preprocessing) -> Preprocessing:
        """``base`` with these changes.

        Raises:
            InputError: together they make no sense.
        """
        changes = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **changes)


class Export(Table, frozen=True):
    """What to build.

    Attributes:
        targets: what for.
        precisions: in which; every pair with a target that exists is built.
        keep_fp32: paths of modules that stay in FP32 in every other precision.
        cpu: what ONNX artefacts are to run on; FP16 is computed otherwise on an ARM64 one.
    """

    targets: Annotated[tuple[Target, ...], msgspec.Meta(min_length=1)] = (Target.ONNX,)
    precisions: Annotated[tuple[Precision, ...], msgspec.Meta(min_length=1)] = (Precision.FP32,)
    keep_fp32: Annotated[tuple[Name, ...], _like(["head"])] = ()
    cpu: Cpu = Cpu.X86_64

    def __post_init__(self) -> None:
        _refuse_repeats("target", self.targets)
        _refuse_repeats("precision", self.precisions)


class Int8(Table, frozen=True):
    """How INT8 artefacts are made; ``data.calibration`` must be there for them.

    Attributes:
        samples: calibration images that are observed.
        method: how ranges are drawn from what was observed.
        search: whether modules that cost accuracy or gain no time are looked for, and left in float.
        allow_leak: whether calibration images may be evaluation images too.
    """

    samples: Natural = 300
    method: Method = Method.MSE
    search: bool = True
    allow_leak: bool = False


class TensorRt(Table, frozen=True):
    """How TensorRT artefacts are built.

    Attributes:
        flavours: where the compilers are; one artefact for each.
        build: what they are told.
    """

    flavours: Annotated[tuple[Flavour, ...], msgspec.Meta(min_length=1)] = (Flavour.AUTO,)
    build: BuildOptions = BuildOptions()

    def __post_init__(self) -> None:
        _refuse_repeats("flavour", self.flavours)


class Run(Table, frozen=True):
    """How sessions run.

    Attributes:
        threads: of one inference.
        runtimes: what artefacts are loaded in, each in every one that loads its format; the best that is usable here where none does.
    """

    threads: Natural = 1
    runtimes: Annotated[tuple[Name, ...], _like(["onnxruntime"])] = ()

    def __post_init__(self) -> None:
        _refuse_repeats("runtime", self.runtimes)
        if unknown := [name for name in self.runtimes if name not in RUNTIMES]:
            raise ValueError(f"Expected runtimes among {', '.join(RUNTIMES)}, got {', '.join(unknown)}")


class Parity(Table, frozen=True):
    """How outputs are compared with the reference's.

    Attributes:
        adversarial: whether pictures that no camera takes (zeros, one colour, saturated, noise, next to nothing) are compared too.
        tolerance: greatest |Δ| of an output, by its name and in its own units, in place of a measured one; of whole numbers, the share of a
            sample's values that may differ. Every precision is held to it.
    """

    adversarial: bool = True
    tolerance: Annotated[dict[Name, Magnitude], _like({"boxes": 0.5})] = {}

    def __post_init__(self) -> None:
        for name, limit in self.tolerance.items():
            if not math.isfinite(limit):
                raise ValueError(f"Expected a number for `tolerance.{name}`, got {limit}")


class Limits(Table, frozen=True):
    """The gates of one precision; None sets no gate.

    Attributes:
        agreement: least share of images on which top-1 is the reference's; None asks for 1.0 in FP32, 0.998 in FP16, 0.995 in BF16
            and 0.99 in INT8.
        max_abs: greatest |Δ| of an output.
        cosine: least cosine of the outputs with the reference's.
        top1_drop: greatest loss of top-1 accuracy against the reference, as a share.
        p50_ms: greatest median latency, in milliseconds.
    """

    agreement: Annotated[Share, _like(0.99)] | None = None
    max_abs: Annotated[Magnitude, _like(0.001)] | None = None
    cosine: Annotated[Cosine, _like(0.9999)] | None = None
    top1_drop: Annotated[Share, _like(0.004)] | None = None
    p50_ms: Annotated[float, msgspec.Meta(gt=0, examples=[20.0])] | None = None

    def __post_init__(self) -> None:
        for name, limit in msgspec.structs.asdict(self).items():
            if limit is not None and not math.isfinite(limit):  # TOML has nan and inf
                raise ValueError(f"Expected a number for `{name}`, got {limit}")


class Gates(Table, frozen=True):
    """The limits of each precision. Use :meth:`of`, which adds the agreement that is always asked for."""

    fp32: Limits = Limits()
    fp16: Limits = Limits()
    bf16: Limits = Limits()
    int8: Limits = Limits()

    def of(self, precision: Precision) -> Limits:
        """Limits of a precision; agreement is :data:`AGREEMENT` where the recipe names no other."""
        limits: Limits = getattr(self, precision.value)
        if limits.agreement is None:
            return msgspec.structs.replace(limits, agreement=AGREEMENT[precision])
        return limits


class Recipe(Table, frozen=True):
    """A whole recipe. Every path is already joined to the recipe's folder."""

    model: Model
    data: Data = Data()
    preprocessing: PreprocessingChanges = PreprocessingChanges()
    export: Export = Export()
    int8: Int8 = Int8()
    tensorrt: TensorRt = TensorRt()
    coreml: CoreMlOptions = CoreMlOptions()
    run: Run = Run()
    parity: Parity = Parity()
    gates: Gates = Gates()

    def __post_init__(self) -> None:
        if Precision.INT8 in self.export.precisions and self.data.calibration is None:
            raise ValueError("Expected `data.calibration`, images to calibrate INT8 on")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: it cannot be read, is no TOML, has an unknown key or a wrong value; names the file and the key.
    """
    raw = _read(path)
    if unknown := list(_unknown(raw, inspect.type_info(Recipe), "")):
        raise InputError(f"{path}: " + "; ".join(unknown), remedy="correct the spelling, or take it out")

    def joined(kind: type, value: Any) -> Any:
        if kind is Path and isinstance(value, str):
            if not value or "\0" in value:
                raise ValueError(f"Expected a path, got {value!r}")
            return path.parent / value
        raise ValueError(f"Expected a path, got `{type(value).__name__}`")

    try:
        return msgspec.convert(raw, Recipe, dec_hook=joined)
    except (msgspec.MsgspecError, OverflowError) as error:
        raise InputError(f"{path}: {_explained(error)}", remedy="correct the recipe") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():  # also a device or a pipe, which might never end
        raise InputError(f"there is no recipe at {path}", remedy="give a TOML file")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_RECIPE + 1)
        if len(content) > LARGEST_RECIPE:
            raise InputError(f"{path} is larger than {LARGEST_RECIPE:,} bytes; no recipe is that large")
        # By name, since mypy checks for 3.10, which has no tomllib, in environments that need no tomli.
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        text = content.decode()
        require_shallow_toml(text)
        raw: dict[str, Any] = toml.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a recipe: {error}", remedy="give a TOML file in UTF-8") from error
    return raw


def _unknown(value: Any, kind: inspect.Type, where: str) -> Iterator[str]:
    """Every unknown key and choice, with those that are known; msgspec alone names the first, and nothing beside it."""
    if isinstance(kind, inspect.Metadata):  # an example beside the type
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _unknown(value, one, where)
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, kind.item_type, f"{where}[{index}]")
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        known = {field.name: field.type for field in kind.fields}
        for key, inner in value.items():
            place = f"{where}.{key}" if where else key
            if key in known:
                yield from _unknown(inner, known[key], place)
            else:
                yield f"{place} is not known; known there: {', '.join(known)}"
    elif isinstance(kind, inspect.EnumType | inspect.LiteralType) and isinstance(value, str):
        choices = [one.value for one in kind.cls] if isinstance(kind, inspect.EnumType) else kind.values
        if value not in choices:
            yield f"{where} = {value!r} is not known; known there: {', '.join(map(str, choices))}"


def _explained(error: Exception) -> str:
    """The message of msgspec with the key first: ``model.seed: expected `int`, got `str```."""
    text, _, where = str(error).partition(" - at `$")
    key = where.strip("`.")
    return f"{key}: {text[:1].lower()}{text[1:]}" if key else text

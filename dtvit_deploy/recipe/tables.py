"""A recipe: what to build from which model, on which data, and the gates it must pass. It is the one form of a request.

    [model]
    checkpoint = "digits.safetensors"   # paths are relative to the recipe

    [data]
    evaluation = "images/held-out"

    [export]
    targets = ["onnx"]
    precisions = ["fp32", "fp16"]

A file of TOML is read into it, and a command's flags are (`dtvit_deploy.recipe.reading`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Natural
from dtvit_deploy.artifacts.tables import Name, Table, like, refuse_repeats
from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.formats.engine.options import BuildOptions, Flavour
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.models.options import Model
from dtvit_deploy.recipe.judging import Gates, Parity, Profile
from dtvit_deploy.runtimes.registry import of_artefacts


class Data(Table, frozen=True):
    """Images: class-folder trees, folders or lists, or an ``.npz`` of feeds.

    Attributes:
        evaluation: held-out images for parity and accuracy; none of them may be among the calibration's.
        calibration: images that the ranges of activations are observed on, and on which modules are looked for that stay in float.
        checks: images that converters check themselves on; None takes the evaluation's, and seeded noise where there are none.
        samples: how many of the evaluation images parity is proved on.
        class_map: a text, CSV or JSON file that says what the images call the network's classes.
    """

    evaluation: Annotated[Path, like("images/held-out")] | None = None
    calibration: Annotated[Path, like("images/train")] | None = None
    checks: Annotated[Path, like("images/held-out")] | None = None
    samples: Natural = 64
    class_map: Annotated[Path, like("classes.csv")] | None = None


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

    resize: Annotated[int, like(256)] | None = None
    crop: Annotated[tuple[int, int], like([224, 224])] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    mean: Annotated[tuple[float, float, float], like([0.485, 0.456, 0.406])] | None = None
    std: Annotated[tuple[float, float, float], like([0.229, 0.224, 0.225])] | None = None
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
    keep_fp32: Annotated[tuple[Name, ...], like(["head"])] = ()
    cpu: Cpu = Cpu.X86_64

    def __post_init__(self) -> None:
        refuse_repeats("target", self.targets)
        refuse_repeats("precision", self.precisions)


class Int8(Table, frozen=True):
    """How INT8 artefacts are made: from ranges that are observed on ``data.calibration``, or were before.

    Attributes:
        quantizer: what makes an INT8 graph: ours, from ranges, for every target; or OpenVINO's NNCF, which observes images itself.
        ranges: a table that `calibrate` wrote; None observes ``data.calibration``.
        method: how ranges are drawn from what was observed.
        search: whether modules that cost accuracy or gain no time are looked for on the calibration's images, and left in float.
        samples: calibration images that are observed.
        sampling_seed: of their choice and order.
        percentile: what the method of that name keeps, in per cent.
        random_data: feed random numbers in place of images, to try things out only; all that is made of it says so.
        allow_leak: whether calibration images may be evaluation images too.
        smooth_quant: SmoothQuant, of NNCF.
        bias_correction: fast bias correction, of NNCF.
    """

    quantizer: Literal["ours", "nncf"] = "ours"
    ranges: Annotated[Path, like("ranges.json")] | None = None
    method: Method = Method.MSE
    search: bool = True
    samples: Annotated[int, msgspec.Meta(ge=2, le=2**63 - 1)] = 300
    sampling_seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    percentile: Annotated[float, msgspec.Meta(ge=50, le=100)] = 99.99
    random_data: bool = False
    allow_leak: bool = False
    smooth_quant: bool = False
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.percentile):  # TOML has nan, which is neither less than a bound nor greater
            raise ValueError(f"Expected a number for `percentile`, got {self.percentile}")


class TensorRt(Table, frozen=True):
    """How TensorRT artefacts are built.

    Attributes:
        flavours: where the compilers are; one artefact for each.
        build: what they are told.
    """

    flavours: Annotated[tuple[Flavour, ...], msgspec.Meta(min_length=1)] = (Flavour.AUTO,)
    build: BuildOptions = BuildOptions()

    def __post_init__(self) -> None:
        refuse_repeats("flavour", self.flavours)


class Run(Table, frozen=True):
    """How sessions run.

    Attributes:
        threads: of one inference.
        runtimes: what artefacts are loaded in, each in every one that loads its format; the best that is usable here where none does.
        inventory: where devices are looked up; by itself `devices.toml` beside the recipe (in the working folder), or else the user's own.
        shard: evaluation images that `run` scores in one stage, so that stages run side by side, and what is done is kept where it is
            interrupted; a calibration is cut into stretches of an eighth as many. Figures and ranges are the same, however they are cut.
    """

    threads: Natural = 1
    runtimes: Annotated[tuple[Name, ...], like(["onnxruntime"])] = ()
    inventory: Annotated[Path, like("devices.toml")] | None = None
    shard: Natural = 1000

    def __post_init__(self) -> None:
        refuse_repeats("runtime", self.runtimes)
        if unknown := [name for name in self.runtimes if name not in of_artefacts()]:
            raise ValueError(f"Expected runtimes among {', '.join(of_artefacts())}, got {', '.join(unknown)}")


class Device(Table, frozen=True):
    """A device that is measured on, a table for each; without any, that is this machine.

    Attributes:
        name: ``local``, an address, or a name or tag of ``devices.toml``; beside an ``address``, your own, which comes before one there.
        address: ``ssh://[user@]host[:port]``, or ``local``; what else a table says is of a device that has one.
        tags: names that several devices may share.
        notes: yours, for people.
        python: the program there: in its PATH, absolute, or from the user's home there.
        power_meter: what measures the power that it takes, for people.
    """

    name: Annotated[Name, like("orin-1")]
    address: Annotated[Name, like("ssh://me@orin-1.lab")] | None = None
    tags: Annotated[tuple[Name, ...], like(["orin"])] = ()
    notes: Annotated[str, like("on the shelf, MAXN")] = ""
    python: str = "python3"
    power_meter: Annotated[str, like("ina3221")] = ""


class Recipe(Table, frozen=True):
    """A whole request. Every path is already joined to the folder of the file that it comes from."""

    model: Model = Model()
    data: Data = Data()
    preprocessing: PreprocessingChanges = PreprocessingChanges()
    export: Export = Export()
    int8: Int8 = Int8()
    tensorrt: TensorRt = TensorRt()
    coreml: CoreMlOptions = CoreMlOptions()
    run: Run = Run()
    device: tuple[Device, ...] = ()
    parity: Parity = Parity()
    profile: Profile = Profile()
    gates: Gates = Gates()

    def __post_init__(self) -> None:
        refuse_repeats("device", [one.name for one in self.device])

    @property
    def checks(self) -> Path | None:
        """Images for the converters' own checks."""
        return self.data.checks or self.data.evaluation

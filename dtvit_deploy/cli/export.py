"""`dtvit-deploy export`: artefacts for every target and precision that was asked for."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.cli import coreml as apple
from dtvit_deploy.cli import options as given
from dtvit_deploy.cli import tensorrt as trt
from dtvit_deploy.cli.failure import explained
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.export.openvino.nncf import NncfOptions
    from dtvit_deploy.pipeline.int8 import Int8


class Quantizer(enum.Enum):
    """What makes an INT8 graph."""

    OURS = "ours"
    NNCF = "nncf"


@explained
def export(
    model: given.Model = None,
    checkpoint: given.Checkpoint = None,
    target: given.Targets = None,
    precision: given.Precisions = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artefacts.")] = Path("out"),
    data: given.Data = None,
    class_map: given.ClassMap = None,
    keep_fp32: Annotated[
        list[str] | None, typer.Option("--keep-fp32", help="Torch module that stays FP32, repeatable.", show_default=False)
    ] = None,
    ranges: Annotated[Path | None, typer.Option("--ranges", help="What `calibrate` wrote, for INT8.", show_default=False)] = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="How INT8's ranges are drawn from what was observed.", show_default="mse")
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(
            "--search",
            help="Images, the calibration's own at best, on which to find the modules that should stay in float in INT8 artefacts.",
            show_default=False,
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--evaluation", help="Held-out images, none of which NNCF may calibrate on, or the search look at.", show_default=False
        ),
    ] = None,
    quantizer: Annotated[
        Quantizer, typer.Option("--quantizer", help="What makes INT8: ours, from --ranges, or OpenVINO's NNCF, on images of --data.")
    ] = Quantizer.OURS,
    smooth_quant: Annotated[bool, typer.Option("--smooth-quant", help="SmoothQuant, of NNCF.")] = False,
    bias_correction: Annotated[bool, typer.Option("--bias-correction", help="Fast bias correction, of NNCF.")] = False,
    flavour: trt.Flavours = None,
    capability: trt.Capabilities = None,
    workspace: trt.Workspace = None,
    optimization_level: trt.Level = 3,
    tf32: trt.Tf32 = False,
    version_compatible: trt.VersionCompatible = False,
    hardware_compatible: trt.HardwareCompatible = False,
    dla_core: trt.DlaCore = None,
    ios: apple.Release = apple.Ios.IOS17,
    weights: apple.Stored = None,
    layout: apple.Laid = None,
    image_input: apple.Image = False,
    classifier: apple.Classifier = False,
    author: apple.Author = "",
    licence: apple.Licence = "",
    model_version: apple.Version = "",
    description: apple.Description = "",
    inputs: given.Inputs = None,
    outputs: given.Outputs = None,
    input_size: given.InputSize = None,
    num_classes: given.Classes = None,
    seed: given.Seed = 0,
    resize: given.Resize = None,
    crop: given.Crop = None,
    mean: given.Mean = None,
    std: given.Std = None,
    interpolation: given.Interpolation = None,
    channels: given.Channels = None,
    arm64: given.Arm64 = False,
    no_cache: given.NoCache = False,
    as_json: given.Json = False,
) -> None:
    """Export a model to one or more targets and precisions."""
    from dtvit_deploy.cli import show
    from dtvit_deploy.cli.progress import working
    from dtvit_deploy.pipeline import export as exporting
    from dtvit_deploy.report.figures import megabytes

    precisions = list(dict.fromkeys(precision or [Precision.FP32]))
    if Precision.INT8 not in precisions and (ranges or search or method or quantizer is Quantizer.NNCF):
        raise InputError(
            "--ranges, --method, --search and --quantizer are for INT8, which was not asked for",
            remedy="add --precision int8, or leave them out",
        )
    int8 = (
        _by_nncf(ranges, method, search, smooth_quant, bias_correction)
        if quantizer is Quantizer.NNCF
        else _by_ours(ranges, method, search, smooth_quant, bias_correction)
    )
    reference = given.model_options(checkpoint, inputs, outputs, input_size, num_classes, seed)
    options = exporting.ExportOptions(
        model=model,
        reference=reference,
        targets=list(dict.fromkeys(target or [Target.ONNX])),
        precisions=precisions,
        keep_fp32=tuple(keep_fp32 or ()),
        data=data,
        evaluation=evaluation,
        preprocessing=given.preprocessing_changes(
            resize=resize, crop=crop, mean=mean, std=std, interpolation=interpolation, channels=channels
        ),
        class_map=given.read_map(class_map),
        int8=int8,
        tensorrt=trt.tensorrt_options(
            flavour,
            capability,
            workspace=workspace,
            level=optimization_level,
            tf32=tf32,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            dla_core=dla_core,
        ),
        coreml=apple.coreml_options(
            ios,
            weights,
            layout,
            image=image_input,
            classifier=classifier,
            author=author,
            licence=licence,
            version=model_version,
            description=description,
        ),
        cpu=Cpu.ARM64 if arm64 else Cpu.X86_64,
    )
    with working() as progress, exporting.opened_cache(not no_cache) as cache:
        program, artifacts = exporting.export(options, out, cache, progress)
    if as_json:
        show.as_json([{"file": str(artifact.path), "manifest": artifact.manifest} for artifact in artifacts])
        return
    body = [
        (one.name, " ".join((str(it.precision), *it.variant)), megabytes(one.bytes), str(it.rung), it.sha256[:16])
        for one, it in ((artifact, artifact.manifest) for artifact in artifacts)
    ]
    show.rows(f"{program.artifact.manifest.model} → {out}", ("file", "precision", "MB", "rung", "SHA-256"), body, right=("MB",))
    told = ((artifact.name, [note for link in artifact.manifest.lineage for note in link.notes]) for artifact in artifacts)
    show.notes((), told, show.console(), "in the manifests beside the artefacts")
    if data is None:
        show.note("no --data: what converters checked or measured on the way was on seeded noise, not on images", show.console())
    files = " ".join(str(a.path) for a in artifacts)
    also = (f" --class-map {class_map}" if class_map else "") + (" --arm64" if arm64 else "")
    show.console().say(f"not yet compared with torch: dtvit-deploy verify {files} --data {data or 'IMAGES'}{also}")


def _by_nncf(ranges: Path | None, method: Method | None, search: Path | None, smooth_quant: bool, bias_correction: bool) -> NncfOptions:
    from dtvit_deploy.export.openvino.nncf import NncfOptions

    if ranges or method or search:
        raise InputError(
            "NNCF takes neither --ranges nor --method nor --search: it observes the images of --data itself",
            remedy="leave them out, or use --quantizer ours",
        )
    return NncfOptions(smooth_quant=smooth_quant, bias_correction=bias_correction)


def _by_ours(ranges: Path | None, method: Method | None, search: Path | None, smooth_quant: bool, bias_correction: bool) -> Int8 | None:
    """What makes INT8 of a range table; None without one."""
    from dtvit_deploy.calibration.ranges import load_ranges
    from dtvit_deploy.pipeline.int8 import Int8

    if smooth_quant or bias_correction:
        raise InputError("--smooth-quant and --bias-correction are NNCF's", remedy="add --quantizer nncf, or leave them out")
    return None if ranges is None else Int8(table=load_ranges(ranges), method=method or Method.MSE, search_data=search)

"""From a model to artefacts in a folder: each target and precision that was asked for, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.artifacts.target import Cpu, Precision, Target, pairs
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.export.openvino.nncf import NncfOptions
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.pipeline.arm64 import portable_stage, told_of_arm64
from dtvit_deploy.pipeline.calibration_set import require_held_out
from dtvit_deploy.pipeline.coreml import CoreMl, require_coreml
from dtvit_deploy.pipeline.described import require_as_described
from dtvit_deploy.pipeline.float16 import float16_rest_stage, float16_stage
from dtvit_deploy.pipeline.golden import golden_stage
from dtvit_deploy.pipeline.int8 import Int8, Quantiser, int8_stage, search_stage
from dtvit_deploy.pipeline.material import Material, open_material, preprocessing_of, require_images
from dtvit_deploy.pipeline.nncf import calibration_of, nncf_stage, require_nncf
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import (
    GuardFeeds,
    ProgramEntry,
    copy_artifact,
    onnx_stage,
    program_stage,
)
from dtvit_deploy.pipeline.tensorrt import Choice, chosen, tensorrt_stages
from dtvit_deploy.recipe import PreprocessingChanges, TensorRt
from dtvit_deploy.runtimes.registry import RUNTIMES

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.models.reference import ModelOptions


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export.

    Attributes:
        model: registry name, ``timm:NAME`` or ``package.module:factory``; None when the checkpoint says.
        reference: checkpoint, sizes, names and seed of the network.
        targets, precisions: every pair that exists is built; each target and each precision must be in one.
        keep_fp32: modules that stay FP32 in every other precision.
        data: real input for the converters' own checks; noise where there is none.
        evaluation: images that NNCF may not calibrate on, nor the search for modules look at; None checks nothing.
        preprocessing: changes to what the checkpoint says.
        int8: ranges for INT8, and how they are used, or what NNCF is to do; needed where that is asked for.
        tensorrt: how TensorRT artefacts are built.
        coreml: how Core ML packages are built.
        class_map: what the images call the classes.
        cpu: what ONNX artefacts are to run on.
    """

    model: str | None
    reference: ModelOptions
    targets: Sequence[Target] = (Target.ONNX,)
    precisions: Sequence[Precision] = (Precision.FP32,)
    keep_fp32: tuple[str, ...] = ()
    data: Path | None = None
    evaluation: Path | None = None
    preprocessing: PreprocessingChanges | None = None
    int8: Int8 | NncfOptions | None = None
    tensorrt: TensorRt = field(default_factory=TensorRt)
    coreml: CoreMlOptions = field(default_factory=CoreMlOptions)
    class_map: ClassMap | None = None
    cpu: Cpu = Cpu.X86_64

    def __post_init__(self) -> None:
        pairs(self.targets, self.precisions)
        if Target.TRT not in self.targets and self.tensorrt != TensorRt():
            raise InputError(
                "options of TensorRT were given, and the target trt was not asked for",
                remedy="add --target trt (in a recipe: to export.targets), or leave them out",
            )
        if Target.COREML not in self.targets and self.coreml != CoreMlOptions():
            raise InputError(
                "options of Core ML were given, and the target coreml was not asked for",
                remedy="add --target coreml (in a recipe: to export.targets), or leave them out",
            )
        if Target.ONNX not in self.targets and self.cpu is Cpu.ARM64:
            raise InputError(
                "an ARM64 CPU was named, and the target onnx not: it is ONNX Runtime that computes otherwise there",
                remedy="add --target onnx (in a recipe: to export.targets), or leave --arm64 (export.cpu) out",
            )
        if isinstance(self.int8, NncfOptions):
            self._require_for_nncf()
        elif self.evaluation is not None and (self.int8 is None or self.int8.search_data is None):
            raise InputError(
                "evaluation images are held against what NNCF calibrates on or a search looks at, and neither was asked for",
                remedy="leave --evaluation out; that of `calibrate` is for --ranges",
            )

    def _require_for_nncf(self) -> None:
        if set(self.targets) != {Target.OPENVINO}:
            raise InputError(
                "NNCF quantises OpenVINO's graph, and other targets were asked for",
                remedy="leave them to a command of their own, or use --quantizer ours with --ranges",
            )
        if self.data is None:
            raise InputError(
                "NNCF calibrates on images, and none were given", remedy="give --data a folder of some hundred training images"
            )
        if self.keep_fp32:
            raise InputError(
                "NNCF chooses by itself what stays in float; modules to keep there cannot be named",
                remedy="leave --keep-fp32 out, or use --quantizer ours with --ranges",
            )


@contextlib.contextmanager
def opened_cache(use: bool) -> Iterator[Cache]:
    """The user's cache, or one that is thrown away afterwards."""
    if use:
        yield Cache.default()
        return
    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        yield Cache(Path(folder))


def export(options: ExportOptions, out: Path, cache: Cache, progress: Progress) -> tuple[ProgramEntry, tuple[Artifact, ...]]:
    """Build every artefact, then move all of them into ``out`` together.

    Raises:
        InputError: the model, the data or ``out`` cannot be used; nothing is left in ``out`` then.
        MissingError: a target needs a package that is not installed.
    """
    search = options.int8.search_data if isinstance(options.int8, Int8) else None
    require_images(options.class_map, options.data, options.evaluation, search)
    with exported(options, out, cache, progress) as (program, artifacts, _):
        names = [artifact.name for artifact in artifacts]
    return program, tuple(load_artifact(out / name) for name in names)


@contextlib.contextmanager
def exported(
    options: ExportOptions, out: Path, cache: Cache, progress: Progress, program: ProgramEntry | None = None
) -> Iterator[tuple[ProgramEntry, tuple[Artifact, ...], Path]]:
    """Every artefact, in a hidden folder, for the block to use and to add to; when it ends well, all is moved into ``out`` together.

    Args:
        options: what to build.
        out: the folder.
        cache: holds what was built before.
        progress: told what is going on.
        program: of the same options where it is at hand: that of a user's own network is traced anew each time.

    Raises:
        InputError: as `export`.
    """
    require_reachable(options)
    choices = chosen(options.tensorrt) if Target.TRT in options.targets else ()
    with staged(out) as folder:  # as early, so that an unusable output too is refused before a minute's work
        if program is None:
            progress.step("tracing the network")
            program = program_stage(options.model, options.reference, cache)
        program = with_preprocessing(program, options.preprocessing)
        _require_ranges(options, program)
        _require_held_out(options, program)
        material = open_material(options.data, program.artifact.manifest, options.class_map)
        guard = material.guard()
        artifacts = []
        wanted = list(pairs(options.targets, options.precisions))
        for number, (target, precision) in enumerate(wanted, 1):
            progress.step(f"building {number} of {len(wanted)}: {target} {precision}" if wanted[1:] else f"building {target} {precision}")
            if target is Target.COREML:  # of the program itself; all others are of its ONNX graph
                int8 = options.int8 if isinstance(options.int8, Int8) else None
                every = [CoreMl(program, guard, options.keep_fp32, options.coreml, cache).build(precision, int8)]
            else:
                graph = _graph(target, precision, program, guard, options, cache, progress)
                every = _of_target(target, precision, graph, program, material, options, choices, cache)
            for built in every:
                require_as_described(built)
            artifacts += [copy_artifact(built, folder, built.manifest.file_name) for built in every]
        yield program, tuple(artifacts), folder


def _graph(
    target: Target,
    precision: Precision,
    program: ProgramEntry,
    guard: GuardFeeds,
    options: ExportOptions,
    cache: Cache,
    progress: Progress,
) -> Artifact:
    """The ONNX graph, in its final types, that a target's artefact is, or is made from."""
    simplified = onnx_stage(program, guard, cache)
    if precision is Precision.FP16:
        return float16_stage(simplified, guard, options.keep_fp32, cache, options.cpu if target is Target.ONNX else Cpu.X86_64)
    if precision is Precision.INT8 and not isinstance(options.int8, NncfOptions):
        quantised = _int8(target, simplified, program, options, cache, progress)
        if target is not Target.TRT:
            return quantised
        return float16_rest_stage(quantised, simplified, guard, options.keep_fp32, cache)
    return simplified


def _of_target(
    target: Target,
    precision: Precision,
    graph: Artifact,
    program: ProgramEntry,
    material: Material,
    options: ExportOptions,
    choices: Sequence[Choice],
    cache: Cache,
) -> list[Artifact]:
    """What a target makes of the graph: one artefact, or one of each flavour of TensorRT."""
    if target is Target.TRT:
        return tensorrt_stages(graph, choices, options.tensorrt.build, cache, lambda: golden_stage(program, graph, material, cache))
    if target is Target.OPENVINO and precision is Precision.INT8 and isinstance(options.int8, NncfOptions):
        assert options.data is not None
        return [nncf_stage(graph, options.data, options.int8, cache, options.class_map)]
    if target is Target.OPENVINO:
        return [openvino_stage(graph, precision, cache)]
    return [told_of_arm64(portable_stage(graph, cache) if precision is Precision.FP16 else graph, options.cpu)]


def _int8(
    target: Target, simplified: Artifact, program: ProgramEntry, options: ExportOptions, cache: Cache, progress: Progress
) -> Artifact:
    from dtvit_deploy.export.onnx.qdq import Layout

    assert isinstance(options.int8, Int8)
    layout = Layout.TENSORRT if target is Target.TRT else Layout.X86
    quantiser = Quantiser(simplified, program, options.int8, layout)
    if not quantiser.modules:
        raise InputError(
            f"nothing of {program.artifact.manifest.model} would be INT8: it has no product of constant weights and a million"
            " multiply–accumulates with a range, below which INT8 gains no time",
            remedy="leave int8 out",
        )
    kept = quantiser.own(options.keep_fp32)
    search = None
    if options.int8.search_data is not None:
        material = open_material(options.int8.search_data, program.artifact.manifest, options.class_map)
        search = search_stage(quantiser, target, material, kept, cache, progress)
        kept = search.in_float
    return int8_stage(quantiser, kept, search, cache)


def _require_ranges(options: ExportOptions, program: ProgramEntry) -> None:
    """Refuse INT8 without ranges, or with those of something else, before anything is built."""
    if Precision.INT8 not in options.precisions or isinstance(options.int8, NncfOptions):
        return
    if options.int8 is None:
        raise InputError(
            "INT8 needs calibrated ranges, and none were given",
            remedy="make them from real images with `dtvit-deploy calibrate … -o ranges.json`, and give --ranges ranges.json",
        )
    manifest = program.artifact.manifest
    table = options.int8.table
    table.require(manifest, preprocessing_of(manifest) if table.preprocessing is not None else None)


def _require_held_out(options: ExportOptions, program: ProgramEntry) -> None:
    """Refuse evaluation images where INT8 is fitted to images, before anything is built."""
    if options.evaluation is None:
        return
    manifest = program.artifact.manifest
    if isinstance(options.int8, NncfOptions):
        assert options.data is not None
        calibration_of(options.data, manifest, options.evaluation, options.class_map)
    elif options.int8 is not None and options.int8.search_data is not None:
        found = open_material(options.int8.search_data, manifest, options.class_map).subset(options.int8.search_samples)
        if found.images is None:
            raise InputError(
                f"{found.source} cannot be compared with the images in {options.evaluation}",
                remedy="leave --evaluation out, or give --search the images that the feeds were made from",
            )
        require_held_out(found.images, "those of the search", options.evaluation, manifest, options.class_map)


def require_reachable(options: ExportOptions) -> None:
    """Refuse data and packages that are not here before a minute's work, not after it.

    Raises:
        InputError: there are no such data.
        MissingError: a target or a quantiser needs a package that is not installed.
    """
    if options.data is not None and not os.path.exists(options.data):  # noqa: PTH110 Path.exists raises for some that are not there
        raise InputError(f"{options.data} does not exist", remedy="give a folder of images, a .txt list of them, or an .npz of feeds")
    if Target.OPENVINO in options.targets and (found := RUNTIMES["openvino"]().available()).version is None:
        raise MissingError(f"the target openvino needs OpenVINO, which is not usable here: {found.missing}", remedy=found.remedy)
    if Target.TRT in options.targets:
        chosen(options.tensorrt)
    if Target.COREML in options.targets:
        require_coreml(options.coreml, options.precisions)
    if isinstance(options.int8, NncfOptions):
        require_nncf()


def with_preprocessing(program: ProgramEntry, changes: PreprocessingChanges | None) -> ProgramEntry:
    """The user's changes go into the manifest, which every artefact inherits: it is fed as its manifest says from then on."""
    if changes is None or changes == PreprocessingChanges():
        return program
    manifest = program.artifact.manifest
    changed = msgspec.to_builtins(changes.of(preprocessing_of(manifest)))
    artifact = msgspec.structs.replace(program.artifact, manifest=msgspec.structs.replace(manifest, preprocessing=changed))
    return dataclasses.replace(program, artifact=artifact)

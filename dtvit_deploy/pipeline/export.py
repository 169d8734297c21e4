"""From a request to artefacts in a folder: each target and precision that was asked for, whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path, read_json, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.artifacts.target import Cpu, Precision, Target, pairs
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.class_scores import require_rows
from dtvit_deploy.pipeline.arm64 import portable_stage, told_of_arm64
from dtvit_deploy.pipeline.compared import require_outputs
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.described import require_as_described
from dtvit_deploy.pipeline.float16 import float16_rest_stage, float16_stage
from dtvit_deploy.pipeline.golden import golden_stage
from dtvit_deploy.pipeline.int8 import TRIAL_SAMPLES, Quantiser, int8_stage, search_stage
from dtvit_deploy.pipeline.material import Material, class_map_of, open_material, with_preprocessing
from dtvit_deploy.pipeline.nncf import nncf_stage
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.ranges import RANGES, ranges_stage, require_sound_calibration
from dtvit_deploy.pipeline.reachable import require_reachable
from dtvit_deploy.pipeline.stages import GuardFeeds, copy_artifact
from dtvit_deploy.pipeline.tensorrt import Choice, chosen, tensorrt_stages
from dtvit_deploy.recipe.buildable import require_buildable
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.calibration.ranges import RangeTable


@contextlib.contextmanager
def opened_cache(use: bool) -> Iterator[Cache]:
    """The user's cache, or one that is thrown away afterwards."""
    if use:
        yield Cache.default()
        return
    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        yield Cache(Path(folder))


def export(recipe: Recipe, out: Path, cache: Cache, progress: Progress) -> tuple[ProgramEntry, tuple[Artifact, ...]]:
    """Build every artefact, then move all of them into ``out`` together, with the range table where one was made.

    Raises:
        InputError: the model, the data or ``out`` cannot be used; nothing is left in ``out`` then.
        MissingError: a target needs a package that is not installed.
    """
    with exported(recipe, out, cache, progress) as made:
        names = [artifact.name for artifact in made.artifacts]
        for told in filter(None, (takes_the_place(artifact, out) for artifact in made.artifacts)):
            progress.step(told)
    return made.program, tuple(load_artifact(out / name) for name in names)


def takes_the_place(artifact: Artifact, out: Path) -> str:
    """What is to be said where an artefact is about to replace another of its name; empty where it is the same, or there is none."""
    beside = manifest_path(out / artifact.name)
    try:
        earlier: Manifest | None = read_json(beside, Manifest) if beside.is_file() else None
    except InputError:
        earlier = None
    if earlier is None or earlier.sha256 == artifact.manifest.sha256:
        return ""
    pairs_of = zip(earlier.lineage, artifact.manifest.lineage, strict=False)
    step = next((new.kind for old, new in pairs_of if old.sha256 != new.sha256), artifact.manifest.lineage[-1].kind)
    return f"{artifact.name} takes the place of another of that name in {out}: they differ from the step {step!r} on"


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        program: the reference.
        artifacts: in a hidden folder, with their manifests.
    """

    program: ProgramEntry
    artifacts: tuple[Artifact, ...]


@contextlib.contextmanager
def exported(recipe: Recipe, out: Path, cache: Cache, progress: Progress, program: ProgramEntry | None = None) -> Iterator[Exported]:
    """Every artefact, in a hidden folder, for the block to use; when it ends well, all is moved into ``out`` together.

    Args:
        recipe: what to build.
        out: the folder.
        cache: holds what was built before.
        progress: told what is going on.
        program: of the same request where it is at hand: that of a user's own network is traced anew each time.

    Raises:
        InputError: as `export`.
    """
    require_buildable(recipe)
    class_map = class_map_of(recipe)
    require_reachable(recipe)
    with staged(out) as folder:  # as early, so that an unusable output too is refused before a minute's work
        if program is None:
            progress.step("tracing the network")
            program = program_stage(recipe.model, cache)
        program = with_preprocessing(program, recipe.preprocessing)
        require_outputs(program.artifact.manifest.signature, recipe.parity.tolerance)
        require_rows(program.artifact.manifest.signature.outputs, recipe.parity.class_scores)
        require_sound_calibration(recipe, class_map, program)
        table = ranges_stage(recipe, class_map, program, cache, progress)
        build = Build(recipe, program, table, class_map, cache, progress)
        artifacts = []
        wanted = pairs(recipe.export.targets, recipe.export.precisions)
        for number, (target, precision) in enumerate(wanted, 1):
            progress.step(f"building {number} of {len(wanted)}: {target} {precision}" if wanted[1:] else f"building {target} {precision}")
            artifacts += [copy_artifact(built, folder, built.manifest.file_name) for built in build.artifacts(target, precision)]
        if table is not None and recipe.int8.ranges is None:
            write_json(folder / RANGES, table)
        yield Exported(program, tuple(artifacts))


@dataclass(frozen=True)
class Build:
    """Builds artefacts of one program.

    Attributes:
        recipe: what was asked for.
        program: the exported program.
        table: ranges for INT8; None where none is asked for, or NNCF is to make it.
        class_map: what images call the classes.
        cache: holds what was built before.
        progress: told what is going on.
    """

    recipe: Recipe
    program: ProgramEntry
    table: RangeTable | None
    class_map: ClassMap | None
    cache: Cache
    progress: Progress

    def artifacts(self, target: Target, precision: Precision) -> list[Artifact]:
        """What a target is built in a precision: one artefact, or one of each flavour of TensorRT; they lie in the cache.

        Raises:
            InputError: the network cannot be built so.
            MissingError: a compiler is not here.
        """
        if target is Target.COREML:  # of the program itself; all others are of its ONNX graph
            recipe = self.recipe
            packages = CoreMl(self.program, self.guard, recipe.export.keep_fp32, recipe.coreml, self.cache, self.class_map)
            search = recipe.int8.search and recipe.data.calibration is not None
            every = [packages.build(precision, self.table, msgspec.structs.replace(recipe.int8, search=search))]
        else:
            every = self._of_graph(target, precision, self._graph(target, precision))
        for built in every:
            require_as_described(built)
        return every

    @cached_property
    def material(self) -> Material:
        """What converters check themselves on."""
        return open_material(self.recipe.checks, self.program.artifact.manifest, self.class_map)

    @cached_property
    def guard(self) -> GuardFeeds:
        return self.material.guard()

    @cached_property
    def _choices(self) -> tuple[Choice, ...]:
        return chosen(self.recipe.tensorrt)

    def _graph(self, target: Target, precision: Precision) -> Artifact:
        """The ONNX graph, in its final types, that a target's artefact is, or is made from."""
        simplified, keep = onnx_stage(self.program, self.guard, self.cache), self.recipe.export.keep_fp32
        if precision is Precision.FP16:
            cpu = self.recipe.export.cpu if target is Target.ONNX else Cpu.X86_64
            return float16_stage(simplified, self.guard, keep, self.cache, cpu)
        if precision is Precision.INT8 and self.table is not None:
            quantised = self._int8(target, simplified, self.table)
            if target is not Target.TRT:
                return quantised
            return float16_rest_stage(quantised, simplified, self.guard, keep, self.cache)
        return simplified

    def _of_graph(self, target: Target, precision: Precision, graph: Artifact) -> list[Artifact]:
        if target is Target.TRT:
            return tensorrt_stages(
                graph,
                self._choices,
                self.recipe.tensorrt.build,
                self.cache,
                lambda: golden_stage(self.program, graph, self.material, self.cache, self.recipe.parity.class_scores),
            )
        if target is Target.OPENVINO and precision is Precision.INT8 and self.table is None:
            return [nncf_stage(graph, self.recipe, self.class_map, self.cache)]
        if target is Target.OPENVINO:
            return [openvino_stage(graph, precision, self.cache)]
        portable = portable_stage(graph, self.cache) if precision is Precision.FP16 else graph
        return [told_of_arm64(portable, self.recipe.export.cpu)]

    def _int8(self, target: Target, simplified: Artifact, table: RangeTable) -> Artifact:
        from dtvit_deploy.export.onnx.qdq import Layout

        layout = Layout.TENSORRT if target is Target.TRT else Layout.X86
        quantiser = Quantiser(simplified, self.program, table, self.recipe.int8.method, layout)
        manifest = self.program.artifact.manifest
        if not quantiser.modules:
            raise InputError(
                f"nothing of {manifest.model} would be INT8: it has no product of constant weights and a million"
                " multiply–accumulates with a range, below which INT8 gains no time",
                remedy="leave int8 out",
            )
        kept = quantiser.own(self.recipe.export.keep_fp32)
        search, data = None, self.recipe.data.calibration
        if self.recipe.int8.search and data is not None:
            # Of a calibration's folder, no more than it observed are known not to be evaluation images.
            material = open_material(data, manifest, self.class_map).subset(min(TRIAL_SAMPLES, len(table.samples)))
            called = self.recipe.parity.class_scores
            search = search_stage(quantiser, target, material, kept, self.recipe.run.threads, self.cache, self.progress, called)
            kept = search.in_float
        return int8_stage(quantiser, kept, search, self.cache)

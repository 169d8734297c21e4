"""What a target is built in a precision, of one exported program: which stages are composed for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Cpu, Precision, Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.arm64 import portable_stage, told_of_arm64
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.described import require_as_described
from dtvit_deploy.pipeline.float16 import float16_rest_stage, float16_stage
from dtvit_deploy.pipeline.golden import golden_stage
from dtvit_deploy.pipeline.int8 import TRIAL_SAMPLES, Quantiser, int8_stage, search_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.nncf import nncf_stage
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.openvino import openvino_stage
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import GuardFeeds
from dtvit_deploy.pipeline.tensorrt import Choice, chosen, tensorrt_stages
from dtvit_deploy.recipe.tables import Recipe

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.calibration.ranges import RangeTable


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

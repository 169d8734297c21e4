"""A small network of a test's own: exported in this process, changed where a test wants it wrong, and compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Artifact, Link, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.harness.parity import Difference
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.compared import parity
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.runtimes.pairing import pairings


@dataclass(frozen=True)
class Judged:
    """A network's program and its ONNX artefact."""

    folder: Path
    program: ProgramEntry
    artifact: Artifact
    material: Material

    def float16(self) -> Artifact:
        return float16_stage(self.artifact, self.material.guard(), (), Cache(self.folder / "cache"))

    def changed(self, change: Callable[[onnx.ModelProto], None]) -> Artifact:
        """The ONNX artefact after a change that its manifest vouches for."""
        model = onnx.load(self.artifact.path)
        change(model)
        path = self.folder / "changed.onnx"
        path.write_bytes(model.SerializeToString())
        *before, last = self.artifact.manifest.lineage
        digest = sha256_of(path)
        manifest = msgspec.structs.replace(
            self.artifact.manifest, sha256=digest, lineage=(*before, msgspec.structs.replace(last, sha256=digest))
        )
        write_json(manifest_path(path), manifest)
        return load_artifact(path)

    def compared(self, artifact: Artifact | None = None, **options: object) -> tuple[Difference, ...]:
        bench = Bench(self.program, pairings((artifact or self.artifact,)), self.material, 1, Silent())
        return parity(bench, 8, **options)[0]  # type: ignore[arg-type]

    def failed(self, artifact: Artifact | None = None) -> set[tuple[str, str]]:
        """Outputs and feeds on which an artefact is judged wrong."""
        return {(one.output, one.feeds) for one in self.compared(artifact) if not one.passed}


def judged(module: nn.Module, inputs: dict[str, Tensor], folder: Path) -> Judged:
    """Export a network to ONNX, without data."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = Link(kind="seeded", sha256="0" * 64)
    write_program(Reference(model="net", module=module.eval(), inputs=inputs, output_names=(), weights=weights), folder)
    program = read_program_entry(folder)
    material = open_material(None, program.artifact.manifest)
    return Judged(folder, program, onnx_stage(program, material.guard(), Cache(folder / "cache")), material)


def picture(side: int = 32) -> dict[str, Tensor]:
    return {"image": torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))}


def scaled(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    """A change that multiplies one constant."""

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = (one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * numpy_helper.to_array(tensor).dtype.type(factor), name))

    return change

"""Core ML packages for tests, by the exporter that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.class_map import ClassMap
from dtvit_deploy.formats.mlpackage.options import LINK, VIEWS, CoreMlOptions
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.stages import describe
from dtvit_deploy.runtimes.torch.session import read_program


def package(
    program: ProgramEntry,
    cache: Path,
    precision: Precision = Precision.FP32,
    keep: tuple[str, ...] = (),
    class_map: ClassMap | None = None,
    **options: Any,
) -> Artifact:
    """As `export` makes it, with all that it asks before and tells afterwards."""
    guard = open_material(None, program.artifact.manifest).guard()
    return CoreMl(program, guard, keep, CoreMlOptions(**options), Cache(cache), class_map).build(precision, None)


def converted(program: ProgramEntry, precision: Precision, path: Path) -> Artifact:
    """The conversion alone, which takes a second where FP16's search takes five."""
    from dtvit_deploy.export.coreml.package import mlpackage_from_program
    from dtvit_deploy.pipeline.coreml_interface import interface_of

    manifest = program.artifact.manifest
    made = mlpackage_from_program(read_program(program.artifact), program.nodes, interface_of(manifest, CoreMlOptions()), precision, path)
    views = {name: msgspec.to_builtins(view) for name, view in made.views.items()}
    describe(path, manifest, precision, LINK, {}, {VIEWS: views}, made.notes)
    return msgspec.structs.replace(load_artifact(path), trusted=True)  # made here: a trial of each would take seconds

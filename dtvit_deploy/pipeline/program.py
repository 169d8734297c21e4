"""The exported program: traced once, kept with its nodes and with the ONNX graph that it was decomposed for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import (
    Artifact,
    Link,
    Manifest,
    load_artifact,
    manifest_path,
    read_json,
    sha256_of,
    write_json,
)
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.nodes import NodeMap, Nodes
from dtvit_deploy.artifacts.signature import MOST_VALUES
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.garbage import uncollected
from dtvit_deploy.pipeline.stages import versions, write_onnx

if TYPE_CHECKING:
    from dtvit_deploy.models.options import Model
    from dtvit_deploy.models.reference import Reference

PROGRAM = "program.pt2"
NODES = "nodes.json"
REFUSED = "onnx-refused.json"


class Refusal(msgspec.Struct, frozen=True):
    """Why a program has no ONNX graph; other targets may take it all the same."""

    message: str
    remedy: str | None


@dataclass(frozen=True)
class ProgramEntry:
    """A cached exported program.

    Attributes:
        translated: the ONNX graph that was made along with it; it is not there where ONNX has not what the network needs.
    """

    artifact: Artifact
    nodes: NodeMap
    translated: Path

    def graph(self) -> Artifact:
        """The translated ONNX graph.

        Raises:
            InputError: there is none, for the reason that the translation gave.
        """
        refused = self.translated.with_name(REFUSED)
        if refused.is_file():
            told = read_json(refused, Refusal)
            raise InputError(told.message, remedy=told.remedy)
        return load_artifact(self.translated)


def program_stage(model: Model, cache: Cache) -> ProgramEntry:
    """Reference network → exported program.

    A registry model is known by its name, its checkpoint's digest and this package's own source, so that a second export need not even
    import torch. The code behind a user's factory can change unseen: that is exported anew each time, and then kept by content.

    Raises:
        InputError: the network or its checkpoint cannot be used, its inputs would fill the memory, or the checkpoint changes meanwhile.
    """
    require_feedable(model)
    checkpoint = model.checkpoint
    known = sha256_of(checkpoint) if checkpoint is not None and checkpoint.is_file() else None

    def build(folder: Path) -> None:
        from dtvit_deploy.models.reference import load_reference

        with uncollected():
            reference = load_reference(model)
            if known is not None and reference.weights.sha256 != known:
                raise InputError(f"{checkpoint} was changed while it was read", remedy="wait until it is whole, and try again")
            write_program(reference, folder)

    if model.name is not None and ":" in model.name:
        folder = cache.entry_by_content("program", build, lambda part: {"content": sha256_of(part / "program.pt2.json")})
    else:
        key = {
            "model": model.name,
            "checkpoint": known or str(checkpoint),
            "options": [model.input_size, model.num_classes, model.inputs, model.outputs, model.seed],
            "tools": versions("torch", "onnx", "onnxscript", "onnx-ir"),
            "source": source_digest(__name__),
        }
        folder = cache.entry("program", key, build)
    return read_program_entry(folder)


def require_feedable(model: Model) -> None:
    """Refuse inputs that would fill the memory.

    Raises:
        InputError: names the input, and how many values it would have.
    """
    size = model.input_size
    shapes = {f"input {spec.name!r}": spec.shape for spec in model.inputs} | ({"image": (3, *size)} if size else {})
    for name, shape in shapes.items():
        if math.prod(shape) > MOST_VALUES:
            raise InputError(
                f"the {name} would have {'×'.join(map(str, shape))} values; at most {MOST_VALUES:,} are fed",
                remedy="give a smaller size",
            )


def write_program(reference: Reference, folder: Path) -> None:
    """Export, and write the program, its nodes, the ONNX graph that it was decomposed for, and their manifests.

    Where ONNX has no translation, the reason is kept in its place: only the targets that are made from that graph fail by it.
    """
    from dtvit_deploy.export.onnx.translate import OPSET, functional, onnx_from_program
    from dtvit_deploy.export.program import program_from_reference, require_answers_as, save_program

    traced, graph = program_from_reference(reference), None
    try:
        graph, program = onnx_from_program(traced)
    except InputError as error:
        write_json(folder / REFUSED, Refusal(str(error), error.remedy))
        program = functional(traced)
    require_answers_as(program, reference)  # the decomposed program is the one that everything is compared with
    path = save_program(program, folder)
    digest = sha256_of(path)
    link = Link(kind="program", sha256=digest, tools=versions("torch"))
    manifest = Manifest(
        model=reference.model,
        format="program",
        precision=Precision.FP32,
        sha256=digest,
        signature=program.signature,
        lineage=(reference.weights, link),
        classes=reference.classes,
        preprocessing=dict(reference.preprocessing),
    )
    write_json(folder / NODES, Nodes(program.nodes.nodes, program.nodes.outputs))
    write_json(manifest_path(path), manifest)
    if graph is not None:
        write_onnx(
            folder, graph, manifest, Precision.FP32, "onnx", versions("torch", "onnx", "onnxscript", "onnx-ir"), {"opset": OPSET}, ()
        )


def read_program_entry(folder: Path) -> ProgramEntry:
    artifact = load_artifact(folder / PROGRAM)
    saved = read_json(folder / NODES, Nodes)
    return ProgramEntry(artifact, NodeMap(saved.nodes, saved.outputs), folder / "model.onnx")


def find_program(digest: str, cache: Cache, of: Callable[[Manifest], bool]) -> ProgramEntry | None:
    """The cached program with that SHA-256, at best one whose manifest is one ``of`` those that are looked for.

    The same program may be there twice: two checkpoints may hold the same weights, and two factories make the same network.
    """

    def holds(folder: Path, *, any_of_them: bool) -> bool:
        path = manifest_path(folder / PROGRAM)
        manifest: Manifest | None = read_json(path, Manifest) if path.is_file() else None
        return manifest is not None and manifest.sha256 == digest and (any_of_them or of(manifest))

    for any_of_them in (False, True):
        folder = cache.find("program", partial(holds, any_of_them=any_of_them))
        if folder is not None:
            return read_program_entry(folder)
    return None

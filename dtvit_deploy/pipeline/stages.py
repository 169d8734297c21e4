"""The stages of an export, each kept in the cache under the digest of everything that went into it.

checkpoint → program and onnx → simplified → float16 (:mod:`dtvit_deploy.pipeline.float16`), and either of these → openvino
(:mod:`dtvit_deploy.pipeline.openvino`); each stage's manifest repeats its parent's lineage and adds a link of its own.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache as once
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import dtvit_deploy
from dtvit_deploy.artifacts.artifact import (
    Artifact,
    Link,
    Manifest,
    encode_json,
    load_artifact,
    manifest_path,
    read_json,
    sha256_of,
    write_json,
)
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nodes import NodeMap, Nodes
from dtvit_deploy.artifacts.signature import MOST_VALUES
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.garbage import uncollected

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.models.reference import ModelOptions, Reference

NODES = "nodes.json"
REFUSED = "onnx-refused.json"


class Refusal(msgspec.Struct, frozen=True):
    """Why a program has no ONNX graph; other targets may take it all the same."""

    message: str
    remedy: str | None


@dataclass(frozen=True)
class GuardFeeds:
    """Feeds that a converter checks itself with: real images where the user gave some.

    Attributes:
        source: what they are, for the manifest.
        digest: SHA-256 that changes with them.
        feeds: the real ones first.
        real: how many of them are; None means all. The others are adversarial: a network need not mean anything by its answer to those.
    """

    source: str
    digest: str
    feeds: Sequence[Feeds]
    real: int | None = None


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


def program_stage(model: str | None, options: ModelOptions, cache: Cache) -> ProgramEntry:
    """Reference network → exported program.

    A registry model is known by its name, its checkpoint's digest and this package's own source, so that a second export need not even
    import torch. The code behind a user's factory can change unseen: that is exported anew each time, and then kept by content.

    Raises:
        InputError: the network or its checkpoint cannot be used, its inputs would fill the memory, or the checkpoint changes meanwhile.
    """
    require_feedable(options)
    checkpoint = options.checkpoint
    known = sha256_of(checkpoint) if checkpoint is not None and checkpoint.is_file() else None

    def build(folder: Path) -> None:
        from dtvit_deploy.models.reference import load_reference

        with uncollected():
            reference = load_reference(model, options)
            if known is not None and reference.weights.sha256 != known:
                raise InputError(f"{checkpoint} was changed while it was read", remedy="wait until it is whole, and try again")
            write_program(reference, folder)

    if model is not None and ":" in model:
        folder = cache.entry_by_content("program", build, lambda part: {"content": sha256_of(part / "program.pt2.json")})
    else:
        key = {
            "model": model,
            "checkpoint": known or str(checkpoint),
            "options": [options.input_size, options.num_classes, options.inputs, options.outputs, options.seed],
            "tools": versions("torch", "onnx", "onnxscript", "onnx-ir"),
            "source": source_digest(),
        }
        folder = cache.entry("program", key, build)
    return read_program_entry(folder)


def require_feedable(options: ModelOptions) -> None:
    """Refuse inputs that would fill the memory.

    Raises:
        InputError: names the input, and how many values it would have.
    """
    size = options.input_size
    shapes = {f"input {spec.name!r}": spec.shape for spec in options.inputs} | ({"image": (3, *size)} if size else {})
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
    artifact = load_artifact(folder / "program.pt2")
    saved = read_json(folder / NODES, Nodes)
    return ProgramEntry(artifact, NodeMap(saved.nodes, saved.outputs), folder / "model.onnx")


def find_program(digest: str, cache: Cache, of: Callable[[Manifest], bool]) -> ProgramEntry | None:
    """The cached program with that SHA-256, at best one whose manifest is one ``of`` those that are looked for.

    The same program may be there twice: two checkpoints may hold the same weights, and two factories make the same network.
    """

    def holds(folder: Path, *, any_of_them: bool) -> bool:
        path = manifest_path(folder / "program.pt2")
        manifest: Manifest | None = read_json(path, Manifest) if path.is_file() else None
        return manifest is not None and manifest.sha256 == digest and (any_of_them or of(manifest))

    for any_of_them in (False, True):
        folder = cache.find("program", partial(holds, any_of_them=any_of_them))
        if folder is not None:
            return read_program_entry(folder)
    return None


def onnx_stage(program: ProgramEntry, guard: GuardFeeds, cache: Cache) -> Artifact:
    """Translated ONNX → simplified, proved static; the manifest's model and preprocessing are the program entry's."""
    mine = program.artifact.manifest
    exported = program.graph()
    inherited = msgspec.structs.replace(exported.manifest, preprocessing=mine.preprocessing)
    exported = msgspec.structs.replace(exported, manifest=inherited)
    tools = versions("onnx", "onnxsim", "onnxruntime")

    def build(folder: Path) -> None:
        from dtvit_deploy.export.onnx.simplify import simplify_onnx
        from dtvit_deploy.export.onnx.static import require_static
        from dtvit_deploy.runtimes.onnxruntime import run_graph

        signature = mine.signature

        def run(model: onnx.ModelProto, feeds: Iterable[Feeds], taps: tuple[str, ...]) -> Any:
            return run_graph(model, signature, feeds, taps)

        with uncollected():  # what was traced a moment ago is still there to be looked through
            result = simplify_onnx(load_onnx(exported), program.nodes, guard.feeds, run)
        require_static(result.model)
        options = {"guard_feeds": guard.source}
        write_onnx(folder, result.model, exported.manifest, Precision.FP32, "simplified", tools, options, (result.note,))

    key = {"parent": exported.manifest, "guard": guard.digest, "tools": tools, "source": source_digest()}
    return made_here(cache.entry("simplified", key, build) / "model.onnx")


def made_here(path: Path) -> Artifact:
    """An artefact in the cache, which this user's exports alone write: it needs no trial."""
    return msgspec.structs.replace(load_artifact(path), trusted=True)


def copy_artifact(artifact: Artifact, folder: Path, name: str) -> Artifact:
    """Copy an artefact of the cache and its manifest under another name; a copy, since a link would let an edit reach into the cache."""
    path = folder / name
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, path, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(artifact.path, path)
    manifest_path(path).write_bytes(encode_json(artifact.manifest))
    return msgspec.structs.replace(artifact, path=path, trusted=True)


NOT_INSTALLED = "not installed"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, this package's own included, without importing any."""
    return {"dtvit-deploy": dtvit_deploy.__version__} | {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


@once
def source_digest() -> str:
    """SHA-256 of this package's own source: the version alone does not change while one works on it."""
    digest = hashlib.sha256()
    root = Path(dtvit_deploy.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write_onnx(
    folder: Path,
    model: onnx.ModelProto,
    parent: Manifest,
    precision: Precision,
    kind: str,
    tools: dict[str, str],
    options: dict[str, Any],
    notes: tuple[str, ...],
) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    describe(path, parent, precision, kind, tools, options, notes)


def describe(
    path: Path,
    parent: Manifest,
    precision: Precision,
    kind: str,
    tools: dict[str, str],
    options: dict[str, Any],
    notes: tuple[str, ...],
    rung: Rung = Rung.BUILT,
) -> None:
    """Write the manifest of ``path``, which has the format as its suffix: the parent's lineage and one more link."""
    digest = sha256_of(path)
    link = Link(kind=kind, sha256=digest, tools=tools, options=options, notes=notes)
    lineage = (*parent.lineage, link)
    layout = path.suffix.removeprefix(".")
    manifest = msgspec.structs.replace(parent, format=layout, precision=precision, sha256=digest, lineage=lineage, rung=rung)
    write_json(manifest_path(path), manifest)


def load_onnx(artifact: Artifact) -> onnx.ModelProto:
    import onnx

    return onnx.load(artifact.path, load_external_data=False)

"""An artefact: a file or a folder that a runtime loads, and the manifest beside it that says exactly what it is.

``model.fp32.onnx`` has its manifest in ``model.fp32.onnx.json``. The manifest names the artefact's SHA-256 and, link by link, what it
was made from, back to the checkpoint. Loading checks the hash, so that an artefact changed after export is not mistaken for it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.artifacts.signature import MOST_VALUES, Signature
from dtvit_deploy.artifacts.staging import replacing
from dtvit_deploy.artifacts.target import Cpu, Precision
from dtvit_deploy.errors import CorruptError, InputError

SCHEMA = 1
NAMES = {
    "mlpackage": "Core ML",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "program": "torch",
    "rtx": "TensorRT-RTX",
    "trt": "TensorRT",
    "trtjob": "TensorRT on-device",
}
"""What people call the formats."""
LARGEST_MANIFEST = 16 << 20
"""Bytes: a manifest is a few kilobytes; what is larger is not one."""
VARIANTS = ("layout", "weights")
"""Kinds of links, each with an option of its own name, that make another artefact of the same format and precision."""

FLOAT16, CPU = "float16", "cpu"
"""Kind of the link that typing a graph as FP16 adds, and the key of its options that says what the graph is to run on."""


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step from the checkpoint to the artefact.

    Attributes:
        kind: ``checkpoint``, ``program``, ``onnx``, ``simplified``, ``float16``, …
        sha256: digest of what that step made.
        tools: name → version of what made it.
        options: what was asked of the step.
        notes: what the step has to say for itself: a roll-back and its reason, weights that are only seeded, …
    """

    kind: str
    sha256: str
    tools: dict[str, str] = {}
    options: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact is.

    Attributes:
        model: the model as it was asked for (a registry name, ``timm:NAME`` or ``package.module:factory``).
        format: ``program`` or ``onnx``, …: which runtimes can load it.
        sha256: digest of the artefact, equal to that of the last link.
        rung: how far the artefact was proved when the manifest was written.
        lineage: every step that led here, oldest first.
        classes: names of the classes, in the order of the logits; empty when unknown.
        preprocessing: how images become feeds (see ``calibration.preprocessing``); empty for inputs that are no image.
    """

    model: str
    format: str
    precision: Precision
    sha256: str
    signature: Signature
    lineage: Annotated[tuple[Link, ...], msgspec.Meta(min_length=1)]
    rung: Rung = Rung.BUILT
    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = {}
    schema: int = SCHEMA

    def parent(self, kind: str) -> Link | None:
        """The link of that kind, if the lineage has one."""
        return next((link for link in self.lineage if link.kind == kind), None)

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells it from the plain artefact of its format and precision: the layout and the storage of weights that were asked for."""
        asked = (link.options.get(link.kind) for link in self.lineage if link.kind in VARIANTS)
        return tuple(one for one in asked if isinstance(one, str))

    @property
    def cpu(self) -> tuple[str, ...]:
        """The CPU that its FP16 was typed for, where that is not the usual one: another graph, and another file."""
        asked = (link.options.get(CPU) for link in self.lineage if link.kind == FLOAT16)
        return tuple(one for one in asked if isinstance(one, str) and one != Cpu.X86_64.value)

    @property
    def stem(self) -> str:
        """``MODEL.PRECISION[.VARIANT][.CPU]``: the name of an artefact's file without its format, safe on every file system."""
        return re.sub(r"[^A-Za-z0-9_-]+", ".", ".".join((self.model, str(self.precision), *self.variant, *self.cpu)))

    @property
    def title(self) -> str:
        """The artefact in a person's words: ``Core ML FP16 palette6``."""
        return " ".join((called(self.format), self.precision.value.upper(), *self.variant))

    @property
    def judged_as(self) -> Precision:
        """The precision whose tolerance the artefact's answers have: weights that were compressed are no rounding of FP16's."""
        return Precision.INT8 if self.parent("weights") is not None else self.precision

    @property
    def file_name(self) -> str:
        """``MODEL.PRECISION[.VARIANT][.CPU].FORMAT``."""
        return f"{self.stem}.{self.format}"


_VERSIONED = msgspec.defstruct("Manifest", [("schema", int, SCHEMA)])


class Artifact(msgspec.Struct, frozen=True):
    """A file or a folder and its manifest, the one checked against the other.

    Attributes:
        trusted: whether native code in it may run: this user's machine made it, or the user says so (docs/adr/0015). A manifest cannot
            say it of itself.
    """

    path: Path
    manifest: Manifest
    trusted: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in _files(self.path))


def called(format: str) -> str:  # noqa: A002 - the manifest's word
    """A format's name as a person writes it."""
    return NAMES.get(format, format)


def sha256_of(path: Path) -> str:
    """Digest of a file, read in pieces; of a folder, that of its files' paths, sizes and digests, whatever order they come in."""
    if path.is_dir():
        listing = hashlib.sha256()
        for inside in _files(path):
            facts = f"\0{inside.stat().st_size}\0{sha256_of(inside)}\n"
            listing.update(os.fsencode(inside.relative_to(path).as_posix()) + facts.encode())
        return listing.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:  # Python 3.10 has no file_digest
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """A file itself; or every file of a folder, sorted by its path.

    Raises:
        InputError: the folder holds what is neither file nor folder, which a digest would not cover: a pipe, a link to a folder; or a link
            that leads out of it, to what is no part of the artefact and can be another file by the time a library opens it.
    """
    if not path.is_dir():
        return [path]
    files, home = [], path.resolve()
    for inside in path.rglob("*"):
        if inside.is_file() and inside.is_symlink() and not inside.resolve().is_relative_to(home):
            raise InputError(
                f"{path.name} holds a link that leads out of it: {inside.relative_to(path).as_posix()}",
                remedy="fetch a whole copy of the artefact, with files in the place of links",
            )
        if inside.is_file():
            files.append(inside)
        elif inside.is_symlink() or not inside.is_dir():
            raise InputError(
                f"{path.name} holds {inside.relative_to(path).as_posix()}, which is neither a file nor a folder",
                remedy="fetch a whole copy of the artefact, with files in the place of links",
            )
    return sorted(files, key=Path.as_posix)


def manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def load_artifact(path: Path) -> Artifact:
    """Read the manifest beside ``path`` and check the artefact against it.

    Raises:
        InputError: either is missing, the manifest cannot be understood, the artefact's bytes are not those it describes, or its lineage
            leads to others.
    """
    if not path.name or not (path.is_file() or path.is_dir()):  # a pipe might never end
        raise InputError(f"there is no artefact at {path}", remedy="give what `dtvit-deploy export` wrote")
    beside = manifest_path(path)
    if not beside.is_file():
        inside = path.absolute().parent
        whole = bool(inside.name) and manifest_path(inside).is_file()
        raise InputError(
            f"{path.name} has no manifest: {beside} does not exist",
            remedy=f"give {inside}, the whole folder"
            if whole
            else f"give what `dtvit-deploy export` wrote: a file or a folder, with its manifest beside it ({path.name}.json)",
        )
    schema = read_json(beside, _VERSIONED).schema  # by itself, since what else another schema has is not known
    if schema != SCHEMA:
        raise InputError(
            f"{beside} has schema {schema}; this version reads schema {SCHEMA}",
            remedy="update dtvit-deploy" if schema > SCHEMA else "export the artefact again",
        )
    manifest: Manifest = read_json(beside, Manifest)
    _require_feedable(manifest, beside)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if found != manifest.sha256:
        raise CorruptError(
            f"{path} was changed after export: its SHA-256 is {found[:16]}…, the manifest says {manifest.sha256[:16]}…",
            remedy="export it again, or fetch a whole copy of it and of its manifest",
        )
    made = manifest.lineage[-1]
    if made.sha256 != found:
        raise CorruptError(
            f"the lineage in {beside} does not lead to {path.name}: its last step, {made.kind}, made SHA-256 {made.sha256[:16]}…,"
            f" not {found[:16]}…",
            remedy="export it again, or fetch a whole copy of both files",
        )
    return Artifact(path, manifest)


def _require_feedable(manifest: Manifest, beside: Path) -> None:
    """Refuse shapes whose feeds would take all memory: each size is bounded by its type, what they come to together is not."""
    for field in ("inputs", "outputs"):
        values = sum(math.prod(spec.shape) for spec in getattr(manifest.signature, field))
        if values > MOST_VALUES:
            raise InputError(
                f"{beside} is not a manifest: Expected at most {MOST_VALUES:,} values in all shapes, got {values:,}"
                f" - at `$.signature.{field}`",
                remedy="export the artefact again",
            )


def read_json(path: Path, kind: type[Any]) -> Any:
    """Decode a JSON file into a typed value.

    Raises:
        InputError: it is missing, too large, not JSON, or not of that type.
    """
    what = re.sub("(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise InputError(f"{path} is {path.stat().st_size:,} bytes; no {what} is that large")
        content = path.read_bytes()
        require_shallow_json(content)
        return msgspec.json.decode(content, type=kind)
    except (OSError, ValueError) as error:  # msgspec's own, an encoding's and too deep a nest are each a ValueError
        raise InputError(f"{path} is not a {what}: {error}", remedy="write it again with dtvit-deploy") from error


def encode_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, indented, one line feed at the end; equal values give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON in one step."""
    with replacing(path) as part:
        part.write_bytes(encode_json(value))

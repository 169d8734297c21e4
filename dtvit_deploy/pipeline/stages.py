"""What the stages of an export have in common: how a result is described, copied and trusted, and by which versions it was made.

Each is kept in the cache under the digest of everything that went into it:

checkpoint → program and onnx → simplified → float16 (:mod:`dtvit_deploy.pipeline.float16`), and either of these → openvino
(:mod:`dtvit_deploy.pipeline.openvino`); each stage's manifest repeats its parent's lineage and adds a link of its own.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    sha256_of,
    write_json,
)
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.target import Precision

if TYPE_CHECKING:
    import onnx

    from dtvit_deploy.artifacts.signature import Feeds


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


def made_here(path: Path) -> Artifact:
    """An artefact in the cache, which this user's exports alone write: it needs no trial."""
    return msgspec.structs.replace(load_artifact(path), trusted=True)


def copy_artifact(artifact: Artifact, folder: Path, name: str, copy: Callable[[str, str], object] = shutil.copyfile) -> Artifact:
    """Copy an artefact of the cache and its manifest under another name.

    ``copy`` takes over a file; where the folder is not the cache's, a link would let an edit reach into the cache.
    """
    path = folder / name
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, path, copy_function=copy)
    else:
        copy(str(artifact.path), str(path))
    manifest_path(path).write_bytes(encode_json(artifact.manifest))
    return msgspec.structs.replace(artifact, path=path, trusted=True)


NOT_INSTALLED = "not installed"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, this package's own included, without importing any."""
    return {"dtvit-deploy": dtvit_deploy.__version__} | {package: _version(package) for package in packages}


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


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

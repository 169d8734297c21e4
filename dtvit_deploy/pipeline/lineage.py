"""What a manifest tells of an artefact's past, held to what the program's own manifest tells, and to what this machine made of it.

A manifest is a file that anybody can edit. The program is known by its digest and comes from this machine, with a manifest of its own: what
an artefact says of everything up to its program is either the same, or not true.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, manifest_path, read_json
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.pipeline.program import ProgramEntry

MADE_OF = {"onnx": "program", "simplified": "onnx"}
"""Steps that are always made of the step before."""
_REMEDY = "fetch the manifest that `dtvit-deploy export` wrote beside the artefact, or export again"


def same_origin(manifest: Manifest, program: Manifest) -> bool:
    """Whether an artefact tells the same of its program's past as the program does."""
    own = program.lineage
    return manifest.model == program.model and [*map(_said, manifest.lineage[: len(own)])] == [*map(_said, own)]


def require_lineage(artifact: Artifact, program: ProgramEntry, cache: Cache) -> None:
    """Refuse an artefact whose manifest tells what cannot be.

    Args:
        artifact: made from the program, as it says.
        program: of this machine.
        cache: with what was made of it before.

    Raises:
        InputError: names the step, what the manifest says of it, and what is known.
    """
    manifest, own = artifact.manifest, program.artifact.manifest
    kinds = [link.kind for link in manifest.lineage]
    if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise InputError(f"the lineage of {artifact.name} has more than one step {', '.join(repeated)}", remedy=_REMEDY)
    if manifest.model != own.model:
        raise InputError(f"{artifact.name} is said to be of {manifest.model}; its program is of {own.model}", remedy=_REMEDY)
    for place, link in enumerate(own.lineage):
        told = manifest.lineage[place] if place < len(manifest.lineage) else None
        if told is None or _said(told) != _said(link):
            raise InputError(
                f"{artifact.name} is said to come from {_named(told)}; its program {own.sha256[:16]}… was made from {_named(link)}",
                remedy=_REMEDY,
            )
    for place, kind in enumerate(kinds):
        if kind in MADE_OF and kinds[place - 1] != MADE_OF[kind]:
            raise InputError(f"in the lineage of {artifact.name}, {kind} does not follow {MADE_OF[kind]}", remedy=_REMEDY)
        link = manifest.lineage[place]
        last = place == len(kinds) - 1  # the artefact itself: what it answers is what is judged, whoever made it
        known = set() if last else _known(link, manifest.lineage[place - 1], program, cache)
        if known and link.sha256 not in known:
            raise InputError(
                f"{artifact.name} is said to come from {_named(link)}; the same tools make"
                f" {', '.join(sorted(digest[:16] + '…' for digest in known))} of its program",
                remedy=_REMEDY,
            )


def _known(link: Link, before: Link, program: ProgramEntry, cache: Cache) -> set[str]:
    """Digests that the same tools are known to give for a step; empty where none is known."""
    if link.kind == "onnx":
        made = _translated(cache, program)
    elif link.kind == "simplified":
        made = _simplified(cache, before.sha256)
    else:
        return set()
    links = (each.parent(link.kind) for each in made)
    return {each.sha256 for each in links if each is not None and each.tools == link.tools}


def _translated(cache: Cache, program: ProgramEntry) -> Iterator[Manifest]:
    """Manifests of the ONNX graphs of a program, one for each set of names that its inputs and outputs were given."""
    digest = program.artifact.manifest.sha256
    paths = [program.translated]
    for folder in cache.entries("program"):
        own = manifest_path(folder / "program.pt2")
        if own.is_file() and read_json(own, Manifest).sha256 == digest:
            paths.append(folder / program.translated.name)
    for path in map(manifest_path, paths):
        if path.is_file():
            yield read_json(path, Manifest)


def _simplified(cache: Cache, source: str) -> Iterator[Manifest]:
    """Manifests of the graphs that this machine made of an ONNX graph."""
    for folder in cache.entries("simplified"):
        path = manifest_path(folder / "model.onnx")
        if path.is_file():
            manifest: Manifest = read_json(path, Manifest)
            parent = manifest.parent("onnx")
            if parent is not None and parent.sha256 == source:
                yield manifest


def _said(link: Link) -> tuple[str, str, dict[str, object]]:
    return link.kind, link.sha256, link.options


def _named(link: Link | None) -> str:
    if link is None:
        return "nothing"
    asked = "".join(f", {key} {value}" for key, value in sorted(link.options.items()) if key in ("seed", "input_size", "num_classes"))
    return f"the {link.kind} {link.sha256[:16]}…{asked}"

"""The program that artefacts were made from: found by its digest, or traced again, and refused when it is not theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Manifest, sha256_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.lineage import require_lineage, same_origin
from dtvit_deploy.pipeline.program import ProgramEntry, find_program, program_stage, require_feedable

_OTHER_CACHE = "set DTVIT_DEPLOY_CACHE to the cache that it was exported with (that of `make demo` is build/cache)"


def reference_of(artifacts: Sequence[Artifact], cache: Cache, asked: Model) -> ProgramEntry:
    """The program that artefacts were made from: from the cache by its digest, else traced again.

    ``asked`` is what the user says of the network, if anything. Seeded weights can be made again from what the manifest says; a checkpoint
    must be given. The program has the artefacts' names.

    Raises:
        InputError: an artefact is a program itself, the artefacts have different roots or signatures, or the reference is not here and
            cannot be made.
    """
    for artifact in artifacts:
        if artifact.manifest.format == "program":
            raise InputError(
                f"{artifact.name} is an exported program; loading one runs what it says, so none is loaded but from this machine's cache",
                remedy="give the artefacts that were exported from it",
            )
    roots = {link.sha256 for artifact in artifacts if (link := artifact.manifest.parent("program"))}
    if len(roots) != 1:
        raise InputError(
            f"{len(artifacts)} artefacts have {len(roots)} different references; one reference judges all",
            remedy="give artefacts of one export",
        )
    manifest = artifacts[0].manifest
    if any(artifact.manifest.signature != manifest.signature for artifact in artifacts):
        raise InputError(
            f"{len(artifacts)} artefacts have different inputs or outputs: "
            + "; ".join(f"{artifact.name} has {_listed(artifact.manifest)}" for artifact in artifacts),
            remedy="give artefacts of one export",
        )
    for artifact in artifacts:
        _require_as_exported(artifact, asked)
    program = find_program(roots.pop(), cache, partial(same_origin, manifest))
    if program is None or (asked.checkpoint is not None and not same_origin(manifest, program.artifact.manifest)):
        program = _traced_again(artifacts[0], cache, asked)  # a checkpoint that is here says itself what it makes
    for artifact in artifacts:
        require_same_root(artifact, program)
        require_lineage(artifact, program, cache)
    return _with_names(program, manifest)


def require_same_root(artifact: Artifact, program: ProgramEntry) -> None:
    """Refuse to compare an artefact with a program that it was not made from.

    Raises:
        InputError: its manifest names another program.
    """
    link = artifact.manifest.parent("program")
    mine = program.artifact.manifest.sha256
    if link is None or link.sha256 != mine:
        made_from = link.sha256[:16] + "…" if link else "no program"
        raise InputError(
            f"{artifact.name} was made from {made_from}, not from the reference {mine[:16]}…: comparing them would mean nothing",
            remedy="give the model and the checkpoint that it was exported from; another torch release traces another program, so after an"
            f" upgrade export again (made with torch {link.tools.get('torch', '?') if link else '?'})",
        )


def _require_as_exported(artifact: Artifact, asked: Model) -> None:
    """A model or a checkpoint that the user names must be the artefact's own, whether it is needed or not."""
    manifest = artifact.manifest
    if asked.name is not None and asked.name != manifest.model:
        raise InputError(f"{artifact.name} was exported from {manifest.model}, not from {asked.name}", remedy="leave --model out")
    if asked.checkpoint is not None:
        if not asked.checkpoint.is_file():
            raise InputError(f"there is no checkpoint at {asked.checkpoint}", remedy="correct the path, or leave --checkpoint out")
        link, found = manifest.parent("checkpoint"), sha256_of(asked.checkpoint)
        if link is None or link.sha256 != found:
            made_from = f"SHA-256 {link.sha256[:16]}…" if link else "no checkpoint"
            raise InputError(
                f"{artifact.name} was exported from {made_from}; {asked.checkpoint} has SHA-256 {found[:16]}…",
                remedy="give the checkpoint that it was exported from, or leave --checkpoint out",
            )


def _traced_again(artifact: Artifact, cache: Cache, asked: Model) -> ProgramEntry:
    manifest = artifact.manifest
    if manifest.parent("seeded") is None and asked.checkpoint is None:
        raise InputError(
            f"the reference of {artifact.name} is not in the cache of this machine ({cache.root})",
            remedy=f"give --model {manifest.model} and --checkpoint with the weights that it was exported from; or {_OTHER_CACHE}",
        )
    if asked.name is None and _is_factory(manifest.model):  # it would import code on the word of a file from elsewhere
        raise InputError(
            f"the reference of {artifact.name} is not in the cache of this machine ({cache.root}); making it again runs {manifest.model}",
            remedy=f"if you trust that, give --model {manifest.model}; or {_OTHER_CACHE}",
        )
    name = asked.name or manifest.model
    wanted, found, failure = manifest.parent("program"), None, None
    for guess in _guesses(name, asked, manifest):
        try:
            found = program_stage(guess, cache)
        except InputError as error:
            failure = failure or error
            continue
        if wanted is not None and found.artifact.manifest.sha256 == wanted.sha256:
            break
    if found is None:
        assert failure is not None
        raise failure
    return found


def _guesses(name: str, asked: Model, manifest: Manifest) -> tuple[Model, ...]:
    """What may have been asked of the network when it was exported; the manifest tells most of it."""
    seeded = manifest.parent("seeded")
    try:
        made = msgspec.convert(seeded.options if seeded is not None and asked.checkpoint is None else {}, _Made)
    except msgspec.ValidationError as error:
        raise InputError(
            f"what the seeded {name} was made with cannot be understood: {error}", remedy="export the artefact again"
        ) from error
    told = msgspec.structs.replace(
        asked,
        name=name,
        seed=asked.seed if made.seed is None else made.seed,
        num_classes=made.num_classes,
        input_size=made.input_size,
        outputs=tuple(spec.name for spec in manifest.signature.outputs),
    )
    require_feedable(told)
    if _is_factory(name):  # which alone knows whether its inputs had to be described
        return told, msgspec.structs.replace(told, inputs=manifest.signature.inputs)
    shapes = [spec.shape for spec in (*manifest.signature.inputs, *manifest.signature.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        return (told,)
    seen = msgspec.structs.replace(told, input_size=(shapes[0][2], shapes[0][3]), num_classes=shapes[1][1])
    return (told, seen) if ":" in name else (seen,)


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a link of kind ``seeded`` says that was asked for (see :func:`dtvit_deploy.models.reference.load_reference`)."""

    seed: int | None = None
    input_size: tuple[int, int] | None = None
    num_classes: int | None = None


def _is_factory(name: str) -> bool:
    from dtvit_deploy.models.source import TIMM

    return ":" in name and not name.startswith(TIMM)


def _with_names(program: ProgramEntry, manifest: Manifest) -> ProgramEntry:
    """The same program under the artefact's names: what inputs and outputs are called is no part of a program's digest."""
    mine = program.artifact.manifest
    if _shapes(mine) != _shapes(manifest):
        raise InputError(
            f"the manifest names inputs and outputs that the reference does not have: {_listed(manifest)}, not {_listed(mine)}",
            remedy="export the artefact again",
        )
    artifact = msgspec.structs.replace(program.artifact, manifest=msgspec.structs.replace(mine, signature=manifest.signature))
    return dataclasses.replace(program, artifact=artifact)


def _shapes(manifest: Manifest) -> list[list[tuple[tuple[int, ...], str]]]:
    return [[(spec.shape, spec.dtype) for spec in specs] for specs in (manifest.signature.inputs, manifest.signature.outputs)]


def _listed(manifest: Manifest) -> str:
    inputs, outputs = (", ".join(map(str, specs)) for specs in (manifest.signature.inputs, manifest.signature.outputs))
    return f"{inputs} → {outputs}"

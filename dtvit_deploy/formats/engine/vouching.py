"""Whether a manifest vouches for an engine: whether it is there, can be read, speaks of this engine, and of every byte of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifacts.artifact import SCHEMA, Manifest, manifest_path, read_json, sha256_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.header import Header
from dtvit_deploy.formats.engine.library import NAMES
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.formats.engine.passport import FORMATS, GRAPH, LINK, Passport, passport_of
from dtvit_deploy.formats.engine.reason import AGAIN, Cause, Reason
from dtvit_deploy.formats.engine.version import is_same

TRUST = "fetch its own manifest; or, if you know where it is from, --trust it"


class Vouched(NamedTuple):
    """What the manifest says, as far as there is one, and what is wrong with it or with the engine."""

    digest: str
    manifest: Manifest | None = None
    passport: Passport | None = None
    reasons: tuple[Reason, ...] = ()
    cautions: tuple[str, ...] = ()


def vouch(engine: Path, artefact: Path, header: Header) -> Vouched:
    """Hold an engine to the manifest beside ``artefact``, its folder or the engine itself.

    Raises:
        InputError: the engine cannot be read.
    """
    digest = _digest(engine)
    own = damage(header)
    beside = manifest_path(artefact if artefact.name else engine)
    if not beside.is_file():
        found = f"there is no {beside.name} beside {artefact.name}"
        return Vouched(
            digest,
            reasons=(
                *own,
                Reason(Cause.NO_MANIFEST, found, "a manifest, without which nobody can tell whether its bytes are as they were", TRUST),
            ),
        )
    try:
        manifest: Manifest = read_json(beside, Manifest)
        if manifest.schema != SCHEMA:
            raise InputError(f"{beside.name} has schema {manifest.schema}; this version reads schema {SCHEMA}")
        passport = passport_of(manifest)
    except InputError as error:
        found = str(error).replace(str(beside), beside.name)
        return Vouched(digest, reasons=(*own, Reason(Cause.UNREADABLE_MANIFEST, found, "the manifest that export wrote", TRUST)))
    if manifest.format == FORMATS[Flavour.ON_DEVICE]:
        found = f"{beside.name} is of the job that an engine is to be built from"
        return Vouched(digest, manifest, None, (*own, Reason(Cause.OTHER_MANIFEST, found, "a manifest of the engine", TRUST)))
    if digest != passport.engine:
        reason = _other_bytes(digest, header, passport, beside)
        if own:  # cut or altered by its own account, which its digest only confirms
            return Vouched(digest, manifest, passport, own)
        if reason.cause == Cause.OTHER_MANIFEST:  # what it says of another engine says nothing of this one
            return Vouched(digest, reasons=(reason,))
        return Vouched(digest, manifest, passport, (reason,))
    return Vouched(digest, manifest, passport, (*own, *_inconsistent(artefact, manifest, passport, beside)))


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def damage(header: Header) -> tuple[Reason, ...]:
    """What the engine's own bytes show, whatever a manifest says."""
    if header.missing:
        found = f"the file has {header.size:,} bytes; the last {header.missing:,} are missing"
        return (Reason(Cause.TRUNCATED, found, f"{header.declared:,} bytes, by its own header", AGAIN),)
    if header.declared is not None and header.declared < header.size:
        found = f"{header.size - header.declared:,} bytes follow its end"
        return (Reason(Cause.ALTERED, found, f"{header.declared:,} bytes, by its own header", AGAIN),)
    if header.faults:
        return (Reason(Cause.ALTERED, "; ".join(header.faults), "a header that fits the file", AGAIN),)
    return ()


def _other_bytes(digest: str, header: Header, passport: Passport, beside: Path) -> Reason:
    """The engine's digest is not the manifest's: which of the two is it that does not belong here?"""
    differs = contradiction(header, passport)
    if not differs and header.declared is None and header.size < passport.bytes:
        found = f"the file has {header.size:,} bytes; the last {passport.bytes - header.size:,} are missing"
        return Reason(Cause.TRUNCATED, found, f"{passport.bytes:,} bytes, by its manifest", AGAIN)
    if not differs and header.size != passport.bytes:
        differs = f"{beside.name} is of an engine of {passport.bytes:,} bytes; this one has {header.size:,}"
    if differs:
        return Reason(Cause.OTHER_MANIFEST, differs, "the manifest that was written with it", TRUST)
    found = f"its bytes are not those that were built: SHA-256 {digest[:16]}…"
    return Reason(Cause.ALTERED, found, f"SHA-256 {passport.engine[:16]}…, by its manifest", AGAIN)


def contradiction(header: Header, passport: Passport) -> str:
    """What the manifest says of the engine that its own header says otherwise."""
    if passport.library != header.library:
        return f"the manifest is of an engine of {NAMES.get(passport.library, passport.library)}; this is one of {NAMES[header.library]}"
    if header.version and not is_same(header.library, passport.version, header.version):
        return f"the manifest is of an engine by version {passport.version}; this one was built by {header.version}"
    if header.capabilities and set(passport.capabilities) != set(header.capabilities):
        return f"the manifest is of an engine for {', '.join(passport.capabilities)}; this one is for {', '.join(header.capabilities)}"
    return ""


def _inconsistent(artefact: Path, manifest: Manifest, passport: Passport, beside: Path) -> list[Reason]:
    """The manifest is of this very engine; what it says of other files may be wrong."""
    found = []
    if artefact.is_dir() and _digest(artefact) != manifest.sha256:
        graph = artefact / GRAPH
        which = GRAPH if not graph.is_file() or _digest(graph) != passport.graph else "a file beside the engine"
        needed = f"the folder as it was written: SHA-256 {manifest.sha256[:16]}…"
        found.append(Reason(Cause.ALTERED, f"{which} in {artefact.name} was changed, added or removed", needed, AGAIN))
    made = manifest.lineage[-1]
    if made.kind != LINK or made.sha256 != manifest.sha256:
        told = f"the last step in {beside.name}, {made.kind}, made SHA-256 {made.sha256[:16]}…"
        found.append(Reason(Cause.LINEAGE, told, f"a lineage that ends in SHA-256 {manifest.sha256[:16]}…", TRUST))
    return found

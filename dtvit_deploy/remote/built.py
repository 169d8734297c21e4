"""An engine that a device has built, brought back and held to what was asked: an artefact like those that are built here.

It is native code, and nothing here executes it (docs/adr/0015). What the device says of it is believed where nothing else can tell; what
this machine knows of it, the network, its graph, its weights and the options, is held to what this machine has sent.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.header import read_header
from dtvit_deploy.formats.engine.options import BuildOptions, Flavour
from dtvit_deploy.formats.engine.passport import ENGINE, FORMATS, GRAPH, LINK, PASSPORT, Passport, passport_of
from dtvit_deploy.formats.engine.vouching import contradiction, vouch
from dtvit_deploy.formats.job.frames import ResultsError
from dtvit_deploy.formats.job.job import Subject
from dtvit_deploy.formats.job.made import Made, made_of
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.remote.asking import Asked

FORMAT = FORMATS[Flavour.TENSORRT]
JOB = "job.json"
"""Of a job's folder: what its script goes by."""
BUILT = "built"
"""Key of the last link's options: on which device, when and how long."""
_AGAIN = "ask again, and it is built anew; if that is refused too, look at what answers there"
_MOST_NOTES = 100


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine was built.

    Attributes:
        on: the device's name, as the user calls it.
        address: under which it was reached, with a host key that was checked.
        ended: by the device's own clock.
        took: how long it took.
        processor, system: of the device.
    """

    on: str
    address: str
    ended: str = ""
    took: str = ""
    processor: str = ""
    system: str = ""


_MOST_CAPABILITIES = 20
"""An engine of a Jetson has code for one GPU; others for each that there is."""


class _Job(msgspec.Struct, frozen=True):
    """Of a job's `JOB`, what the engine is held to."""

    manifest: Manifest
    options: BuildOptions


def brought(asked: Asked, results: Results, task: int, path: Path, *, name: str, address: str) -> Artifact:
    """Put an engine in place, with its graph and its manifest beside it.

    Args:
        asked, results: the job and what came of it.
        task: place of its `dtvit_deploy.formats.job.job.Build`.
        path: for the engine's folder, which is not there yet; its parent is.
        name, address: of the device.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: what came is not what was asked for.
    """
    subject = asked.job.subjects[asked.job.tasks[task].subject]  # type: ignore[union-attr]
    outcome = results.require(task)
    path.mkdir()
    _unpacked(results, task, made_of(outcome.made), path)
    shutil.copyfile(asked.blobs[subject.files[GRAPH]], path / GRAPH)
    told = _read(manifest_path(path))
    known: _Job = msgspec.json.decode(asked.blobs[subject.files[JOB]].read_bytes(), type=_Job)
    facts = results.device
    built = Built(
        on=name,
        address=address,
        ended=outcome.facts.get("ended", ""),
        took=outcome.facts.get("built", ""),
        processor=facts.get("model", "") or facts.get("processor", ""),
        system=facts.get("system", ""),
    )
    write_json(manifest_path(path), _held(told, known, subject, path, built))
    header = read_header(path / ENGINE)
    if differs := contradiction(header, passport_of(told)):
        raise _refused(subject, differs)
    if reasons := vouch(path / ENGINE, path, header).reasons:
        raise _refused(subject, f"{reasons[0].cause.value}: {reasons[0].found}, and needed is {reasons[0].needed}")
    return load_artifact(path)


def _unpacked(results: Results, task: int, made: Made, path: Path) -> None:
    """Write the parts to the files that they are."""
    files = [(manifest_path(path), made.manifest), *((path / name, size) for name, size in sorted(made.files.items()))]
    parts = (memoryview(part["piece"].tobytes()) for part in results.parts(task))
    left = memoryview(b"")
    for file, size in files:
        with file.open("xb") as out:
            while out.tell() < size:
                left = left or next(parts)
                left = left[out.write(left[: size - out.tell()]) :]


def _read(path: Path) -> Manifest:
    try:
        found: Manifest = read_json(path, Manifest)
    except InputError as error:
        raise ResultsError(f"the device's manifest of the engine cannot be understood: {clean(str(error))}", remedy=_AGAIN) from error
    return found


def _held(told: Manifest, known: _Job, subject: Subject, path: Path, built: Built) -> Manifest:
    """The manifest: what this machine knows, and of the device's word the last link, within what was asked.

    Raises:
        ResultsError: it tells something else.
    """
    *before, link = told.lineage
    digest = sha256_of(path)
    expected = msgspec.structs.replace(known.manifest, format=FORMAT, sha256=digest, rung=told.rung, lineage=told.lineage)
    if told != expected or before != list(known.manifest.lineage) or link.kind != LINK or link.sha256 != digest:
        raise _refused(subject, "its manifest is of another network, or of other bytes")
    if link.options.get("job") != subject.files[JOB]:
        raise _refused(subject, "its manifest is of another job")
    try:
        passport = passport_of(told)
    except InputError as error:
        raise _refused(subject, clean(str(error))) from error
    asked = {known.options, msgspec.structs.replace(known.options, hardware_compatible=False)}  # which no Jetson has
    if passport.library != "tensorrt" or passport.options not in asked or passport.graph != subject.files[GRAPH]:
        raise _refused(subject, f"it was built by {clean(passport.library)}, with other options, or of another graph")
    if len(passport.capabilities) > _MOST_CAPABILITIES or passport.bytes != (path / ENGINE).stat().st_size:
        raise _refused(subject, "its passport is of another engine")
    if told.rung is not Rung.ON_DEVICE:
        raise _refused(subject, "the device does not say that its answers were checked")
    return msgspec.structs.replace(told, lineage=(*before, _link(link, passport, subject, built)))


def _link(link: Link, passport: Passport, subject: Subject, built: Built) -> Link:
    words = {field: clean(value) for field, value in msgspec.structs.asdict(passport).items() if isinstance(value, str)}
    options: dict[str, Any] = {
        PASSPORT: msgspec.to_builtins(msgspec.structs.replace(passport, **words)),
        "job": subject.files[JOB],
        BUILT: msgspec.to_builtins(built),
    }
    device = ", ".join(filter(None, (words["device"], f"compute capability {' '.join(passport.capabilities)}", words["jetpack"])))
    notes = (
        f"built and checked on {built.on} ({device}) by TensorRT {words['version']}, {built.took}",
        *map(clean, link.notes[:_MOST_NOTES]),
    )
    return Link(kind=LINK, sha256=link.sha256, tools={"tensorrt": words["version"]}, options=options, notes=notes)


def _refused(subject: Subject, why: str) -> ResultsError:
    return ResultsError(f"what came back for {subject.name} is not its engine: {why}", remedy=_AGAIN)


def built_on(manifest: Manifest) -> Built | None:
    """Where an engine was built, by its manifest; None where that does not say."""
    link = manifest.parent(LINK)
    try:
        return None if link is None or BUILT not in link.options else msgspec.convert(link.options[BUILT], Built)
    except msgspec.ValidationError:
        return None

"""What is to be done on a device, as data: artefacts and feeds by their content, and a list of tasks.

A job names everything by its SHA-256, so that equal requests are equal jobs, and what a device has already needs no second way there. Its
own name is the digest of its JSON.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.artifact import Manifest, encode_json
from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.errors import InputError

SCHEMA = 1
LARGEST = 32 << 20
"""Bytes of a job's JSON: a manifest for each artefact, and the names of a thousand tensors for each walk through the layers."""
MOST_TASKS = 1000
MOST_TIMED = 64
"""Subjects of one latency: all of them are loaded while it is taken."""
MOST_THREADS = 4096
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""SHA-256 in hexadecimal digits."""
_Index = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
_Threads = Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)]
_FILE = re.compile(r"(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]{1,255}")
"""A file's name that cannot lead anywhere else."""


class Blob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes that a job needs, by content.

    Attributes:
        sha256: of them.
        bytes: how many.
    """

    sha256: Digest
    bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An artefact in a runtime.

    Attributes:
        name: of its file or folder.
        runtime: its name there.
        manifest: as it lies beside it.
        files: digest of each file by its path in the artefact's folder, ``/`` between its parts; of one that is a file, by ``""``.
        trusted: whether native code in it may run there: whoever asks vouches for it (docs/adr/0015).
    """

    name: _Name
    runtime: _Name
    manifest: Manifest
    files: dict[str, Digest]
    trusted: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="state"):
    """What the device says of itself, and nothing else. Every task tells that before and after."""

    name: _Name = "state"


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="answers"):
    """The outputs of an artefact for each feed.

    Attributes:
        name: for messages and progress.
        subject: place in the job's subjects.
        threads: of the session.
        feeds: blobs of feeds (`dtvit_deploy.formats.job.feeds`), one after the other.
        samples: how many feeds are in all of them.
    """

    name: _Name
    subject: _Index
    threads: _Threads
    feeds: tuple[Digest, ...]
    samples: _Count


class Layers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="layers"):
    """How far inner tensors are from the reference's: the energy of the difference, for each feed and tensor.

    Attributes:
        name, subject, threads, feeds, samples: as of `Answers`.
        taps: inner tensors, by the exported program's node name.
        outputs: of each output, the name of the node that made it, and its own.
        suffix: a blob that is added to an ONNX file's bytes, by which its graph gives the taps too; None where the runtime adds them.
        reference: blobs like those of feeds, with the reference's tensors by node name.
    """

    name: _Name
    subject: _Index
    threads: _Threads
    feeds: tuple[Digest, ...]
    samples: _Count
    taps: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    suffix: Digest | None = None
    reference: tuple[Digest, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Node names in the order in which energies come back."""
        return (*self.taps, *(node for node, _ in self.outputs))


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="latency"):
    """How long runs take, interleaved; load time, first run and peak memory each from a process of its own.

    Attributes:
        subjects: places in the job's subjects.
        feeds: a blob for each of them, of which the first feed is run.
        options: the fields of `dtvit_deploy.harness.latency.MeasureOptions`.
        lock_clocks: whether the device's clocks are held still meanwhile, and given back; its user is root then.
    """

    name: _Name
    subjects: Annotated[tuple[_Index, ...], msgspec.Meta(min_length=1, max_length=MOST_TIMED)]
    threads: _Threads
    feeds: tuple[Digest, ...]
    options: dict[str, float]
    lock_clocks: bool = False


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="build"):
    """The engine of a job that devices build for themselves (format ``trtjob``): built and checked there by that job's own script.

    What comes back is native code, in parts, and its manifest (`dtvit_deploy.formats.job.made`).

    Attributes:
        subject: place in the job's subjects.
        most: bytes that may come back.
    """

    name: _Name
    subject: _Index
    most: Annotated[int, msgspec.Meta(ge=1, le=1 << 36)]


class ProfileLayers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="layer times"):
    """What the runtime of an artefact tells of how long each layer takes; a session of its own, since to tell that slows it.

    Attributes:
        feeds: a blob, of which the first feed is run.
    """

    name: _Name
    subject: _Index
    threads: _Threads
    feeds: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=1)]


class MeasurePeaks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="peaks"):
    """What the device can do at most, by products in each of its runtimes and copies of memory."""

    name: _Name = "what the device can do"
    threads: _Threads


Task = State | Answers | Layers | Latency | ProfileLayers | MeasurePeaks | Build


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done on a device in one go.

    Attributes:
        agent: SHA-256 of the archive that does it: another version's results are another job's.
        token: whatever tells this request from an equal one; empty where equal ones are the same.
        blobs: everything that the tasks and the subjects name, each once.
    """

    schema: int = SCHEMA
    agent: Digest
    token: Annotated[str, msgspec.Meta(max_length=100)] = ""
    blobs: tuple[Blob, ...]
    subjects: tuple[Subject, ...] = ()
    tasks: Annotated[tuple[Task, ...], msgspec.Meta(min_length=1, max_length=MOST_TASKS)]

    @property
    def timed(self) -> bool:
        """Whether a task measures time, so that nobody else may work meanwhile; whoever builds an engine chooses kernels by theirs."""
        return any(isinstance(task, Latency | ProfileLayers | MeasurePeaks | Build) for task in self.tasks)


def encode_job(job: Job) -> bytes:
    """Its JSON, the same for equal jobs."""
    return encode_json(job)


def job_id(content: bytes) -> str:
    """The name of a job, of its JSON."""
    return hashlib.sha256(content).hexdigest()


def decode_job(content: bytes) -> Job:
    """A job of its JSON.

    Raises:
        InputError: it is none, or contradicts itself: a digest that is no blob of it, a subject that is not there, a path that leads out.
    """
    try:
        return _decoded(content)
    except ValueError as error:
        raise InputError(f"this is not a job: {error}", remedy="ask again with one version of dtvit-deploy on both sides") from error


def require_taken(content: bytes) -> None:
    """Refuse, where it is put together, a job that no device would take.

    Raises:
        InputError: says which bound it is beyond.
    """
    try:
        _decoded(content)
    except ValueError as error:
        raise InputError(
            f"no device takes this at once: {error}", remedy="ask for less at once, fewer artefacts say, or give their files plainer names"
        ) from error


def takes_name(name: str) -> bool:
    """Whether a file of an artefact, or its folder, may be called so on a device."""
    return _FILE.fullmatch(name) is not None and _is_utf8(name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(content: bytes) -> Job:
    if len(content) > LARGEST:
        raise ValueError(f"it has {len(content):,} bytes, and {LARGEST:,} at most are taken")
    require_shallow_json(content)
    job: Job = msgspec.json.decode(content, type=Job)
    _require_sound(job)
    return job


def _require_sound(job: Job) -> None:
    if job.schema != SCHEMA:
        raise ValueError(f"its schema is {job.schema}, and this version reads {SCHEMA}")
    known = {blob.sha256 for blob in job.blobs}
    if len(known) != len(job.blobs):
        raise ValueError("it names a blob twice")
    used: set[str] = set()
    for subject in job.subjects:
        if not _FILE.fullmatch(subject.name) or not subject.files:
            raise ValueError(f"{subject.name!r} is no artefact's name, or has no files")
        for path in subject.files:
            if path == "" and len(subject.files) == 1:
                continue
            if not all(map(_FILE.fullmatch, path.split("/"))):
                raise ValueError(f"{path!r} is no path within an artefact")
        used.update(subject.files.values())
    for task in job.tasks:
        if isinstance(task, State | MeasurePeaks):
            continue
        used.update(() if isinstance(task, Build) else task.feeds)
        for index in task.subjects if isinstance(task, Latency) else (task.subject,):
            if index >= len(job.subjects):
                raise ValueError(f"the task {task.name!r} is about subject {index}, and there are {len(job.subjects)}")
        if isinstance(task, Latency) and len(task.feeds) != len(task.subjects):
            raise ValueError(f"the task {task.name!r} has {len(task.feeds)} feeds for {len(task.subjects)} subjects")
        if isinstance(task, Layers):
            used.update(task.reference if task.suffix is None else (*task.reference, task.suffix))
    if used != known:
        raise ValueError(f"{len(used - known)} digests in it are no blobs of it, and {len(known - used)} of its blobs are used by nothing")

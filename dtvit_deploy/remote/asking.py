"""A job, put together: artefacts, feeds and the reference's tensors as blobs, and what is to be done with them."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.artifact import Artifact, sha256_of
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.artifacts.scratch import scratch_folder, temporary_folder
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.passport import GRAPH
from dtvit_deploy.formats.job.feeds import MOST, feed_digest, write_feeds
from dtvit_deploy.formats.job.job import (
    Answers,
    Blob,
    Build,
    Job,
    Latency,
    Layers,
    MeasurePeaks,
    ProfileLayers,
    State,
    Subject,
    Task,
    decode_job,
    encode_job,
    job_id,
    require_taken,
)
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.remote.limits import filling_up, require_answerable, require_names, require_timed

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

LARGEST_BLOB = 64 << 20
"""Bytes of feeds in one blob, about; what is lost on the way is sent again from where it broke off."""

LARGEST_KERNELS, MOST_OF_GRAPH = 512 << 20, 4
"""What an engine may have at most: so many bytes of code, and so many times its graph's."""


def folder_for_blobs() -> AbstractContextManager[Path]:
    """A folder for the blobs of a job, within a block; of a process that was killed the next one removes it."""
    return scratch_folder(lambda: temporary_folder(tempfile.gettempdir()))


class FeedSet(NamedTuple):
    """Feeds that are blobs.

    Attributes:
        blobs: their digests, in order.
        digests: of each feed (`dtvit_deploy.formats.job.feeds.feed_digest`), by which its answer is found.
    """

    blobs: tuple[str, ...]
    digests: tuple[str, ...]


class Asked(NamedTuple):
    """A job and what belongs to it.

    Attributes:
        job: what is to be done.
        blobs: files of this machine, by digest.
        feeds: of each task, the digests of its feeds.
    """

    job: Job
    blobs: dict[str, Path]
    feeds: dict[int, tuple[str, ...]]

    @property
    def identity(self) -> str:
        """The job's name."""
        return job_id(encode_job(self.job))


class Asking:
    """Puts a job together.

    Args:
        folder: for the blobs that are made; they are needed until the job is sent.
        token: tells this request from an equal one, where an older answer would not do; without one, equal requests are the same job.
    """

    def __init__(self, folder: Path, *, token: str = "") -> None:
        self._folder, self._token = folder, token
        self._blobs: dict[str, Path] = {}
        self._subjects: list[Subject] = []
        self._tasks: list[Task] = []
        self._feeds: dict[int, tuple[str, ...]] = {}

    @property
    def asked(self) -> Asked:
        """What was asked for so far.

        Raises:
            InputError: nothing was; or it is more than a device takes at once.
        """
        blobs = tuple(Blob(sha256=name, bytes=path.stat().st_size) for name, path in sorted(self._blobs.items()))
        job = Job(agent=agent_archive().sha256, token=self._token, blobs=blobs, subjects=tuple(self._subjects), tasks=tuple(self._tasks))
        try:
            content = encode_job(job)
            require_taken(content)
            job = decode_job(content)  # as the device will, and whoever reads it later: its name is that of what is read
        except UnicodeEncodeError as error:
            raise InputError(f"{error.object!r} is not UTF-8, and a job is", remedy="give the file another name") from error
        return Asked(job, dict(self._blobs), dict(self._feeds))

    def subject(self, artifact: Artifact, runtime: str, *, trusted: bool = False) -> int:
        """An artefact in a runtime of the device.

        Args:
            trusted: whether native code in it may run there.

        Returns:
            Its place in the job.

        Raises:
            InputError: it was changed after it was loaded; or one of its files has a name that a device does not take.
        """
        require_names(artifact)
        path = artifact.path
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        files = {each.relative_to(path).as_posix() if path.is_dir() else "": sha256_of(each) for each in inside}
        if sha256_of(path) != artifact.manifest.sha256:
            raise InputError(f"{artifact.name} was changed while it was read", remedy="export it again")
        self._blobs.update(zip(files.values(), inside, strict=True))
        asked = Subject(name=artifact.name, runtime=runtime, manifest=artifact.manifest, files=files, trusted=trusted)
        self._subjects.append(asked)
        return len(self._subjects) - 1

    def feeds(self, feeds: Iterable[Feeds]) -> FeedSet:
        """Feeds as blobs, one in memory at a time; several tasks may share them."""
        digests: list[str] = []

        def noted() -> Iterator[Feeds]:
            for feed in feeds:
                digests.append(feed_digest(feed))
                yield feed

        return FeedSet(self._written(noted()), tuple(digests))

    def state(self) -> int:
        """Ask what the device says of itself."""
        return self._task(State())

    def answers(self, subject: int, feeds: FeedSet, *, threads: int = 1) -> int:
        """Ask for the outputs for each feed.

        Raises:
            InputError: no frame can hold them.
        """
        one = self._subjects[subject]
        require_answerable(one.name, one.manifest.signature.outputs)
        task = Answers(name=f"answers of {one.name}", subject=subject, threads=threads, feeds=feeds.blobs, samples=len(feeds.digests))
        return self._task(task, feeds)

    def layers(
        self, subject: int, feeds: FeedSet, reference: Iterable[Feeds], *, taps: Sequence[str], nodes: NodeMap, threads: int = 1
    ) -> int:
        """Ask how far inner tensors and outputs are from the reference's.

        Args:
            subject: an artefact of ONNX or OpenVINO.
            feeds: few, as the reference's tensors of each travel too.
            reference: torch FP32's tensors by node name, those of the outputs' nodes among them, for each feed.
            taps: inner tensors that the artefact has (`offered`), by node name.
            nodes: of the program.
            threads: of the session.
        """
        one = self._subjects[subject]
        outputs = zip(nodes.outputs, (spec.name for spec in one.manifest.signature.outputs), strict=True)
        suffix = self._kept(_more_outputs(self._blobs[one.files[""]], taps)) if one.runtime == "onnxruntime" and taps else None
        task = Layers(
            name=f"layers of {one.name}",
            subject=subject,
            threads=threads,
            feeds=feeds.blobs,
            samples=len(feeds.digests),
            taps=tuple(taps),
            outputs=tuple(outputs),
            suffix=suffix,
            reference=self._written(reference),
        )
        return self._task(task, feeds)

    def latency(
        self,
        subjects: Sequence[int],
        feeds: Sequence[FeedSet],
        *,
        threads: int = 1,
        options: MeasureOptions | None = None,
        lock_clocks: bool = False,
    ) -> int:
        """Ask how long runs take, interleaved, of clocks that are held still where that is asked; the first feed of each set is run.

        Raises:
            InputError: they are more than are timed side by side.
        """
        require_timed(len(subjects))
        told: dict[str, float] = msgspec.to_builtins(options or MeasureOptions())
        names = ", ".join(dict.fromkeys(self._subjects[index].name for index in subjects))
        blobs = tuple(each.blobs[0] for each in feeds)
        name, told_of = f"latency of {names}"[:1000], tuple(subjects)
        return self._task(Latency(name=name, subjects=told_of, threads=threads, feeds=blobs, options=told, lock_clocks=lock_clocks))

    def profile_layers(self, subject: int, feeds: FeedSet, *, threads: int = 1) -> int:
        """Ask what the runtime tells of its layers; the first feed is run."""
        name = f"layer times of {self._subjects[subject].name}"[:1000]
        return self._task(ProfileLayers(name=name, subject=subject, threads=threads, feeds=feeds.blobs[:1]))

    def measure_peaks(self, *, threads: int = 1) -> int:
        """Ask what the device can do at most."""
        return self._task(MeasurePeaks(threads=threads))

    def build(self, subject: int) -> int:
        """Ask for the engine of a job that devices build for themselves."""
        one = self._subjects[subject]
        graph = self._blobs[one.files[GRAPH]].stat().st_size
        return self._task(Build(name=f"engine of {one.name}", subject=subject, most=LARGEST_KERNELS + MOST_OF_GRAPH * graph))

    def _task(self, task: Task, feeds: FeedSet | None = None) -> int:
        self._tasks.append(task)
        if feeds is not None:
            self._feeds[len(self._tasks) - 1] = feeds.digests
        return len(self._tasks) - 1

    def _written(self, feeds: Iterable[Feeds]) -> tuple[str, ...]:
        """Blobs of feeds, a new one as soon as one is full."""
        left, digests = iter(feeds), []
        for first in left:
            part = self._folder / f".{secrets.token_hex(8)}"
            with filling_up("the samples for the device"), part.open("wb") as file:
                write_feeds(file, _until_full(chain([first], left)))
            digests.append(self._named(part))
        return tuple(digests)

    def _kept(self, content: bytes) -> str:
        part = self._folder / f".{secrets.token_hex(8)}"
        part.write_bytes(content)
        return self._named(part)

    def _named(self, part: Path) -> str:
        digest = sha256_of(part)
        part.replace(self._folder / digest)
        self._blobs[digest] = self._folder / digest
        return digest


def offered(artifact: Artifact, runtime: str) -> tuple[str, ...]:
    """Inner tensors that a device can give, by name, in the order of execution.

    Raises:
        InputError: the runtime keeps them to itself.
        MissingError: what reads the artefact is not installed on this machine.
    """
    if runtime == "onnxruntime":
        from dtvit_deploy.artifacts.graph import read_graph
        from dtvit_deploy.runtimes.onnxruntime import floating_tensors

        return floating_tensors(read_graph(artifact.path))
    if runtime == "openvino":
        from dtvit_deploy.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime().tensors(artifact)
    raise InputError(f"{runtime} gives no inner tensors on a device", remedy="compare its outputs")


def _more_outputs(path: Path, names: Sequence[str]) -> bytes:
    """What, behind an ONNX file's own bytes, makes its graph give inner tensors too: a message of protobuf adds to the one before it."""
    import onnx

    from dtvit_deploy.artifacts.graph import read_graph
    from dtvit_deploy.runtimes.onnxruntime import with_outputs

    model = read_graph(path)
    more = onnx.ModelProto()
    more.graph.output.extend(with_outputs(model, tuple(names)).graph.output[len(model.graph.output) :])
    return bytes(more.SerializeToString())


def _until_full(feeds: Iterator[Feeds]) -> Iterator[Feeds]:
    total = 0
    for count, feed in enumerate(feeds, 1):
        yield feed
        total += sum(array.nbytes for array in feed.values())
        if total >= LARGEST_BLOB or count == MOST:
            return

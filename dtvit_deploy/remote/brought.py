"""A device that has answered by a file: what is asked of it now is held to what was asked of it then, piece by piece.

Artefacts, samples and the reference may have changed while the bundle was away. Answers belong to the bytes that were sent, and to no
others; who asks about others is told which they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.nodes import NodeMap
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.job import Answers, Job, Layers, MeasurePeaks, ProfileLayers
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.asking import Asked, Asking, FeedSet, folder_for_blobs
from dtvit_deploy.remote.profiled import layers_told, peaks_told
from dtvit_deploy.remote.recorded import layer_sums
from dtvit_deploy.remote.request import times_of, timings
from dtvit_deploy.remote.there import There

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.harness.energies import Sums
    from dtvit_deploy.harness.latency import Measurement
    from dtvit_deploy.harness.roofline import Peaks
    from dtvit_deploy.runtimes.layer_times import Told

Kind = TypeVar("Kind", Answers, Layers, ProfileLayers)
ANEW = "make the bundle again, and have it run again"


class Brought:
    """The answers of one device to one bundle.

    Args:
        name: of the device, in reports.
        asked: the bundle's job.
        results: what came of it.
    """

    def __init__(self, name: str, asked: Asked, results: Results) -> None:
        self.name, self.results = name, results
        self.job: Job = asked.job
        self.unanswered: list[tuple[str, DeployError]] = []
        """Names of tasks that failed there, and why. Nobody can ask again, so that the others count all the same."""

    @property
    def emulator(self) -> str:
        """What emulated its processor, as the agent saw it."""
        return self.results.device.get("emulated", "")

    def answered(self, subjects: Sequence[Artifact], feeds: Iterable[Feeds], *, threads: int) -> tuple[There | None, ...]:
        """The runtimes that have answered, in the order of the job's subjects; None for one that failed there.

        Args:
            subjects: artefacts, one for each of the job's subjects.
            feeds: what would be fed now.
            threads: of a session.

        Raises:
            InputError: an artefact or the samples are others than when the bundle was made, or the job does not ask for their answers.
            ResultsError: what came back is no answer.
        """
        for artifact, subject in zip(subjects, self.job.subjects, strict=True):
            asked, mine = subject.manifest, artifact.manifest
            if (mine.sha256, mine.signature) != (asked.sha256, asked.signature):
                raise InputError(
                    f"{artifact.path} is another artefact than the one that was bundled: SHA-256 {mine.sha256[:16]}…, not"
                    f" {asked.sha256[:16]}…",
                    remedy=f"put the artefact of then back, or {ANEW}",
                )
        with folder_for_blobs() as folder:
            fed = Asking(folder).feeds(feeds)
        places = [self._answers(index, fed, threads) for index in range(len(subjects))]
        found = Asked(self.job, {}, dict.fromkeys(places, fed.digests))
        times: dict[int, Measurement] = {}
        for task in timings(found) if not self.emulator else ():  # where it is refused, as it should be
            if not self._failed(task):
                times |= times_of(found, self.results, task, self.name)
        return tuple(
            None if self._failed(task) else There(found, self.results, index, f"on {self.name}", place=self, measurement=times.get(index))
            for index, task in enumerate(places)
        )

    def sums(
        self,
        artifact: Artifact,
        runtime: str,
        taps: Sequence[str],
        feeds: Iterable[Feeds],
        references: Sequence[tuple[Outputs, Outputs, Outputs]],
        nodes: NodeMap,
        threads: int,
    ) -> tuple[Sums, int]:
        """Energies of inner tensors against those of the reference that were in the bundle.

        Raises:
            InputError: it was asked about other tensors or samples, or the reference computes otherwise now.
        """
        task, asked = self._task(Layers, self._subject(artifact, runtime))
        with folder_for_blobs() as folder:
            asking = Asking(folder)
            self._require_same(asked, asking.feeds(feeds), threads)
            reference = asking.feeds(fp32 for fp32, _, _ in references)
        outputs = tuple(zip(nodes.outputs, (spec.name for spec in artifact.manifest.signature.outputs), strict=True))
        if asked.taps != tuple(taps) or asked.outputs != outputs or asked.reference != reference.blobs:
            raise InputError(
                f"torch computes the inner tensors of {artifact.name} otherwise now than when the bundle was made: another release of"
                " torch, another processor, or another number of threads",
                remedy=f"--no-layers leaves them out; or {ANEW}",
            )
        return layer_sums(Asked(self.job, {}, {}), self.results, task, references)

    def layers_told(self, artifact: Artifact, runtime: str, feed: Feeds, threads: int) -> Told:
        """What the runtime told of the artefact's layers, for the first of the samples.

        Raises:
            InputError: nobody asked for that, or with other threads; or as it failed there.
        """
        task, asked = self._task(ProfileLayers, self._subject(artifact, runtime))
        _require_threads(asked.threads, threads)
        return layers_told(Asked(self.job, {}, {}), self.results, task)

    @property
    def kept_as(self) -> str:
        """Nothing: they are in the file."""
        return ""

    def peaks(self, threads: int) -> Peaks:
        """What the device could do.

        Raises:
            InputError: nobody asked for that, or with other threads; or as it failed there.
        """
        for index, task in enumerate(self.job.tasks):
            if isinstance(task, MeasurePeaks):
                _require_threads(task.threads, threads)
                return peaks_told(Asked(self.job, {}, {}), self.results, index)
        raise InputError("the bundle does not ask what the device can do", remedy=f"with --roofline, {ANEW}")

    def _subject(self, artifact: Artifact, runtime: str) -> int:
        wanted = artifact.manifest.sha256, runtime
        return next(index for index, one in enumerate(self.job.subjects) if (one.manifest.sha256, one.runtime) == wanted)

    def _answers(self, subject: int, fed: FeedSet, threads: int) -> int:
        task, asked = self._task(Answers, subject)
        self._require_same(asked, fed, threads)
        return task

    def _task(self, kind: type[Kind], subject: int) -> tuple[int, Kind]:
        """The place of a subject's task, and the task."""
        for index, task in enumerate(self.job.tasks):
            if isinstance(task, kind) and task.subject == subject:
                return index, task
        raise InputError(f"the bundle asks nothing like that about {self.job.subjects[subject].name}", remedy=ANEW)

    def _require_same(self, asked: Answers | Layers, fed: FeedSet, threads: int) -> None:
        """Refuse samples that are not those of then: answers would be found for none of them."""
        if (asked.feeds, asked.samples) != (fed.blobs, len(fed.digests)):
            raise InputError(
                f"the samples are not those that were bundled: {len(fed.digests)} are fed now, {asked.samples} were then",
                remedy=f"put those of then back (--data says where they are now), or {ANEW}",
            )
        _require_threads(asked.threads, threads)

    def _failed(self, task: int) -> bool:
        """Whether a task failed there, which is noted."""
        error = self.results.outcomes[task].error
        if error is None:
            return False
        if all(error is not known for _, known in self.unanswered):
            self.unanswered.append((self.job.tasks[task].name, error))
        return True


def _require_threads(bundled: int, asked: int) -> None:
    if bundled != asked:
        raise InputError(f"the bundle's job has {bundled} threads, and what is asked about it {asked}", remedy=ANEW)


def layers_failed(job: Job, results: Results) -> list[tuple[str, DeployError]]:
    """Names of the walks through the layers that failed on a device, and why."""
    outcomes = zip(job.tasks, results.outcomes, strict=True)
    return [(task.name, one.error) for task, one in outcomes if isinstance(task, Layers) and one.error is not None]

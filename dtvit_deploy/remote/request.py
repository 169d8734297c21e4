"""What a bench asks of a device, whoever carries it there, and what came of it: a connection and a file differ in nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.formats.job.job import Latency
from dtvit_deploy.harness.latency import Measurement, MeasureOptions
from dtvit_deploy.remote.asking import Asked, Asking, FeedSet
from dtvit_deploy.remote.recorded import latencies, rung_of

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.nodes import NodeMap
    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.formats.job.results import Results
    from dtvit_deploy.harness.energies import Sums
    from dtvit_deploy.harness.roofline import Peaks
    from dtvit_deploy.runtimes.layer_times import Told


class Answering(Protocol):
    """A device that has answered: over a connection that is still there, or by a file."""

    @property
    def emulator(self) -> str:
        """What emulates its processor; empty where that is a real one, as far as it can be seen."""
        ...

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
        """Energies of inner tensors; see `dtvit_deploy.remote.recorded.layer_sums`."""
        ...

    def layers_told(self, artifact: Artifact, runtime: str, feed: Feeds, threads: int) -> Told:
        """What the runtime tells of the artefact's layers; see `dtvit_deploy.remote.profiled.layers_told`."""
        ...

    @property
    def kept_as(self) -> str:
        """By what the device's peaks are kept; empty where they came with its answers."""
        ...

    def peaks(self, threads: int) -> Peaks:
        """What the device can do; see `dtvit_deploy.remote.profiled.peaks_told`."""
        ...


def ask_for(
    asking: Asking,
    subjects: Sequence[tuple[Artifact, str]],
    feeds: Iterable[Feeds],
    *,
    threads: int,
    timed: MeasureOptions | None,
    apart: bool = False,
    vouched: Collection[str] = (),
    lock_clocks: bool = False,
) -> FeedSet:
    """Ask for the answers of artefacts, each in a runtime, to all feeds; and, interleaved on the first feed, for how long they take.

    Args:
        asking: the job that is put together; the subjects have their order as their places in it.
        timed: how long to measure; None asks for no time.
        apart: whether each runtime is timed by a task of its own, so that one which is not there costs the others nothing.
        vouched: digests of those artefacts that the device executes for their native code too.
        lock_clocks: whether the device's clocks are held still meanwhile.

    Returns:
        The feeds.

    Raises:
        InputError: an artefact cannot be read, or its answers do not fit into a frame.
    """
    fed = asking.feeds(feeds)
    places = [asking.subject(one, runtime, trusted=one.manifest.sha256 in vouched) for one, runtime in subjects]
    for subject in places:
        asking.answers(subject, fed, threads=threads)
    if timed is not None:
        runtimes = [runtime for _, runtime in subjects]
        for group in [[i for i in places if runtimes[i] == one] for one in dict.fromkeys(runtimes)] if apart else [places]:
            asking.latency(group, [fed] * len(group), threads=threads, options=timed, lock_clocks=lock_clocks)
    return fed


def timings(asked: Asked) -> Iterator[int]:
    """Places of the tasks of a job that measure time."""
    return (index for index, task in enumerate(asked.job.tasks) if isinstance(task, Latency))


def times_of(asked: Asked, results: Results, task: int, device: str) -> dict[int, Measurement]:
    """What a task of a job measured, by the subject's place; nothing where the agent saw an emulator, which the host may not have.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: the samples are none.
    """
    one = asked.job.tasks[task]
    assert isinstance(one, Latency)
    if rung_of(results) is not Rung.ON_DEVICE:
        return {}
    found = latencies(asked, results, task)
    named = (msgspec.structs.replace(each, conditions=each.conditions | {"device": device}) for each in found)
    return dict(zip(one.subjects, named, strict=True))

"""What a job needs of a device, held against what that told before anything is sent."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from dtvit_deploy.devices.clocks.locking import BY_HAND
from dtvit_deploy.devices.needs import Needs
from dtvit_deploy.devices.probe import Facts
from dtvit_deploy.errors import MissingError
from dtvit_deploy.formats.job.job import Build, Job, Latency, MeasurePeaks, State
from dtvit_deploy.runtimes.cold import MODULES

SPARE = 256 << 20
"""Bytes that a device has to have free beside what it is sent: what runtimes unpack, and the results."""
RELEASES = (10, 11)
"""TensorRT whose operators a job's graph is held to before it is written (`dtvit_deploy.pipeline.tensorrt`), by their major releases."""
_TENSORRT = ("tensorrt", "tensorrt-rtx")
_KERNELS, _TIMES = 1 << 30, 4
"""Bytes that a builder of engines takes, by experience with networks of some ten million parameters, and how many times the graph's."""
_PEAKS = 1 << 30
"""Bytes that measuring what a device can do takes, with two runtimes: half of it to copy."""
TO_BUILD = Needs(runtimes=("tensorrt",), disk=SPARE, memory=_KERNELS, gpu=True, releases={"tensorrt": RELEASES})
"""What building an engine takes at least, before its size is known."""


def to_run(runtimes: Collection[str]) -> Needs:
    """Modules of the device's Python, and the GPU, that runtimes take."""
    modules = chain.from_iterable(MODULES.get(name, (name,)) for name in runtimes)
    return Needs(runtimes=tuple(dict.fromkeys(modules)), gpu=any(name in _TENSORRT for name in runtimes))


def needs_of(job: Job) -> Needs:
    """What the tasks of a job take; for what is sent, the agent looks at what there is."""
    built = [task.subject for task in job.tasks if isinstance(task, Build)]
    run = {subject for task in job.tasks if not isinstance(task, Build | State | MeasurePeaks) for subject in _subjects(task)}
    needs = to_run([job.subjects[index].runtime for index in sorted(run)])
    if not built:
        return needs._replace(disk=SPARE, memory=_PEAKS if any(isinstance(task, MeasurePeaks) for task in job.tasks) else 0)
    sizes = {blob.sha256: blob.bytes for blob in job.blobs}
    size = max(sum(sizes[digest] for digest in set(job.subjects[index].files.values())) for index in built)
    return TO_BUILD._replace(
        runtimes=tuple(dict.fromkeys((*TO_BUILD.runtimes, *needs.runtimes))), disk=SPARE + _TIMES * size, memory=_KERNELS + _TIMES * size
    )


def require_root(name: str, facts: Facts) -> None:
    """Refuse to lock clocks where whoever logs in may not; on an emulated processor, where nothing is timed, nobody has to.

    Raises:
        MissingError: the user there is not root.
    """
    if facts.user not in ("", "root") and not facts.emulator:
        raise MissingError(f"{name}: clocks are locked by root alone, and the user there is {facts.user}", remedy=BY_HAND)


def _subjects(task: object) -> tuple[int, ...]:
    if isinstance(task, Latency):
        return task.subjects
    subject: int = task.subject  # type: ignore[attr-defined]
    return (subject,)

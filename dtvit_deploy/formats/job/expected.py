"""What a task's results look like, by what was asked: how many there are, and the names, types and shapes of their arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dtvit_deploy.formats.job.frames import LARGEST_FRAME, Header, ResultsError
from dtvit_deploy.formats.job.job import Answers, Job, Latency, Layers, State, Task
from dtvit_deploy.formats.job.words import clean

MOST_READINGS, MOST_CHANNELS, MOST_BLOCKS = 100_000, 60, 1000
"""Of a device's state around a latency: far more than any is read."""


def parts_of(task: Task) -> int:
    """How many results a task has; the last of a latency is the state that it was taken in."""
    if isinstance(task, State):
        return 0
    return len(task.subjects) + 1 if isinstance(task, Latency) else task.samples


def require_expected(job: Job, task: Task, index: int, header: Header) -> None:
    """Refuse a result whose arrays are not those that were asked for, in name, type or shape.

    Raises:
        ResultsError: they are not.
    """
    found = {one.name: (one.dtype, one.shape) for one in header.arrays}
    if isinstance(task, Answers):
        outputs = job.subjects[task.subject].manifest.signature.outputs
        fits = found == {spec.name: (spec.dtype, spec.shape) for spec in outputs}
    elif isinstance(task, Layers):
        fits = found == {"noise": ("float64", (len(task.tensors),))}
    elif isinstance(task, Latency) and index == len(task.subjects):
        fits = _is_state(found)
    elif isinstance(task, Latency):
        samples = found.get("samples_ms", ("", ()))[1]
        most = task.options.get("max_samples", math.inf)
        series = dict.fromkeys(("samples_ms", "stamps_s"), ("float64", samples))
        fits = found == series and len(samples) == 1 and 1 <= samples[0] <= most
    else:
        fits = False
    if not fits:
        told = "; ".join(f"{name} {'×'.join(map(str, shape))} {dtype}" for name, (dtype, shape) in found.items())
        raise not_asked(f"result {index} of {task.name!r} holds {clean(told)[:200] or 'nothing'}, which is not what was asked for")


def _is_state(found: Mapping[str, tuple[str, tuple[int, ...]]]) -> bool:
    if found.keys() != {"times_s", "values", "blocks"} or {dtype for dtype, _ in found.values()} != {"float64"}:
        return False
    times, values, blocks = (found[name][1] for name in ("times_s", "values", "blocks"))
    bounded = len(times) == 1 and times[0] <= MOST_READINGS and len(values) == 2 and values[1] <= MOST_CHANNELS
    return bounded and values[0] == times[0] and len(blocks) == 2 and blocks[0] <= MOST_BLOCKS and blocks[1] == 4


def fits_a_frame(sizes: int) -> bool:
    """Whether outputs of so many bytes fit into one frame."""
    return sizes < LARGEST_FRAME - (1 << 16)


def not_asked(what: str) -> ResultsError:
    """Of results that are whole, and answer something else."""
    return ResultsError(f"these are not the results of what was asked: {what}", remedy="have the device do the job again")

"""What a task's results look like, by what was asked: how many there are, and the names, types and shapes of their arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dtvit_deploy.formats.job.frames import (
    DTYPES,
    LARGEST_FRAME,
    LARGEST_HEADER,
    MOST_ARRAYS,
    MOST_AXES,
    MOST_LETTERS,
    Described,
    Header,
    ResultsError,
)
from dtvit_deploy.formats.job.job import Answers, Build, Job, Latency, Layers, MeasurePeaks, ProfileLayers, State, Task
from dtvit_deploy.formats.job.made import PIECE, made_of
from dtvit_deploy.formats.job.words import clean

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import TensorSpec

MOST_READINGS, MOST_CHANNELS, MOST_BLOCKS = 100_000, 60, 1000
"""Of a device's state around a latency: far more than any is read."""
MOST_PROFILED, MOST_RUNS, MOST_TIMES, MOST_WORDS = 20_000, 1000, 4_000_000, 8 << 20
"""Of what a runtime tells of its layers: how many there are, whole runs, times of layers in all of them, and bytes of their names."""
OWN_CLOCK = ("tensorrt", "tensorrt-rtx")
"""Runtimes whose network runs on something with a clock of its own, which is told beside the processor's."""


def parts_of(task: Task) -> int:
    """How many results a task has, the last of a latency is the state that it was taken in; of one that builds, how many at most."""
    if isinstance(task, State):
        return 0
    if isinstance(task, ProfileLayers | MeasurePeaks):
        return 1
    if isinstance(task, Build):
        return -(-task.most // PIECE)
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
        own = ("device_ms",) if job.subjects[task.subjects[index]].runtime in OWN_CLOCK else ()
        series = dict.fromkeys(("samples_ms", "stamps_s", *own), ("float64", samples))
        fits = found == series and len(samples) == 1 and 1 <= samples[0] <= most
    elif isinstance(task, ProfileLayers):
        fits = _are_layer_times(found)
    elif isinstance(task, MeasurePeaks):
        fits = not found
    elif isinstance(task, Build):
        size = found.get("piece", ("", (0,)))[1]
        fits = found == {"piece": ("uint8", size)} and len(size) == 1 and 1 <= size[0] <= PIECE
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


def _are_layer_times(found: Mapping[str, tuple[str, tuple[int, ...]]]) -> bool:
    most = {"whole_ms": MOST_RUNS, "times_ms": MOST_TIMES, "counts": MOST_PROFILED, "words": MOST_WORDS}
    types = {"whole_ms": "float64", "times_ms": "float64", "counts": "int64", "words": "uint8"}
    return {name: dtype for name, (dtype, _) in found.items()} == types and all(
        len(shape) == 1 and shape[0] <= most[name] for name, (_, shape) in found.items()
    )


def why_unanswerable(outputs: Sequence[TensorSpec]) -> str:
    """Why no frame can hold one answer with such outputs; empty where one can."""
    if len(outputs) > MOST_ARRAYS:
        return f"it has {len(outputs)} outputs, and {MOST_ARRAYS} are sent at once"
    for spec in outputs:
        if spec.dtype not in DTYPES or len(spec.shape) > MOST_AXES or len(spec.name) > MOST_LETTERS:
            return (
                f"its output {clean(str(spec))[:200]} is not among what is sent: {', '.join(DTYPES)}, with {MOST_AXES} axes and"
                f" {MOST_LETTERS:,} letters at most"
            )
    size = sum(Described(spec.name, spec.dtype, spec.shape).bytes for spec in outputs)
    return (
        "" if size < LARGEST_FRAME - LARGEST_HEADER else f"one of them has {size:,} bytes, and {LARGEST_FRAME >> 20} MiB are sent at once"
    )


def require_whole(task: Task, parts: int, size: int, sha256: str, body: dict[str, Any]) -> None:
    """Refuse the end of a task whose results are not all there.

    Args:
        parts: that came.
        size, sha256: bytes in all of them and their digest, of a task that builds.
        body: of its last frame.

    Raises:
        ResultsError: some are missing, or those of an engine are not what the device says.
    """
    if not isinstance(task, Build):
        if parts != parts_of(task):
            raise not_asked(f"{task.name!r} is done with {parts} of {parts_of(task)} results")
        return
    made = made_of(body.get("made"))
    if made.bytes > task.most:
        raise not_asked(f"{task.name!r} gives {made.bytes:,} bytes, and {task.most:,} are the most")
    if (made.bytes, made.sha256) != (size, sha256):
        raise not_asked(f"{task.name!r} is done with {size:,} bytes, SHA-256 {sha256[:16]}…, of {made.bytes:,}, {made.sha256[:16]}…")


def not_asked(what: str) -> ResultsError:
    """Of results that are whole, and answer something else."""
    return ResultsError(f"these are not the results of what was asked: {what}", remedy="have the device do the job again")

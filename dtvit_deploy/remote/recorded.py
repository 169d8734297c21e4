"""Results of a device in the place of a session: what judges this machine's answers judges the device's, by the same code.

The device delivers outputs, times and sums; every figure and every verdict is made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.bounds import Amount, Count
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.signature import Signature
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.feeds import feed_digest
from dtvit_deploy.formats.job.frames import ResultsError
from dtvit_deploy.formats.job.job import Answers, Latency, Layers
from dtvit_deploy.formats.job.results import Outcome, Results
from dtvit_deploy.formats.job.words import clean, cleaned
from dtvit_deploy.harness.energies import add_feed
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Samples, Warmup, interleaved, stated
from dtvit_deploy.harness.latency.starts import Starts
from dtvit_deploy.harness.state.blocks import Block
from dtvit_deploy.harness.state.carried import state_of
from dtvit_deploy.harness.state.record import Watched
from dtvit_deploy.remote.asking import Asked
from dtvit_deploy.remote.told import device_conditions, state_around
from dtvit_deploy.runtimes.base import Availability, SessionOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from dtvit_deploy.artifacts.signature import Feeds, Outputs
    from dtvit_deploy.harness.energies import Sums


def rung_of(results: Results) -> Rung:
    """How far the device's figures were proved: an emulated processor is no device."""
    return Rung.EMULATED_PROCESSOR if results.device.get("emulated") else Rung.ON_DEVICE


@dataclass(frozen=True)
class RecordedRuntime:
    """A runtime of a device, which has answered already.

    Attributes:
        asked: the job.
        results: what came of it.
        subject: place of the artefact in the job.
        where: what follows its name in tables, as ``on orin``.
    """

    asked: Asked
    results: Results
    subject: int
    where: str = ""

    @property
    def name(self) -> str:
        """The runtime's own, and where it is."""
        return f"{self.asked.job.subjects[self.subject].runtime} {self.where}".strip()

    @property
    def rung(self) -> Rung:
        return rung_of(self.results)

    def available(self, artifact: Artifact | None = None) -> Availability:
        """Its version there; why not, where its task failed."""
        try:
            conditions = self.outcome(self._task()).facts
        except ResultsError:
            raise
        except InputError as error:
            return Availability(version=None, missing=str(error), remedy=error.remedy or "")
        return Availability(version=conditions.get("runtime", "").rpartition(" ")[2] or "unknown")

    def tensors(self, artifact: Artifact) -> tuple[str, ...]:
        """None: inner tensors stay on the device, and their sums come back (`layer_sums`)."""
        return ()

    def load(self, artifact: Artifact, options: SessionOptions) -> RecordedSession:
        """The session that answered there.

        Raises:
            InputError, MissingError: as it failed there; or another artefact, or inner tensors are asked for.
        """
        subject = self.asked.job.subjects[self.subject]
        if artifact.manifest.sha256 != subject.manifest.sha256 or options.taps:
            raise InputError(
                f"{self.name} answered for {subject.name} and its outputs alone", remedy="ask the device for whatever else is needed"
            )
        return RecordedSession(self, self._task())

    def outcome(self, task: int) -> Outcome:
        """How a task ended, well.

        Raises:
            InputError, MissingError: as it failed there, and where that was.
        """
        try:
            return self.results.require(task)
        except (InputError, MissingError) as error:
            raise type(error)(f"{self.where.removeprefix('on ') or 'the device'}: {error}", remedy=error.remedy) from error

    def _task(self) -> int:
        for index, task in enumerate(self.asked.job.tasks):
            if isinstance(task, Answers) and task.subject == self.subject:
                return index
        raise InputError(f"{self.name} was asked for no answers", remedy="ask for them in the job")


class RecordedSession:
    """The answers of one artefact, found by what they answer."""

    def __init__(self, runtime: RecordedRuntime, task: int) -> None:
        self._results, self._task = runtime.results, task
        self._outcome = runtime.outcome(task)
        self._places = {digest: index for index, digest in enumerate(runtime.asked.feeds[task])}
        self.signature: Signature = runtime.asked.job.subjects[runtime.subject].manifest.signature
        about = device_conditions(runtime.results) | state_around(self._outcome)  # of which a session may know more: macOS by its name
        self.conditions = {**about, **self._outcome.facts, "device": runtime.where.removeprefix("on ")}

    def run(self, feeds: Feeds) -> Outputs:
        """What the device answered to these feeds.

        Raises:
            RuntimeError: it was not asked about them, which is a defect of whoever asks.
        """
        place = self._places.get(feed_digest(feeds))
        if place is None:
            raise RuntimeError("the device was not asked about these feeds")
        return {name: array.copy() for name, array in self._results.part(self._task, place).items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def layer_sums(asked: Asked, results: Results, task: int, references: Iterable[tuple[Outputs, Outputs, Outputs]]) -> tuple[Sums, int]:
    """Energies for `dtvit_deploy.harness.layers.report_of`: the artefact's from the device, the others' taken here.

    Args:
        asked, results: the job and what came of it.
        task: place of its `Layers`.
        references: for each feed, tensors by node name of torch FP32 (as they were sent), the ideal and the exact evaluation.

    Returns:
        The sums, and over how many feeds.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: an energy is negative.
    """
    one = asked.job.tasks[task]
    assert isinstance(one, Layers)
    sums: Sums = {}
    count = 0
    for part, (reference, ideal, exact) in zip(results.parts(task), references, strict=True):
        values = part["noise"]
        if (values < 0).any():
            raise ResultsError("an energy from the device is negative", remedy="have the device do the job again")
        noises = {name: float(value) for name, value in zip(one.tensors, values, strict=True) if not np.isnan(value)}
        add_feed(sums, {name: value for name, value in noises.items() if name in reference}, reference, ideal, exact)
        count += 1
    return sums, count


def latencies(asked: Asked, results: Results, task: int) -> list[Measurement]:
    """The measurements of a `Latency`, one for each of its subjects: percentiles and validity are found here, from the samples.

    Raises:
        InputError, MissingError: as it failed there.
        ResultsError: the samples are none.
    """
    one = asked.job.tasks[task]
    assert isinstance(one, Latency)
    options = options_of(one)
    *timed, around = results.bodies(task)
    told = [_timed(body, arrays) for body, arrays in timed]
    watched, blocks = _watched(*around)
    measured = {str(index): stated(each.samples.summary(options), watched, blocks, index) for index, each in enumerate(told)}
    about = device_conditions(results) | state_around(results.require(task))
    return [
        msgspec.structs.replace(
            measured[str(index)],
            conditions={**about, **each.conditions, "measured": interleaved(str(index), measured), "batch": "1"},
            starts=each.starts,
        )
        for index, each in enumerate(told)
    ]


def options_of(task: Latency) -> MeasureOptions:
    """How long a task measures, and what is believed of it.

    Raises:
        InputError: it says what makes no sense.
    """
    try:
        return msgspec.convert(
            {name: int(value) if name.endswith("samples") else value for name, value in task.options.items()}, MeasureOptions
        )
    except (ValueError, OverflowError) as error:
        raise InputError(f"the options of {task.name!r} make no sense: {error}", remedy="ask again with this version") from error


class _Warm(msgspec.Struct, frozen=True, kw_only=True):
    runs: Count
    seconds: Amount
    change: Amount
    first_ms: Amount


class _Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What a frame says of one subject, each number within what it may be."""

    warmup: _Warm
    tick_ms: Amount
    conditions: dict[str, str]
    starts: Starts
    samples_ms: Annotated[tuple[Amount, ...], msgspec.Meta(min_length=1)]
    stamps_s: tuple[Amount, ...]
    device_ms: tuple[Amount, ...] = ()

    @property
    def samples(self) -> Samples:
        warmup = Warmup(**msgspec.structs.asdict(self.warmup))
        return Samples(samples_ms=self.samples_ms, stamps_s=self.stamps_s, device_ms=self.device_ms, warmup=warmup, tick_ms=self.tick_ms)


def _timed(body: dict[str, Any], arrays: Outputs) -> _Timed:
    try:
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("a time is no number")
        found = msgspec.convert({**body, **{name: array.tolist() for name, array in arrays.items()}}, _Timed)
    except ValueError as error:
        raise ResultsError(
            f"the samples from the device are none: {clean(str(error))}", remedy="have the device do the job again"
        ) from error
    starts = msgspec.structs.replace(found.starts, warm=clean(found.starts.warm))
    return msgspec.structs.replace(found, conditions=cleaned(found.conditions), starts=starts)


def _watched(body: dict[str, Any], arrays: Outputs) -> tuple[Watched, tuple[Block, ...]]:
    try:
        watched, blocks = state_of(arrays, body)
    except ValueError as error:
        raise ResultsError(f"the device's state is none: {clean(str(error))}", remedy="have the device do the job again") from error
    channels = tuple(msgspec.structs.replace(one, name=clean(one.name), source=clean(one.source)) for one in watched.channels)
    words = {"before": cleaned(watched.before), "after": cleaned(watched.after), "failure": clean(watched.failure)}
    return msgspec.structs.replace(watched, channels=channels, **words), blocks

"""One pass over the samples of a calibration, saved as it goes: one that was killed goes on where it was, and ends with the same ranges."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.calibration.counts import Counts, Terms, points, stretches
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.state import read_state, write_state
from dtvit_deploy.calibration.thresholds import ranges_of
from dtvit_deploy.errors import MissingError
from dtvit_deploy.pipeline.calibration_set import CalibrationSet
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.calibration.observe import Observer

FIRST_POINT = 8
"""Samples at the first point of the convergence curve; at each further one they are twice as many."""
SAVE_SECONDS = 2.0
SAVE_SHARE = 0.03
"""Greatest share of the time that may go into saving."""


@dataclass(frozen=True)
class CalibrationShard:
    """Samples [start, stop) of a calibration, and all that another process needs to observe them: it can be pickled.

    Attributes:
        threads: of one inference, as everywhere in the calibration: sums in another order have another last bit.
    """

    program: ProgramEntry
    chosen: CalibrationSet
    threads: int
    start: int
    stop: int


def observe(shard: CalibrationShard) -> list[Counts]:
    """What is counted on the samples of a shard, cut at the points of the convergence curve, in order.

    Raises:
        InputError: a sample cannot be read, or a tensor holds NaN.
        MissingError: PyTorch is not installed.
    """
    observer, terms = _observer(shard.program, shard.chosen, shard.threads)
    found = []
    for start, stop in stretches(shard.start, shard.stop, _points(shard.chosen)):
        counts = Counts(terms, start)
        for _ in _counting(observer, shard.chosen, counts, stop):
            pass
        found.append(counts)
    return found


class Observation:
    """What is known of every tensor after so many samples, however they were cut.

    Attributes:
        points: numbers of samples at which ranges are noted; the last is all of them.
        counts: of the samples from the first on.
        curve: (points, methods, tensors, 2) float32 ranges noted there.
        saved: how many samples a next call need not observe again.
    """

    counts: Counts
    curve: NDArray[np.float32]

    def __init__(self, program: ProgramEntry, chosen: CalibrationSet, *, percentile: float, threads: int) -> None:
        self.points = _points(chosen)
        self.saved = 0
        self._program, self._chosen = program, chosen
        self._percentile, self._threads = percentile, threads

    def run(self, unfinished: Path, progress: Progress) -> None:
        """Observe all samples, from where a file that is of the same calibration left off.

        Args:
            unfinished: written every few seconds; whoever has used the result removes it.
            progress: shows how far it is.

        Raises:
            InputError: a sample cannot be read, a tensor holds NaN, or the file cannot be written.
            MissingError: PyTorch is not installed.
        """
        observer, terms = _observer(self._program, self._chosen, self._threads)
        self._begin(terms)
        if unfinished.is_file():
            self._resume(unfinished, progress)
        total = len(self._chosen.samples)
        what = f"observing {counted(len(terms.tensors), 'tensor')} on {self._chosen.source}"
        last, pause = time.monotonic(), SAVE_SECONDS
        for _ in progress.track(_counting(observer, self._chosen, self.counts, total), what, total - self.counts.stop):
            self._note()
            if time.monotonic() - last > pause:
                began = time.monotonic()
                write_state(unfinished, self._arrays())
                self.saved = self.counts.stop
                last = time.monotonic()
                pause = max(SAVE_SECONDS, (last - began) / SAVE_SHARE)
        self.curve[-1] = self._ranges()  # what the table holds comes from the counts, whatever a file said of it

    def take(self, shards: Iterable[list[Counts]]) -> None:
        """Count shards together, which come in order and make up all samples; ends as `run` does, to the last bit.

        Raises:
            InputError: one was observed otherwise than those before it.
            ValueError: samples are missing, or a shard is not cut where the ranges are to be noted.
        """
        begun = False
        for counts in (one for shard in shards for one in shard):
            if not begun:
                begun = True
                self._begin(counts.terms)
            if any(counts.start < point < counts.stop for point in self.points):
                raise ValueError(f"samples {counts.start} to {counts.stop} are not cut where ranges are noted, at {self.points}")
            self.counts.merge(counts)
            self._note()
        if not begun or self.counts.stop != self.points[-1]:
            raise ValueError(f"{self.points[-1]} samples were expected")

    def _begin(self, terms: Terms) -> None:
        self.counts = Counts(terms)
        self.curve = np.zeros((len(self.points), len(Method), len(terms.tensors), 2), np.float32)

    def _note(self) -> None:
        """Note the ranges, at a point where that is to be done."""
        if self.counts.stop in self.points:
            self.curve[self.points.index(self.counts.stop)] = self._ranges()

    def _ranges(self) -> NDArray[Any]:
        """(methods, tensors, 2) as they are now."""
        found = ranges_of(self.counts.histograms, self._percentile)
        return np.stack([found[method] for method in Method])

    def _arrays(self) -> dict[str, NDArray[Any]]:
        key = hashlib.sha256(f"{self.counts.terms.digest} {self._percentile!r}".encode()).digest()
        numbers = np.array([self.counts.stop, self.counts.flat], np.int64)
        return {"key": np.frombuffer(key, np.uint8), "numbers": numbers, "curve": self.curve, **self.counts.histograms.arrays()}

    def _resume(self, unfinished: Path, progress: Progress) -> None:
        own = self._arrays()
        try:
            found = read_state(unfinished, own)
            if (found["key"] != own["key"]).any():
                raise ValueError("it is of another calibration")
            done, flat = map(int, found["numbers"])
            if not 0 <= flat <= done <= len(self._chosen.samples):
                raise ValueError("it counts more samples than there are")
            self.counts.histograms.restore(found, done)
        except ValueError as error:
            progress.step(f"{unfinished.name} is not used: {error}")
            return
        self.counts.stop, self.counts.flat, self.saved = done, flat, done
        self.curve[...] = found["curve"]
        progress.step(f"going on after {done} of {counted(len(self._chosen.samples), 'sample')}")


def _points(chosen: CalibrationSet) -> list[int]:
    return points(len(chosen.samples), FIRST_POINT)


def _counting(observer: Observer, chosen: CalibrationSet, counts: Counts, stop: int) -> Iterator[Counts]:
    """Counts the samples up to that of number ``stop``, one at each step."""
    for feed in chosen.feeds(counts.stop, stop):
        observer.observe(feed, counts.stop, chosen.samples[counts.stop].name, counts.histograms)
        counts.stop += 1
        counts.flat += _is_flat(feed)
        yield counts


def _observer(program: ProgramEntry, chosen: CalibrationSet, threads: int) -> tuple[Observer, Terms]:
    """What observes a program here, and under which terms."""
    try:
        from dtvit_deploy.calibration.observe import Observer, processor
        from dtvit_deploy.runtimes.torch.session import read_program
    except ImportError as error:
        raise MissingError(f"calibration needs PyTorch: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    manifest = program.artifact.manifest
    observer = Observer(read_program(program.artifact), program.nodes, manifest.signature, threads)
    depends_on = {
        "program": manifest.sha256,
        "preprocessing": chosen.preprocessing.digest if chosen.preprocessing else None,
        "samples": [one.sha256 for one in chosen.samples],
        "threads": threads,  # sums in another order, another last bit
        "processor": processor(),  # other instructions too
        "tools": versions("torch", "numpy", "pillow"),
        "source": source_digest(__name__),
    }
    digest = hashlib.sha256(msgspec.json.encode(depends_on, order="sorted")).hexdigest()
    return observer, Terms(observer.tensors, observer.inputs, digest)


def _is_flat(feed: Feeds) -> bool:
    """Whether all that is fed are images, and every channel of each is of one value."""
    planes = [array.reshape(array.shape[0] * array.shape[1], -1) for array in feed.values() if array.ndim == 4]
    return len(planes) == len(feed) and all(bool((plane.min(1) == plane.max(1)).all()) for plane in planes)

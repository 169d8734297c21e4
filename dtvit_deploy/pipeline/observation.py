"""One pass over the samples of a calibration, saved as it goes: one that was killed goes on where it was, and ends with the same ranges."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.state import read_state, write_state
from dtvit_deploy.errors import MissingError
from dtvit_deploy.pipeline.calibration_set import CalibrationSet
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import ProgramEntry, source_digest, versions
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


class Observation:
    """What is known of every tensor after so many samples.

    Attributes:
        observer: the program, and the histograms.
        points: numbers of samples at which ranges are noted; the last is all of them.
        curve: (points, methods, tensors, 2) float32 ranges noted there.
        done: how many samples were observed.
        flat: how many of those are images of a single colour.
        saved: how many of them a next call need not observe again.
    """

    def __init__(self, program: ProgramEntry, chosen: CalibrationSet, *, percentile: float, threads: int) -> None:
        import numpy as np

        self.observer = _observer(program, threads)
        total = len(chosen.samples)
        self.points = [FIRST_POINT << doublings for doublings in range(total.bit_length()) if FIRST_POINT << doublings < total] + [total]
        self.curve = np.zeros((len(self.points), len(Method), len(self.observer.tensors), 2), np.float32)
        self.done = self.flat = self.saved = 0
        self._chosen = chosen
        self._percentile = percentile
        self._key = {
            "program": program.artifact.manifest.sha256,
            "preprocessing": chosen.preprocessing.digest if chosen.preprocessing else None,
            "samples": [one.sha256 for one in chosen.samples],
            "percentile": percentile,
            "threads": threads,  # sums in another order, another last bit
            "tools": versions("torch", "numpy", "pillow"),
            "source": source_digest(),
        }

    def run(self, unfinished: Path, progress: Progress) -> None:
        """Observe all samples, from where a file that is of the same calibration left off.

        Args:
            unfinished: written every few seconds; whoever has used the result removes it.
            progress: shows how far it is.

        Raises:
            InputError: a sample cannot be read, a tensor holds NaN, or the file cannot be written.
        """
        if unfinished.is_file():
            self._resume(unfinished, progress)
        total = len(self._chosen.samples)
        what = f"observing {counted(len(self.observer.tensors), 'tensor')} on {self._chosen.source}"
        last, pause = time.monotonic(), SAVE_SECONDS
        for feed in progress.track(self._chosen.feeds(self.done), what, total - self.done):
            self.observer.observe(feed, self.done, self._chosen.samples[self.done].name)
            self.done += 1
            self.flat += _is_flat(feed)
            if self.done in self.points:
                self.curve[self.points.index(self.done)] = self._ranges()
            if time.monotonic() - last > pause:
                began = time.monotonic()
                write_state(unfinished, self._arrays())
                self.saved = self.done
                last = time.monotonic()
                pause = max(SAVE_SECONDS, (last - began) / SAVE_SHARE)
        self.curve[-1] = self._ranges()  # what the table holds comes from the counts, whatever a file said of it

    def _ranges(self) -> NDArray[Any]:
        """(methods, tensors, 2) as they are now."""
        import numpy as np

        from dtvit_deploy.calibration.thresholds import ranges_of

        found = ranges_of(self.observer.histograms, self._percentile)
        return np.stack([found[method] for method in Method])

    def _arrays(self) -> dict[str, NDArray[Any]]:
        import numpy as np

        key = np.frombuffer(hashlib.sha256(msgspec.json.encode(self._key, order="sorted")).digest(), np.uint8)
        numbers = np.array([self.done, self.flat], np.int64)
        return {"key": key, "numbers": numbers, "curve": self.curve, **self.observer.histograms.arrays()}

    def _resume(self, unfinished: Path, progress: Progress) -> None:
        own = self._arrays()
        try:
            found = read_state(unfinished, own)
            if (found["key"] != own["key"]).any():
                raise ValueError("it is of another calibration")
            done, flat = map(int, found["numbers"])
            if not 0 <= flat <= done <= len(self._chosen.samples):
                raise ValueError("it counts more samples than there are")
            self.observer.histograms.restore(found, done)
        except ValueError as error:
            progress.step(f"{unfinished.name} is not used: {error}")
            return
        self.done, self.flat, self.saved = done, flat, done
        self.curve[...] = found["curve"]
        progress.step(f"going on after {done} of {counted(len(self._chosen.samples), 'sample')}")


def _observer(program: ProgramEntry, threads: int) -> Observer:
    try:
        from dtvit_deploy.calibration.observe import Observer
        from dtvit_deploy.runtimes.torch.session import read_program
    except ImportError as error:
        raise MissingError(f"calibration needs PyTorch: {error}", remedy="pip install 'dtvit-deploy[export]'") from error
    return Observer(read_program(program.artifact), program.nodes, program.artifact.manifest.signature, threads)


def _is_flat(feed: Feeds) -> bool:
    """Whether all that is fed are images, and every channel of each is of one value."""
    planes = [array.reshape(array.shape[0] * array.shape[1], -1) for array in feed.values() if array.ndim == 4]
    return len(planes) == len(feed) and all(bool((plane.min(1) == plane.max(1)).all()) for plane in planes)

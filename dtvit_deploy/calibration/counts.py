"""What was counted of a network's tensors on consecutive samples; what two stretches count, one after the other, is what one pass counts.

No framework is needed to add it up: that may be done on another machine than those that observe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dtvit_deploy.calibration.histogram import Histograms
from dtvit_deploy.errors import InputError

COUNTED = 4096
"""Values of one tensor and image that are counted at most: 300 images then give a percentile of 99.99 the 60 values on either side."""


@dataclass(frozen=True)
class Observed:
    """A tensor that is observed; ``values`` is how many it has."""

    name: str
    module: str
    op: str
    values: int

    @property
    def stride(self) -> int:
        """The least step in which at most COUNTED values are met, and every channel, whatever the shape."""
        stride = -(-self.values // COUNTED)
        while math.gcd(stride, self.values) > 1:
            stride += 1
        return stride

    @property
    def counted(self) -> int:
        """How many of the values are counted of each image."""
        return self.values // self.stride


@dataclass(frozen=True)
class Terms:
    """What has to be the same for two stretches of samples to be counted together.

    Attributes:
        tensors: what is observed: the inputs, and what each node computes. What a view passes on is observed where it was made.
        inputs: names of the program's inputs, in order.
        digest: SHA-256, in hexadecimal, of the program, of all samples of the calibration, and of everything that a value's last bit
            depends on.
    """

    tensors: tuple[Observed, ...]
    inputs: tuple[str, ...]
    digest: str


class Counts:
    """What was counted on samples [start, stop) of a calibration; it can be sent to another process.

    Attributes:
        terms: under which it was counted.
        start, stop: the stretch; ``stop`` grows.
        flat: how many of the samples are images of a single colour.
        histograms: of the tensors, in their order.
    """

    def __init__(self, terms: Terms, start: int = 0) -> None:
        self.terms = terms
        self.start = self.stop = start
        self.flat = 0
        self.histograms = Histograms([tensor.counted for tensor in terms.tensors])

    def merge(self, after: Counts) -> None:
        """Count what was counted on the samples that follow; ``after`` stays as it is.

        Raises:
            ValueError: other samples follow these.
            InputError: it was counted under other terms.
        """
        if after.start != self.stop:
            raise ValueError(f"samples {after.start} to {after.stop} do not follow sample {self.stop - 1}")
        if after.terms != self.terms:
            raise InputError(
                f"samples {after.start} to {after.stop - 1} were observed otherwise than those before them: by another version of"
                " dtvit-deploy, PyTorch, NumPy or Pillow, on another kind of processor, or of another calibration",
                remedy="let machines that are alike, with the same versions, share a calibration",
            )
        self.histograms.merge(after.histograms)
        self.stop = after.stop
        self.flat += after.flat


def points(samples: int, first: int) -> list[int]:
    """Numbers of samples at which ranges are noted: ``first``, twice as many, and so on, and at last all of them."""
    return [first << doublings for doublings in range(samples.bit_length()) if first << doublings < samples] + [samples]


def stretches(start: int, stop: int, ends: Sequence[int]) -> list[tuple[int, int]]:
    """[start, stop) cut wherever one of ``ends`` lies within; a single empty stretch where there is nothing to cut."""
    edges = [start, *(end for end in sorted(ends) if start < end < stop), stop]
    return list(pairwise(edges))

"""Top-1, top-5 and agreement with the reference, each with what its sample size allows to say."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Magnitude, Natural, Share, unit
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST_PICTURE = 64 << 10
"""Characters of a flip's picture."""
MOST_FLIPS = 1000
"""Flips that are kept, those that the reference was surest of; all are counted."""
FEWEST_CLASSES_FOR_TOP5 = 6
"""With five classes or fewer, every answer is among the first five."""


_Answer = Annotated[int, msgspec.Meta(ge=-1, le=2**31), unit("class")]


class Flip(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample that the artefact answers otherwise than the reference.

    Attributes:
        image: its name.
        label: the right class, when known.
        reference, artifact: the class that each puts first; -1 where its logits hold NaN.
        margin: the reference's greatest logit less its second: a flip at a small margin is a near-tie. 0 where that is undefined.
        picture: the image made small, as PNG in base64; empty where there is none.
    """

    image: str
    label: Annotated[Count, unit("class")] | None
    reference: _Answer
    artifact: _Answer
    margin: Annotated[Magnitude, unit("logit")]
    picture: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9+/]*={0,2}$", max_length=LARGEST_PICTURE)] = ""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the answers are right, and how often they are the reference's.

    Attributes:
        samples: how many were scored.
        top1: share whose greatest logit is the label's; None without labels.
        top5: share whose label is among the five greatest; None without labels and for fewer than six classes.
        agreement: share whose greatest logit is the reference's; None without a reference.
        interval, agreement_interval: 95 % Wilson interval of ``top1`` and of ``agreement``.
        flips: the samples that do not agree, in order; of more than :data:`MOST_FLIPS` those that the reference was surest of.
    """

    samples: Natural
    top1: Share | None = None
    top5: Share | None = None
    agreement: Share | None = None
    interval: tuple[Share, Share] | None = None
    agreement_interval: tuple[Share, Share] | None = None
    flips: tuple[Flip, ...] = ()

    @property
    def right(self) -> int | None:
        """How many samples have the label's class first; None without labels."""
        return None if self.top1 is None else round(self.top1 * self.samples)

    @property
    def agreeing(self) -> int | None:
        """How many samples have the reference's class first; None without a reference."""
        return None if self.agreement is None else round(self.agreement * self.samples)

    @property
    def flipped(self) -> int:
        """How many samples do not agree, listed or not."""
        return 0 if self.agreeing is None else self.samples - self.agreeing


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share of ``n`` samples; ``z`` = 1.96 standard deviations make 95 %. (0, 1) when ``n`` is 0.

    Raises:
        ValueError: ``successes`` is not from 0 to ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # The interval holds the share and stays in 0–1 in exact arithmetic; rounding must not say otherwise.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flip among those that are kept, and which of the samples it is, from 0; the least is the first to go."""

    place: Count
    flip: Flip

    def __lt__(self, other: Kept) -> bool:
        """By how sure the reference was; of equal margins the earlier stays."""
        return (self.flip.margin, -self.place) < (other.flip.margin, -other.place)


class Tally(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Counts over samples that come a few at a time: what it holds does not grow with their number.

    Equal logits rank by index, the lowest first, as argmax has it. Logits that hold NaN are wrong and agree with nothing. Tallies of
    consecutive samples are merged into that of all of them, whatever the cuts; each can be encoded and read again.

    Attributes:
        samples: how many were counted.
        right, among5: how many have the label's logit first, or among the first five.
        agreed: how many have the reference's first logit first.
        classes: how many logits a sample has; 0 before the first.
        labelled, compared: whether samples came with labels, and with a reference.
        flips: a heap of at most :data:`MOST_FLIPS`.

    Raises:
        ValueError: what was read contradicts itself.
    """

    samples: Count = 0
    right: Count = 0
    among5: Count = 0
    agreed: Count = 0
    classes: Count = 0
    labelled: bool = False
    compared: bool = False
    flips: list[Kept] = []

    def __post_init__(self) -> None:
        counted = self.right <= self.among5 <= self.samples and self.agreed <= self.samples
        kept = min(self.samples - self.agreed, MOST_FLIPS) if self.compared else 0
        places = {one.place for one in self.flips}
        if not counted or not len(places) == len(self.flips) == kept or max(places, default=-1) >= self.samples:
            raise ValueError("the counts of a tally do not belong together")
        heapq.heapify(self.flips)

    def merge(self, after: Tally) -> None:
        """Count what another has counted, which stays as it is: samples that follow these, of the same two networks.

        Raises:
            ValueError: they have another number of classes.
        """
        if 0 not in (self.samples, after.samples) and self.classes != after.classes:
            raise ValueError(f"samples of {self.classes} classes and of {after.classes} have no common tally")
        for one in after.flips:
            self._keep(Kept(self.samples + one.place, one.flip))
        self.samples += after.samples
        self.right += after.right
        self.among5 += after.among5
        self.agreed += after.agreed
        self.classes = after.classes or self.classes
        self.labelled |= after.labelled
        self.compared |= after.compared

    def _keep(self, one: Kept) -> None:
        """Take in a flip, and let the one go that the reference was least sure of where they become too many."""
        if len(self.flips) < MOST_FLIPS:
            heapq.heappush(self.flips, one)
        else:
            heapq.heappushpop(self.flips, one)

    def add(self, logits: NDArray[Any], labels: NDArray[Any] | None, reference: NDArray[Any] | None, names: Sequence[str]) -> None:
        """Count N samples.

        Args:
            logits: (N, K) of the artefact, with N at least 1.
            labels: (N,) integers from 0 to K - 1, or None.
            reference: (N, K) logits of the reference, or None.
            names: N names of samples, for the flips; looked at for those alone.

        Raises:
            InputError: a shape or a type is another, or a label is none of the K classes.
        """
        if logits.ndim != 2 or 0 in logits.shape or logits.dtype.kind not in "fiu":
            raise InputError(
                f"logits have the shape {logits.shape} and the type {logits.dtype}; expected (samples, classes), both at least 1",
                remedy="accuracy needs a classifier: an output of one real logit for each class",
            )
        samples, self.classes = logits.shape
        if len(names) != samples:
            raise InputError(f"{samples} samples have {len(names)} names")
        if labels is not None:
            self.labelled = True
            _check_labels(labels, samples, self.classes)
            rank = _rank(logits, labels)
            self.right += int((rank == 0).sum())
            self.among5 += int((rank < 5).sum())
        if reference is not None:
            self.compared = True
            self._compare(logits, labels, reference, names)
        self.samples += samples

    def _compare(self, logits: NDArray[Any], labels: NDArray[Any] | None, reference: NDArray[Any], names: Sequence[str]) -> None:
        import numpy as np

        if reference.shape != logits.shape or reference.dtype.kind not in "fiu":
            raise InputError(
                f"the reference's logits are {reference.shape} {reference.dtype}, the artefact's {logits.shape} {logits.dtype}",
                remedy="run both on the same samples",
            )
        ours, theirs = _first(logits), _first(reference)
        differ = np.flatnonzero((ours != theirs) | (ours < 0))
        self.agreed += len(logits) - len(differ)
        for i in map(int, differ):
            flip = Flip(
                # A file name that is not UTF-8 would not go into the report.
                image=printable(names[i]),
                label=None if labels is None else int(labels[i]),
                reference=int(theirs[i]),
                artifact=int(ours[i]),
                margin=_margin(reference[i]),
            )
            self._keep(Kept(self.samples + i, flip))

    def result(self) -> Accuracy:
        """What was counted so far; at least one sample must have been."""
        samples, classes = self.samples, self.classes
        top1 = top5 = agreement = interval = agreement_interval = None
        if self.labelled:
            top1, interval = self.right / samples, wilson(self.right, samples)
            if classes >= FEWEST_CLASSES_FOR_TOP5:
                top5 = self.among5 / samples
        if self.compared:
            agreement, agreement_interval = self.agreed / samples, wilson(self.agreed, samples)
        return Accuracy(
            samples=samples,
            top1=top1,
            top5=top5,
            agreement=agreement,
            interval=interval,
            agreement_interval=agreement_interval,
            flips=tuple(one.flip for one in sorted(self.flips, key=lambda one: one.place)),
        )


def printable(name: str) -> str:
    """A file name as a report can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def _check_labels(labels: NDArray[Any], samples: int, classes: int) -> None:
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels have the shape {labels.shape} and the type {labels.dtype}; expected {samples} integers", remedy="label every sample"
        )
    if outside := sorted({int(label) for label in labels if not 0 <= label < classes}):
        raise InputError(
            f"the model has {classes} classes, 0 to {classes - 1}; labels say {', '.join(map(str, outside[:10]))}",
            remedy="give the data that this model was trained for, or its class names in the order of the logits",
        )


def _rank(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """(N,) number of classes that come before the label's; K where the logits hold NaN."""
    import numpy as np

    of_label = np.take_along_axis(logits, labels.astype(np.int64)[:, None], 1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank: NDArray[np.int64] = ((logits > of_label) | ((logits == of_label) & earlier)).sum(1)
    rank[np.isnan(logits).any(1)] = logits.shape[1]
    return rank


def _first(logits: NDArray[Any]) -> NDArray[np.int64]:
    """(N,) index of the greatest logit, -1 where one is NaN."""
    import numpy as np

    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1))


def _margin(logits: NDArray[Any]) -> float:
    import numpy as np

    if len(logits) < 2 or np.isnan(logits).any():
        return 0.0
    second, first = (float(value) for value in np.sort(logits)[-2:])
    # JSON has no infinity; two infinite logits are a tie.
    return 0.0 if first == second else min(first - second, float(np.finfo(np.float64).max))

"""How far one output of an artefact is from the reference's, and whether that is too far: figures, as reports keep them."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from dtvit_deploy.artifacts.bounds import Cosine, Count, Magnitude, Natural, Share, unit

_OwnUnits = Annotated[Magnitude, unit("the output's own")]
_Decibels = Annotated[float, unit("dB")]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How far one output of an artefact is from the reference's, over some samples.

    Attributes:
        output: its name.
        feeds: which group of feeds (``images``, or an adversarial one by name).
        samples: how many feeds.
        max_abs, mean_abs: of |Δ|, in the output's own units; of whole numbers, the share of a sample's values that differ.
        max_rel: max |Δ| over the reference's largest magnitude.
        cosine: least cosine similarity of all samples.
        sqnr: signal over noise in dB over all samples; infinite when nothing differs.
        floor: noise floor of |Δ|, measured or, where that is more, what planted rounding errors come to; None for INT8.
        tolerance: the limit that ``max_abs`` is held against; None for INT8.
        least_sqnr: the limit that ``sqnr`` is held against; None where there is a tolerance.
        at: index of the largest |Δ|: the sample, then the position in the output.
        agreement: share of samples with the same top-1; None where the output is no row of class scores.
        near_ties: samples with another top-1 whose score in the reference lies within twice the tolerance of the best: either answer is
            right.
        passed, reason: whether the output is within the tolerance, and what to know if not.
    """

    output: str
    feeds: str
    samples: Natural
    max_abs: _OwnUnits
    mean_abs: _OwnUnits
    max_rel: Annotated[Magnitude, unit("1")]
    cosine: Cosine
    sqnr: _Decibels
    floor: _OwnUnits | None
    tolerance: _OwnUnits | None
    at: tuple[Annotated[Count, unit("index")], ...]
    agreement: Share | None
    near_ties: Count
    passed: bool
    reason: str = ""
    least_sqnr: _Decibels | None = None

    @property
    def title(self) -> str:
        """What was compared, as its gate is called behind the artefact's name."""
        return f"parity of {self.output!r} on {self.feeds}"

    @property
    def reached(self) -> str:
        """What was measured beside the limit that it kept to."""
        if self.tolerance is None:
            return f"SQNR {self.sqnr:.3g} dB, at least {self.least_sqnr:g} dB asked"
        return f"max |Δ| {self.max_abs:.2g} ≤ {self.tolerance:.2g}"

    @property
    def excess(self) -> float:
        """Max |Δ| over the tolerance, or the noise over what the least SQNR leaves to it; more than 1 is too much."""
        if self.tolerance is None:
            return 10 ** min((self.least_sqnr - self.sqnr) / 20, 300.0) if self.least_sqnr is not None else 0.0
        if self.tolerance == 0:
            return math.inf if self.max_abs else 0.0
        return self.max_abs / self.tolerance

    @property
    def agreeing(self) -> int | None:
        """How many samples have the same top-1, near-ties among them; None where the output is no row of scores."""
        return None if self.agreement is None else min(self.samples, round(self.agreement * self.samples) + self.near_ties)

    @property
    def decided_agreement(self) -> float | None:
        """Top-1 agreement when near-ties count as agreement."""
        return None if self.agreeing is None else self.agreeing / self.samples

"""Does an artefact answer as the reference does, and how far apart may they be?

No constant tolerance: 1e-5 cries wolf on one network and hides a bug in another. The limit is a *measured noise floor* times a stated
factor. The floor is what the same network moves by when nothing is wrong with it:

* for FP32, the greatest of |torch FP32 - torch FP64| and |torch FP32 - torch FP32 at another thread count|, and at least what planted
  rounding errors move the answer by (:mod:`dtvit_deploy.runtimes.torch.roundoff`): torch may be exact by luck;
* for FP16 and BF16, |ideal FP16 - torch FP64|, where ideal means every tensor that fits rounded and every operator computed in FP32.

Rounding errors of two correct implementations are draws from one distribution, of which the floor saw a few images; the factors
leave room for the extremes of more images and for other orders of summation. Whole numbers (an index, a mask) are the same or they
are not: their floor is the share that the ideal evaluation itself changes, most often none. A floor that is itself a large part of
the answer means that the network cannot be run in that precision, and that is reported as such, never as a wide tolerance.

INT8 has no such floor: what it rounds away depends on the ranges that somebody calibrated, and clipping a rare extreme may be the better
choice. Its answers are held to a least signal to noise ratio (:data:`LEAST_SQNR`), which a wrong scale or a misplaced zero point
misses by far, and its decisions to top-1 agreement on real input, of which the verdict always has a gate (:mod:`dtvit_deploy.recipe`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.difference import Difference as Difference
from dtvit_deploy.harness.distance import cosine, magnitude, moved, noise_floor, sqnr, top1
from dtvit_deploy.harness.verdict import percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Outputs

FACTOR = {Precision.FP32: 8.0, Precision.FP16: 4.0, Precision.BF16: 4.0}
"""Tolerance in multiples of the noise floor (docs/adr/0005, with the measurements behind it)."""
LEAST_SQNR, LEAST_SQNR_ELSEWHERE = 10.0, 0.0
"""dB that INT8 is held to: on real input noise of a tenth of the signal's power; on feeds far from what any range was calibrated on, where
it clips, noise of the signal's own."""
REAL = ("images", "feeds")
"""Groups of feeds that a user gave; the others are adversarial, or noise."""
ROUNDOFF = {Precision.FP32: 2.0**-24, Precision.FP16: 2.0**-11, Precision.BF16: 2.0**-8, Precision.INT8: 2.0**-8}
"""Unit roundoff: no tolerance is below this share of the output's largest magnitude, since the last place itself may differ."""
MOST_CHANGED = 0.01
"""Share of whole numbers that INT8 may change; of its top-1 decisions it may change as many."""
LARGEST_FLOOR = 0.1
"""A noise floor above this share of the output's largest magnitude means that the precision cannot carry the network."""


def way_out(name: str, amount: str = "NUMBER") -> str:
    """How a user sets the limit of an output, for the end of a reason: where an answer is ranked, nothing measured says what may change."""
    return f"; --tolerance {name}={amount} sets another limit (in a recipe: parity.tolerance)"


def stack(runs: Sequence[Outputs]) -> dict[str, NDArray[Any]]:
    """One array (samples, …) for each output, from one run for each sample."""
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}


def difference(
    name: str,
    feeds: str,
    reference: NDArray[Any],
    answer: NDArray[Any],
    floor: float,
    precision: Precision,
    *,
    planted: float = 0.0,
    largest: float = 0.0,
    asked: float | None = None,
    decides: bool = True,
) -> Difference:
    """Compare (samples, …) arrays of one output.

    Args:
        reference: torch FP32's answers.
        answer: the artefact's.
        floor: see :func:`dtvit_deploy.harness.distance.noise_floor`.
        precision: the artefact's, which sets the factor, or the least SQNR in its place.
        planted: what planted rounding errors move the output by, a lower bound of the floor. It raises no tolerance above a tenth
            (:data:`LARGEST_FLOOR`) of the largest answer; to adversarial feeds, of the largest on any feed.
        largest: greatest magnitude of this output on any feed, where these are not the only ones.
        asked: the tolerance that the user sets in place of one that is measured, in the output's units; of whole numbers, the share of a
            sample's values that may differ.
        decides: whether a row's greatest entry is a decision, as that of class scores is (`dtvit_deploy.harness.class_scores`).

    Raises:
        InputError: the arrays have other shapes; numpy would repeat the smaller.
    """
    if reference.shape != answer.shape:
        raise InputError(
            f"{name} is {'×'.join(map(str, answer.shape))} in the artefact and {'×'.join(map(str, reference.shape))} in the reference,"
            " samples first",
            remedy="export the artefact again",
        )
    if not np.issubdtype(reference.dtype, np.floating):
        return _whole_numbers(name, feeds, reference, answer, floor, precision, asked)
    one, two = reference.astype(np.float64), answer.astype(np.float64)
    samples, scale = len(one), magnitude(one)
    least = ROUNDOFF[precision] * scale
    # An answer to an adversarial feed may be next to nothing; FP32 carries the network if its noise is small beside the other answers.
    carried = max(scale, largest) if precision is Precision.FP32 and feeds not in REAL else scale
    measured = floor
    if precision in FACTOR and math.isfinite(planted):
        beside = scale if feeds in REAL else max(scale, largest)
        floor = max(floor, min(planted, LARGEST_FLOOR * beside / FACTOR[precision]))
    own = FACTOR[precision] * max(floor, least) if precision in FACTOR else None
    tolerance = own if asked is None else asked
    least_sqnr = (LEAST_SQNR if feeds in REAL else LEAST_SQNR_ELSEWHERE) if tolerance is None else None
    ratio = sqnr(one, two)
    delta = moved(one, two)
    worst = magnitude(delta)
    # NaN compares false with everything: rank it above every number, so that the place named is the one that matters.
    ranked = np.where(np.isfinite(delta), delta, np.inf)
    at = tuple(int(index) for index in np.unravel_index(int(np.argmax(ranked)), delta.shape)) if delta.size else ()
    agreement, near_ties = top1(one, two, own or 0.0) if decides else (None, 0)
    source = f"the last place of {scale:.2g}" if floor < least else f"floor {floor:.2g}"
    source += ", by planted rounding errors" if floor > max(measured, least) else ""
    source = f"{FACTOR.get(precision, 1):g} × {source}" if asked is None else "as asked"
    reason = ""
    if not np.isfinite(one).all():
        reason = f"the reference itself is NaN or infinite in {int((~np.isfinite(one)).sum())} of {one.size} values"
        # An attention mask that is read from the input hides everything in a feed of zeros, say.
        reason += "" if feeds in REAL else "; where the network is not made for such a feed, --no-adversarial leaves it out"
    elif not np.isfinite(two).all():
        reason = f"{int((~np.isfinite(two)).sum())} of {two.size} values are NaN or infinite"
    elif least_sqnr is not None and not ratio >= least_sqnr:
        reason = f"SQNR {ratio:.3g} dB is less than the {least_sqnr:g} dB that what is quantised is held to"
    elif tolerance is not None and asked is None and measured > LARGEST_FLOOR * max(carried, float(np.finfo(np.float32).tiny)):
        reason = (
            f"{precision} cannot carry this network: its own noise floor {measured:.2g} is more than {LARGEST_FLOOR:.0%}"
            f" of the largest output, {carried:.2g}"
            if math.isfinite(measured)
            else f"{precision} cannot carry this network: evaluated in it, the program is no longer finite"
        )
    elif tolerance is not None and not worst <= tolerance:
        reason = f"max |Δ| {worst:.3g} at {list(at)} exceeds the tolerance {tolerance:.3g} ({source})"
    return Difference(
        output=name,
        feeds=feeds,
        samples=samples,
        max_abs=worst,
        mean_abs=float(delta.mean()) if delta.size else 0.0,
        max_rel=worst / scale if scale else (0.0 if worst == 0 else math.inf),
        cosine=min(map(cosine, one, two)),
        sqnr=ratio,
        floor=floor if precision in FACTOR else None,
        tolerance=tolerance,
        at=at,
        agreement=agreement,
        near_ties=near_ties,
        passed=not reason,
        reason=reason,
        least_sqnr=least_sqnr,
    )


def _whole_numbers(
    name: str, feeds: str, reference: NDArray[Any], answer: NDArray[Any], floor: float, precision: Precision, asked: float | None
) -> Difference:
    """Where 999 is meant, 998 is as wrong as 3: |Δ| is the share of values that differ, of one sample, or for INT8 of all samples."""
    differs = reference != answer  # before any conversion: float64 cannot tell 2**53 from the next integer
    shares = differs.reshape(len(differs), -1).mean(1)
    measured = precision in FACTOR or asked is not None
    worst = float(shares.max(initial=0.0)) if measured else float(shares.mean())
    tolerance = asked if asked is not None else FACTOR[precision] * floor if measured else MOST_CHANGED
    one, two = reference.astype(np.float64), answer.astype(np.float64)
    reason = ""
    if floor > LARGEST_FLOOR and asked is None:  # of a single index that is every floor but none
        reason = f"{precision} cannot carry this output: evaluated in it, {floor:.0%} of the {reference.dtype} values change"
    elif worst > tolerance:
        limit = f"{FACTOR[precision]:g} × floor {floor:.2g}" if precision in FACTOR else f"what {precision} may change"
        limit = "as asked" if asked is not None else limit
        count = shares.size and differs.size // shares.size if measured else differs.size  # of one sample, or of all
        may = f"{math.floor(round(tolerance * count, 9))} may be: {percent(tolerance)}, {limit}"
        reason = (
            f"{round(worst * count)} of {count} {reference.dtype} values{' of a sample' if measured else ''} are others, and at most {may};"
            f" whole numbers have no last place{'' if asked is not None else way_out(name, 'SHARE')}"
        )
    return Difference(
        output=name,
        feeds=feeds,
        samples=len(reference),
        max_abs=worst,
        mean_abs=float(shares.mean()),
        max_rel=worst,
        cosine=min(map(cosine, one, two)),
        sqnr=sqnr(one, two),
        floor=floor if precision in FACTOR else None,
        tolerance=tolerance,
        at=tuple(int(index) for index in np.unravel_index(int(np.argmax(differs)), differs.shape)) if differs.size else (),
        agreement=None,
        near_ties=0,
        passed=not reason,
        reason=reason,
    )


def compare_outputs(
    reference: Mapping[str, Sequence[Outputs]],
    answers: Mapping[str, Sequence[Outputs]],
    floors: Mapping[str, Sequence[tuple[Outputs, Outputs]]],
    precision: Precision,
    *,
    planted: Mapping[str, Sequence[tuple[Outputs, Outputs]]] | None = None,
    tolerances: Mapping[str, float] | None = None,
    deciding: Collection[str] | None = None,
) -> tuple[Difference, ...]:
    """Compare every output in every group of feeds.

    Args:
        reference, answers: one run for each sample, by group of feeds.
        floors: pairs of runs that ought to be equal, by group.
        precision: the artefact's.
        planted: pairs of runs without and with planted rounding errors, by group: a lower bound of the floor.
        tolerances: greatest |Δ| that the user allows of an output, in place of a measured one.
        deciding: outputs that are class scores; None takes every row for one.
    """
    found = []
    expected = {group: stack(runs) for group, runs in reference.items()}
    for group, arrays in expected.items():
        got = stack(answers[group])
        for name, array in arrays.items():
            floating = np.issubdtype(array.dtype, np.floating)
            found.append(
                difference(
                    name,
                    group,
                    array,
                    got[name],
                    noise_floor((one[name], other[name]) for one, other in floors[group]),
                    precision,
                    planted=noise_floor((one[name], other[name]) for one, other in (planted or {}).get(group, ()) if floating),
                    largest=max(magnitude(each[name]) for each in expected.values()) if floating else 0.0,
                    asked=(tolerances or {}).get(name),
                    decides=deciding is None or name in deciding,
                )
            )
    return tuple(found)

"""The gates that an artefact is held to: those that follow from what was measured of it, and those that a recipe sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.class_scores import called_so
from dtvit_deploy.harness.latency import Measurement
from dtvit_deploy.harness.parity import REAL, Difference
from dtvit_deploy.harness.verdict import NOT_MEASURED, Gate, at_least, at_most, enough, few_enough, holds, needed
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.judging import Gates, Limits

if TYPE_CHECKING:
    from dtvit_deploy.pipeline.figures import Figures

CLASS_SCORES = "in a recipe: parity.class_scores"


def not_measured(asked: Limits, held: list[Gate], name: str) -> list[Gate]:
    """A gate that fails for every limit that a recipe sets and that nothing measured could be held to."""
    said = {"agreement": "top-1 agreement", "max_abs": "max |Δ| of", "cosine": "cosine of", "top1_drop": "loss of top-1", "p50_ms": "p50"}
    kinds = {"agreement": at_least, "cosine": at_least}
    return [
        kinds.get(limit, at_most)(f"{name}: {words} (gate {limit!r} of the recipe)", None, getattr(asked, limit))
        for limit, words in said.items()
        if getattr(asked, limit) is not None and not any(gate.name.startswith(f"{name}: {words}") for gate in held)
    ]


def gates_for(gates: Gates, figures: Figures) -> Gates:
    """Those gates of a recipe that figures are taken for; a command that takes others is not held to the rest."""
    taken = {
        "agreement": figures.parity or figures.accuracy,
        "max_abs": figures.parity,
        "cosine": figures.parity,
        "top1_drop": figures.accuracy,
        "p50_ms": figures.latency,
    }
    none = {name: None for name, is_taken in taken.items() if not is_taken}
    limits = {name: msgspec.structs.replace(limit, **none) for name, limit in msgspec.structs.asdict(gates).items()}
    return msgspec.structs.replace(gates, **limits)


def disagrees(limits: Limits, parity: tuple[Difference, ...]) -> bool:
    """Whether outputs are wrong, so that one asks where inside they become so: beyond their tolerance, or with other decisions."""
    least = limits.agreement or 0.0
    return any(not one.passed or (one.agreeing is not None and one.agreeing < needed(one.samples, least)) for one in parity)


def gates_of(
    limits: Limits,
    parity: tuple[Difference, ...],
    accuracy: Accuracy | None,
    reference: Accuracy | None,
    latency: Measurement | None,
    name: str,
) -> list[Gate]:
    """The gates that what was measured can be held to."""
    label = f"{name}: "
    found = [holds(f"{label}{one.title}", one.passed, one.reason or one.reached) for one in parity]
    real = [one for one in parity if one.feeds in REAL]
    if limits.agreement is not None:
        found += [_agreement(label, one, limits.agreement) for one in real if one.agreement is not None]
        if not real and any(one.agreement is not None and one.tolerance is None for one in parity):
            # Without a tolerance, nothing but agreement says that the decisions are still the same.
            found.append(at_least(f"{label}top-1 agreement on real input (give --data)", None, limits.agreement))
        if accuracy is not None:
            found.append(enough(f"{label}top-1 agreement over all images", accuracy.agreeing, accuracy.samples, limits.agreement))
    if limits.max_abs is not None:
        found += [at_most(f"{label}max |Δ| of {one.output!r} on {one.feeds}", one.max_abs, limits.max_abs) for one in real]
    if limits.cosine is not None:
        found += [at_least(f"{label}cosine of {one.output!r}", one.cosine, limits.cosine) for one in real]
    if limits.top1_drop is not None and accuracy is not None and reference is not None:
        found.append(_loss(f"{label}loss of top-1", accuracy, reference, limits.top1_drop))
    if limits.p50_ms is not None and latency is not None:
        valid = latency.status == "VALID"
        absent = f"{NOT_MEASURED}: {latency.why_invalid}"
        found.append(at_most(f"{label}p50", latency.p50 if valid else None, limits.p50_ms, "ms", absent=absent))
    return found


def _agreement(label: str, one: Difference, least: float) -> Gate:
    """A gate on an output's decisions, which says what the output is taken for where its name does not."""
    gate = enough(f"{label}top-1 agreement of {one.output!r}, near-ties apart", one.agreeing, one.samples, least)
    if gate.passed or called_so(one.output):
        return gate
    way_out = f"; {one.output!r} is taken for class scores: where it is none, say which is by --class-scores NAME or none ({CLASS_SCORES})"
    return msgspec.structs.replace(gate, reason=gate.reason + way_out)


def _loss(name: str, accuracy: Accuracy, reference: Accuracy, share: float) -> Gate:
    """In images, since a share of a few dozen may be less than one."""
    if accuracy.right is None or reference.right is None:
        return few_enough(name, None, accuracy.samples, share)
    told = f"{accuracy.right:,} right, where the reference has {reference.right:,}"
    return few_enough(name, reference.right - accuracy.right, accuracy.samples, share, told)


def measured_at_all(taken: Mapping[str, Measurement]) -> Gate:
    """What a command that takes latencies alone is held to: that there is one to believe.

    Args:
        taken: by the name of each artefact; at least one.
    """
    wrong = [f"; {name}: {one.why_invalid}" for name, one in taken.items() if one.status != "VALID"]
    valid = len(taken) - len(wrong)
    told = f"{valid or 'none'} of {counted(len(taken), 'measurement')} {'are' if valid > 1 else 'is'} VALID{''.join(wrong)}"
    advice = "" if valid else "; measure again with less beside it, for longer (--seconds), or with more samples (--samples)"
    return holds("a latency to believe", valid > 0, told + advice)

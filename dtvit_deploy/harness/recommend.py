"""Which artefact of a runtime to ship: INT8 where it earned its place, the fastest sound float artefact otherwise.

INT8 on a small transformer is often slower than float, since every conversion costs and every product is small. It earns its place by
two proofs, from one run: top-1 of at least 99 % of the float network's, and a median latency below that of the same runtime's fastest
float artefact, the whole 95 % interval of their ratio below 1.

Where a runtime is only emulated, the second proof cannot be had: no gate fails for it, and the advice is to measure on the device.
Where a latency is INVALID it is not known, so that nothing is recommended by it: what is left to choose from is named, and why nobody can
choose yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dtvit_deploy.artifacts.artifact import called
from dtvit_deploy.artifacts.target import BUILT, Precision, Target
from dtvit_deploy.harness.accuracy import Accuracy
from dtvit_deploy.harness.latency import Measurement, ratio
from dtvit_deploy.harness.verdict import Gate, holds, needed, percent

LEAST_TOP1 = 0.99
"""Share of the float network's top-1; MLPerf Inference asks the same of edge systems."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artefact as it was measured.

    Attributes:
        runtime: candidates of one runtime compete; its name is the target's.
        where: `` in coreml-ne`` for one that was loaded in a runtime that was asked for: it competes with those that were loaded there too.
        precision: INT8 is the one that has to earn its place.
        name: as tables show it.
        products: products that are INT8; 0 for a float artefact.
        sound: whether all its own gates passed.
        emulated: whether another runtime answered for its own, so that it has no latency.
    """

    runtime: str
    name: str
    file: str
    precision: Precision
    products: int
    sound: bool
    accuracy: Accuracy | None
    latency: Measurement | None
    emulated: bool = False
    where: str = ""

    @property
    def quantised(self) -> bool:
        return self.precision is Precision.INT8


class Recommendation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to ship for one runtime.

    Attributes:
        runtime: the target's name, and where else it was loaded (`` in coreml-ne``).
        file: the artefact's; empty when none of them is sound, and when it is not decided.
        reason: why it, and why not the others.
        decided: False where only a measurement can tell: one on the device, or one that is VALID.
    """

    runtime: str
    file: str
    reason: str
    decided: bool = True

    @property
    def place(self) -> str:
        """The runtime as a person calls it."""
        kind, within, where = self.runtime.partition(" in ")
        return f"{called(kind)}{within}{where}"

    @property
    def ship(self) -> str:
        """What to ship, in words."""
        return self.file or ("nothing" if self.decided else "not decided here")


def recommend(candidates: Sequence[Candidate], reference: Accuracy | None) -> tuple[tuple[Recommendation, ...], tuple[Gate, ...]]:
    """One recommendation and one gate for each INT8 artefact; no gate where all that it lacks is a latency that cannot be measured here.

    Args:
        candidates: artefacts measured in one run.
        reference: accuracy of the float reference on the same samples.
    """
    found, gates = [], []
    for runtime, where in dict.fromkeys((one.runtime, one.where) for one in candidates if one.quantised):
        here = [one for one in candidates if (one.runtime, one.where) == (runtime, where)]
        floats = [one for one in here if not one.quantised and one.sound]
        timed = [one for one in floats if _p50(one) is not None]
        fastest = min(timed, key=lambda one: _p50(one) or 0.0, default=None)
        for candidate in (one for one in here if one.quantised):
            if any(one.emulated for one in here):
                undecided, failed = _undecided(candidate, floats, reference)
                found.append(undecided)
                gates += failed
                continue
            earned, reason = _earns(candidate, fastest, reference)
            unknown = _unknown(runtime, here)
            if earned and unknown:
                earned, reason = False, f"{reason}, but {unknown}, so that no float artefact is faster is not shown"
            gates.append(holds(f"{candidate.file}{where}: INT8 earns its place", earned, reason))
            found.append(_shipped(candidate, floats, fastest, reference, earned=earned, reason=reason))
    return tuple(found), tuple(gates)


def _shipped(
    int8: Candidate, floats: Sequence[Candidate], fastest: Candidate | None, reference: Accuracy | None, *, earned: bool, reason: str
) -> Recommendation:
    """What to ship of what is executed: the fastest that is left, where the latency of all that are left is known."""
    place = f"{int8.runtime}{int8.where}"
    if not floats and not earned:
        words = f"no float artefact is sound, and {int8.name} is not recommended: {reason}"
        return Recommendation(runtime=place, file="", reason=words)
    left = [*floats, *(() if _is_out(int8, fastest, reference) else (int8,))]
    untimed = [one for one in left if _p50(one) is None]
    if untimed and len(left) > 1:
        names = " or ".join(one.name for one in left)
        words = f"{reason}; {names}: which is faster is not known, since {_why_untimed(untimed)}; measure again, with less beside it"
        return Recommendation(runtime=place, file="", reason=words, decided=False)
    chosen = int8 if earned else fastest or floats[0]
    return Recommendation(runtime=place, file=chosen.file, reason=f"{chosen.name}: {reason}")


def _is_out(int8: Candidate, fastest: Candidate | None, reference: Accuracy | None) -> bool:
    """Whether INT8 lost its place for good: by its answers, or to a float artefact that is known to be faster."""
    if _lost(int8, reference)[0]:
        return True
    if fastest is None or fastest.latency is None or int8.latency is None or _p50(int8) is None:
        return False
    return ratio(int8.latency, fastest.latency).high >= 1


def _why_untimed(untimed: Sequence[Candidate]) -> str:
    """Why latencies are not known, in words."""
    reasons = []
    for one in untimed:
        measured = "was not measured" if one.latency is None else f"is {one.latency.why_invalid}"
        reasons.append(f"the latency of {one.name} {measured}")
    return " and ".join(reasons)


def _undecided(int8: Candidate, floats: Sequence[Candidate], reference: Accuracy | None) -> tuple[Recommendation, list[Gate]]:
    """What can be said where a latency is wanting: INT8 can lose its place by its answers, and nothing can win one."""
    lost, kept = _lost(int8, reference)
    gates = [holds(f"{int8.file}{int8.where}: INT8 earns its place", False, kept)] if lost else []
    if lost and not floats:
        reason = f"no float artefact is sound, and {int8.name} is not recommended: {kept}"
        return Recommendation(runtime=f"{int8.runtime}{int8.where}", file="", reason=reason), gates
    if lost and len(floats) == 1:
        return Recommendation(runtime=f"{int8.runtime}{int8.where}", file=floats[0].file, reason=f"{floats[0].name}: {kept}"), gates
    left = " or ".join(one.name for one in (*floats, *(() if lost else (int8,))))
    reason = f"{kept}; {left}: which is faster must be measured on the device"
    return Recommendation(runtime=f"{int8.runtime}{int8.where}", file="", reason=reason, decided=False), gates


def _unknown(runtime: str, here: Sequence[Candidate]) -> str:
    """What could be faster and is not known to be slower: float precisions without an artefact, sound ones without a VALID latency."""
    built = BUILT.get(Target(runtime), ()) if runtime in {str(target) for target in Target} else ()
    absent = [str(one) for one in built if one is not Precision.INT8 and one not in {each.precision for each in here}]
    untimed = [one.name for one in here if not one.quantised and one.sound and _p50(one) is None]
    parts = ([f"{' and '.join(absent)} {'was' if len(absent) == 1 else 'were'} not built"] if absent else []) + (
        [f"the latency of {' and '.join(untimed)} is not VALID"] if untimed else []
    )
    return " and ".join(parts)


def _p50(one: Candidate) -> float | None:
    return one.latency.p50 if one.latency is not None and one.latency.status == "VALID" else None


def _lost(int8: Candidate, reference: Accuracy | None) -> tuple[bool, str]:
    """Whether INT8 lost its place before any latency is looked at, the first proof wanting; and what was found."""
    if not int8.products:
        return True, "nothing in it is INT8: every product is too small, gains no time, or was to stay in float"
    if not int8.sound:
        return True, "INT8 failed gates of its own"
    if int8.accuracy is None or int8.accuracy.top1 is None or reference is None or reference.top1 is None:
        return True, "INT8's top-1 was not measured on labelled images, so nothing says that it is kept"
    right, of = int8.accuracy.right or 0, reference.right or 0
    least = max(needed(of, LEAST_TOP1), 1)  # what never is right has nothing to keep
    kept = f"INT8 keeps {right / of if of else 0.0:.2%} of float's top-1 on {int8.accuracy.samples} images"
    less = f"{kept}, less than {LEAST_TOP1:.0%}: {right:,} right, where float has {of:,}; {least:,} needed for {percent(LEAST_TOP1)}"
    return right < least, less if right < least else kept


def _earns(int8: Candidate, fastest: Candidate | None, reference: Accuracy | None) -> tuple[bool, str]:
    """Whether both proofs are there, and what was found."""
    lost, kept = _lost(int8, reference)
    if lost:
        return False, kept
    if fastest is None or fastest.latency is None:
        return False, f"{kept}, but no sound float artefact of this runtime has a VALID latency to compare with"
    if int8.latency is None or _p50(int8) is None:
        why = "; ".join(int8.latency.reasons) if int8.latency else "it was not measured"
        return False, f"{kept}, but its latency is not known: {why}"
    times = ratio(int8.latency, fastest.latency)
    compared = f"takes {times} of the time of {fastest.name}, the fastest float artefact, {fastest.latency.p50:.2f} ms"
    if times.high >= 1:
        return False, f"{kept} and {compared}: {'it is slower' if times.low > 1 else 'that it is faster is not shown'}"
    return True, f"{kept} and {compared}"

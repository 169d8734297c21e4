"""Parity: every output of several artefacts beside the reference's, on real and on adversarial feeds."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.parity import Difference, compare_outputs, way_out
from dtvit_deploy.pipeline.expected import Expected, expected_of
from dtvit_deploy.pipeline.measure import Bench, Reference, check_feeds

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs, Signature


def parity(
    bench: Bench, samples: int, *, adversarial: bool = True, tolerances: Mapping[str, float] | None = None
) -> list[tuple[Difference, ...]]:
    """Every artefact's outputs against torch FP32's.

    Args:
        bench: artefacts, reference and material.
        samples: how many of the real samples.
        adversarial: whether each of the adversarial feeds too.
        tolerances: greatest |Δ| by output, in place of measured ones.

    Raises:
        InputError: a tolerance is given for an output that is none.
    """
    require_outputs(bench.material.signature, tolerances or {})
    some = bench.material.subset(samples)
    name = "images" if some.images else "feeds" if some.real else "noise"
    groups: dict[str, list[Feeds]] = {name: list(some.feeds())}
    groups |= {kind: [feed] for kind, feed in bench.material.adversarial().items()} if adversarial else {}
    judged = frozenset(artifact.manifest.judged_as for artifact in bench.artifacts)
    reference = Reference.of(bench, ranked=True, rounding=Precision.FP32 in judged)
    total = sum(map(len, groups.values()))
    expected = {group: expected_of(reference, bench.material.signature, group, feeds, bench.progress) for group, feeds in groups.items()}
    found = []
    for pairing in bench.pairings:
        with bench.open(pairing) as session:
            answers: dict[str, list[Outputs]] = {group: [] for group in groups}
            pairs_of = ((group, feed) for group, feeds in groups.items() for feed in feeds)
            for group, feed in bench.progress.track(pairs_of, pairing.name, total):
                answers[group].append(check_feeds(session, feed))
        precision = pairing.artifact.manifest.judged_as
        found.append(_judged(expected, answers, precision, reference, tolerances, bench.class_scores))
    return found


def _judged(
    expected: Mapping[str, Expected],
    answers: Mapping[str, Sequence[Outputs]],
    precision: Precision,
    reference: Reference,
    tolerances: Mapping[str, float] | None,
    deciding: Collection[str],
) -> tuple[Difference, ...]:
    """Within what was measured, or else within what planted rounding errors come to: those take longer than all the rest."""
    floor = reference.floor_of(precision)
    judge = functools.partial(
        compare_outputs,
        {group: one.beside(answers[group], floor, reference) for group, one in expected.items()},
        answers,
        {group: one.floors[floor] for group, one in expected.items()},
        precision,
        tolerances=tolerances,
        deciding=deciding,
    )
    found = judge()
    beyond = {one.feeds for one in found if not one.passed} if precision is Precision.FP32 else set()
    found = judge(planted={group: expected[group].planted() for group in beyond}) if beyond else found
    return tuple(_with_way_out(one, reference) for one in found)


def _with_way_out(one: Difference, reference: Reference) -> Difference:
    """An output that INT8 ranks otherwise, told with the limit that a user can set: its rows change places, which no SQNR allows for."""
    ranked = {name for ranking in reference.rankings for name in (*ranking.direct, *ranking.chosen)}
    if one.passed or one.least_sqnr is None or one.output not in ranked:
        return one
    return msgspec.structs.replace(one, reason=f"{one.reason}; its order is that of scores, which INT8 moves{way_out(one.output)}")


def require_outputs(signature: Signature, tolerances: Mapping[str, float]) -> None:
    """Refuse a tolerance for an output that is none."""
    names = [spec.name for spec in signature.outputs]
    if unknown := [name for name in tolerances if name not in names]:
        raise InputError(
            f"a tolerance was given for {', '.join(map(repr, unknown))}, which is no output", remedy=f"the outputs are {', '.join(names)}"
        )

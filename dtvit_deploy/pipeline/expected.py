"""What the reference answers to each group of feeds, how far rounding may move that, and what it ranked on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.distance import noise_floor
from dtvit_deploy.harness.parity import FACTOR, ROUNDOFF
from dtvit_deploy.harness.ranking import Ranked, cut, in_the_answers_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.artifacts.signature import Feeds, Outputs, Signature
    from dtvit_deploy.pipeline.measure import Reference
    from dtvit_deploy.pipeline.progress import Progress
    from dtvit_deploy.runtimes.torch.rankings import Ranking
    from dtvit_deploy.runtimes.torch.session import TorchSession

FLOOR_SAMPLES = 8
"""Real samples that the noise floor is measured on, besides the adversarial feeds."""
PLANTED_SAMPLES = 2
"""Of them, those that rounding errors are planted on: each takes about four times an evaluation in FP64."""
DRAWS = 2
"""How many times, with other signs."""
MOST_RUNS = 128
"""Evaluations that look up what the candidates of one tie would answer; of a wider tie, those with the highest scores are known."""

Pairs = list[tuple["Outputs", "Outputs"]]


@dataclass
class Expected:
    """One group of feeds.

    Attributes:
        feeds: the group.
        answers: torch FP32's, one for each.
        floors: pairs of runs that ought to be equal, by precision.
        planted: evaluates pairs in FP64, without and with planted rounding errors, once.
        inner: scores and indices of rankings, for each feed.
        ties: how far apart two scores may be that rounding cannot tell apart, by precision and by ranking.
    """

    feeds: Sequence[Feeds]
    answers: list[Outputs]
    floors: dict[Precision, Pairs]
    planted: Callable[[], Pairs]
    inner: list[Outputs]
    ties: dict[Precision, dict[str, float]]
    _known: dict[tuple[Precision, int], list[Ranked]] = field(default_factory=dict)

    def beside(self, got: Sequence[Outputs], precision: Precision, reference: Reference) -> list[Outputs]:
        """The answers to compare with those of an artefact: ties in the order that it chose."""
        return [
            in_the_answers_order(answer, other, self._ranked(index, precision, reference))
            for index, (answer, other) in enumerate(zip(self.answers, got, strict=True))
        ]

    def _ranked(self, index: int, precision: Precision, reference: Reference) -> list[Ranked]:
        if (precision, index) not in self._known:
            ties = self.ties[precision]
            self._known[precision, index] = [
                _ranked(one, self.inner[index], self.answers[index], ties[one.node], reference.fp32, self.feeds[index])
                for one in reference.rankings
            ]
        return self._known[precision, index]


def expected_of(reference: Reference, signature: Signature, group: str, feeds: Sequence[Feeds], progress: Progress) -> Expected:
    """Evaluate the reference in every arithmetic that it has."""
    from dtvit_deploy.runtimes.torch.roundoff import moved_by_rounding

    names = [spec.name for spec in signature.outputs]
    runs = [reference.fp32.run(feed) for feed in progress.track(feeds, f"torch FP32, {group}", len(feeds))]
    few = feeds[:FLOOR_SAMPLES]
    exact = [reference.fp64.run(feed) for feed in progress.track(few, f"noise floor, {group}", len(few))]
    rankings = reference.rankings
    moved: dict[Precision, list[tuple[Outputs, Outputs]]] = {}
    floors: dict[Precision, Pairs] = {}

    def exactly(index: int, run: Outputs) -> Outputs:
        """The exact answer where rankings decide as that run does, so that no floor is as wide as a tie."""
        return _exactly(reference.fp64, rankings, few[index], exact[index], run)

    for precision, perfect in reference.ideal.items():
        ideal = [perfect.run(feed) for feed in few]
        moved[precision] = list(zip(ideal, exact, strict=True))
        pairs = [(run, exactly(index, run)) for index, run in enumerate(ideal)]
        if precision is Precision.FP32:
            moved[precision] += zip(runs, exact, strict=False)
            pairs += [(run, exactly(index, run)) for index, run in enumerate(runs[: len(few)])]
            pairs += [] if rankings else zip(runs, ideal, strict=False)
        floors[precision] = pairs

    some = [(index, draw) for index in range(min(PLANTED_SAMPLES, len(few))) for draw in range(DRAWS)]

    @functools.cache
    def moved_by_planting() -> list[tuple[int, Outputs]]:
        tracked = progress.track(some, f"planted rounding errors, {group}", len(some))
        return [(index, moved_by_rounding(reference.fp64, few[index], ROUNDOFF[Precision.FP32], draw)) for index, draw in tracked]

    @functools.cache
    def planted() -> Pairs:
        return [(exactly(index, run), run) for index, run in moved_by_planting()]

    if rankings and reference.rounding:
        moved[Precision.FP32] += [(run, exact[index]) for index, run in moved_by_planting()]
    ties = {precision: {one.node: _tie(one, pairs, precision) for one in rankings} for precision, pairs in moved.items()}
    answers = [{name: run[name] for name in names} for run in runs]
    return Expected(feeds, answers, floors, planted, runs, ties)


def _exactly(fp64: TorchSession, rankings: Sequence[Ranking], feed: Feeds, exact: Outputs, run: Outputs) -> Outputs:
    chosen = [(one, run[one.indices]) for one in rankings]
    if all(np.array_equal(indices, exact[one.indices]) for one, indices in chosen):
        return exact
    return fp64.run_with(feed, chosen)


def _tie(one: Ranking, pairs: Pairs, precision: Precision) -> float:
    floor = noise_floor((run[one.scores], exact[one.scores]) for run, exact in pairs)
    largest = max((float(np.abs(exact[one.scores]).max(initial=0.0)) for _, exact in pairs), default=0.0)
    limit = 2 * FACTOR[precision] * max(floor, ROUNDOFF[precision] * largest)  # either score may be off by as much
    return limit if np.isfinite(limit) else 0.0


def _ranked(one: Ranking, inner: Outputs, answer: Outputs, tie: float, fp32: TorchSession, feed: Feeds) -> Ranked:
    scores = inner[one.scores].astype(np.float64) * (-1 if one.ascending else 1)
    scores, axis = (scores.reshape(-1), 0) if one.axis is None else (scores, one.axis)
    indices = inner[one.indices]
    spans = one.chosen
    rows = {name: place for name in spans if (place := _axis_of_ranks(cut(answer[name], spans[name]).shape, one)) is not None}
    candidates: NDArray[Any] = np.array([], np.int64)
    entries: dict[str, NDArray[Any]] = {}
    if rows and scores.size == scores.shape[axis] and indices.size:
        row, ranks = scores.reshape(-1), indices.reshape(-1)
        outside = np.setdiff1d(np.flatnonzero(row >= row[ranks].min() - tie), ranks)
        outside = outside[np.argsort(-row[outside], kind="stable")][: MOST_RUNS * len(ranks)]
        parts: dict[str, list[NDArray[Any]]] = {name: [cut(answer[name], spans[name])] for name in rows}
        if len(outside):
            again = fp32.from_there(feed, one)
            for start in range(0, len(outside), len(ranks)):
                some = outside[start : start + len(ranks)]
                told = again(np.resize(some, indices.shape))
                for name, place in rows.items():
                    parts[name].append(np.take(cut(told[name], spans[name]), range(len(some)), axis=place))
        candidates = np.concatenate([ranks, outside])
        entries = {name: np.concatenate(each, axis=rows[name]) for name, each in parts.items()}
    return Ranked(scores, axis, one.shape, indices, tie, one.direct, rows, spans, candidates, entries)


def _axis_of_ranks(shape: Sequence[int], one: Ranking) -> int | None:
    """The axis of an output along which it has an entry for each rank; None where nothing says which."""
    if one.axis is None or one.axis >= len(one.shape):
        return None
    ranks = one.shape[one.axis]
    places = [place for place, side in enumerate(shape) if side == ranks]
    return one.axis if one.axis in places else places[0] if len(places) == 1 else None

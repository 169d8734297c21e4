"""A plan is carried out: what is known is not done again, what does not depend on each other is done side by side, and what fails stops
nothing that can do without it.
"""

from __future__ import annotations

import bisect
import hashlib
import heapq
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.keys import is_invalid, key_of, kind_of, known
from dtvit_deploy.plan.performing import Order, as_data
from dtvit_deploy.plan.pool import LostError, Over, Pool
from dtvit_deploy.recipe.tables import Recipe

HOLD = 600.0
"""Seconds after which the cache hears again that the plan's results are in use."""
LOOKED_AT = 64
"""Stages that wait for room, of which one may find it before the first does; of a plan of thousands not all are asked each time."""


AGAIN = "taken again: INVALID"
"""State of a stage whose kept result is a latency that was INVALID."""


@dataclass
class Results:
    """What became of a plan's stages.

    Attributes:
        folders: results, by stage.
        failed: why stages failed, or could not be done, by stage.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)

    def missing(self, stage: Stage) -> dict[str, str]:
        """Why some of what a stage wants is not there, by stage."""
        return {name: str(self.failed[name]) for name in stage.wants if name in self.failed}


class NotDoneError(DeployError):
    """A stage could not be done, since one before it failed."""


def execute(
    plan: Plan,
    recipes: Sequence[Recipe],
    cache: Cache,
    pool: Pool,
    progress: Progress,
    anew: Collection[str] = (),
    needed: Collection[str] = (),
) -> Results:
    """Do every stage that is not known, once where several requests have it in common.

    Args:
        plan: what is to be done.
        recipes: the requests that it is of, in their order.
        cache: where results are.
        pool: who does stages.
        progress: told what begins.
        anew: stages that are done even where their result is known.
        needed: stages without which the others are of no use: where one fails, its error ends everything.

    Raises:
        DeployError: what one of ``needed`` failed of.
    """
    results, running = Results(), dict[str, Stage]()
    ahead, followers, number = _ahead(plan)
    ready = [number[name] for name, count in ahead.items() if not count]  # a heap: what comes first in the plan is begun first
    held: list[Stage] = []  # not known, and without room so far; in the order of the plan
    first: dict[tuple[str, bytes], str] = {}  # by what is to be done, the stage that does it
    twins: dict[str, list[str]] = {}  # of those, the stages of other requests that are the same
    again: set[str] = set()  # of those, the ones whose kept result is not believed
    stages, held_at = list(plan), time.monotonic()

    def over(name: str) -> None:
        for follower in followers[name]:
            ahead[follower] -= 1
            if not ahead[follower]:
                heapq.heappush(ready, number[follower])

    while ready or held or running:
        if ready:
            stage = stages[heapq.heappop(ready)]
            if (why := _hindered(stage, results)) is not None:
                results.failed[stage.name] = why
                over(stage.name)
                continue
            try:
                key = key_of(stage, results.folders, results.missing(stage))
            except InputError as error:  # a result was removed from the cache meanwhile
                results.failed[stage.name] = error
                over(stage.name)
                continue
            if stage.name not in anew and (found := known(cache, stage, key)) is not None:
                results.folders[stage.name] = found
                over(stage.name)
                continue
            if stage.name not in anew and is_invalid(cache, stage, key):
                again.add(stage.name)
            does = kind_of(stage), hashlib.sha256(msgspec.json.encode(key, order="sorted")).digest()
            if first.setdefault(does, stage.name) == stage.name:
                bisect.insort(held, stage, key=lambda one: number[one.name])
            elif first[does] in results.folders or first[does] in results.failed:
                _as(stage.name, first[does], results)
                over(stage.name)
            else:
                twins.setdefault(first[does], []).append(stage.name)
        elif (begun := next((stage for stage in held[:LOOKED_AT] if pool.room(stage, running.values())), None)) is not None:
            held.remove(begun)
            running[begun.name] = begun
            if begun.name in again:
                progress.step(f"{begun.name}: taken again, since the one that is kept is INVALID")
            progress.step(f"{len(results.folders) + len(results.failed) + len(running)} of {len(plan)}: {begun.name}")
            pool.begin(_order(begun, recipes, results, cache, anew=begun.name in anew))
        else:
            ended = pool.next()
            _settle(ended, results, running, needed)
            over(ended.name)
            for twin in twins.pop(ended.name, ()):
                _as(twin, ended.name, results)
                over(twin)
            if time.monotonic() - held_at > HOLD:
                held_at = time.monotonic()
                cache.hold(results.folders.values())
    return results


def _as(name: str, other: str, results: Results) -> None:
    """A stage ends as another has that did the same."""
    if other in results.folders:
        results.folders[name] = results.folders[other]
    else:
        results.failed[name] = results.failed[other]


def _ahead(plan: Plan) -> tuple[dict[str, int], dict[str, list[str]], dict[str, int]]:
    """Of each stage how many come before it, those that come after it, and its place in the plan."""
    followers: dict[str, list[str]] = {stage.name: [] for stage in plan}
    ahead = {}
    for stage in plan:
        before = set(stage.before)
        ahead[stage.name] = len(before)
        for name in before:
            followers[name].append(stage.name)
    return ahead, followers, {name: place for place, name in enumerate(followers)}


def _settle(over: Over, results: Results, running: dict[str, Stage], needed: Collection[str]) -> None:
    running.pop(over.name)
    if over.result is not None:
        results.folders[over.name] = Path(over.result)
        return
    assert over.error is not None
    if over.name in needed or not isinstance(over.error, InputError | MissingError | LostError):
        raise over.error  # of this program or of the machine: nothing that follows would be worth anything
    results.failed[over.name] = over.error


def _hindered(stage: Stage, results: Results) -> Exception | None:
    """Why a stage cannot be done; None where it can."""
    for name in stage.needs:
        if name in results.failed:
            return NotDoneError(f"{name} is missing: {results.failed[name]}")
    wanted = [name for name in stage.wants if name in results.folders]
    if stage.wants and not wanted:
        return NotDoneError(f"none of {', '.join(stage.wants)} is there")
    return None


def _order(stage: Stage, recipes: Sequence[Recipe], results: Results, cache: Cache, *, anew: bool) -> Order:
    return Order(
        stage=stage,
        recipe=as_data(recipes[stage.request]),
        given={name: str(results.folders[name]) for name in (*stage.needs, *stage.wants) if name in results.folders},
        missing=results.missing(stage),
        cache=str(cache.root.absolute()),
        anew=anew,
    )


def states(plan: Plan, cache: Cache) -> dict[str, str]:
    """Of each stage whether its result is known: ``known``, ``to do``, `AGAIN`, ``anew`` each time, or ``after`` one of these.

    Nothing is done for it. What depends on a stage that is done anew may be known all the same, by what comes of it.
    """
    found: dict[str, str] = {}
    folders: dict[str, Path] = {}
    for stage in plan:
        taken = (*stage.needs, *stage.wants)
        if not folders.keys() >= set(taken):
            found[stage.name] = "after"
        elif (result := known(cache, stage, key_of(stage, folders, {}))) is not None:
            folders[stage.name] = result
            found[stage.name] = "known"
        else:
            found[stage.name] = "anew" if stage.anew else AGAIN if is_invalid(cache, stage, key_of(stage, folders, {})) else "to do"
    return found

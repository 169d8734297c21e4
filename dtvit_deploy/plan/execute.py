"""A plan is carried out: what is known is not done again, what does not depend on each other is done side by side, and what fails stops
nothing that can do without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of, known
from dtvit_deploy.plan.performing import Order, as_data
from dtvit_deploy.plan.pool import Over, Pool
from dtvit_deploy.recipe.tables import Recipe


@dataclass
class Results:
    """What became of a plan's stages.

    Attributes:
        folders: results, by stage.
        failed: why stages failed, or could not be done, by stage.
        done: stages that were done now, and not found in the cache, in the order in which they ended.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def over(self, name: str) -> bool:
        return name in self.folders or name in self.failed

    def missing(self, stage: Stage) -> dict[str, str]:
        """Why some of what a stage wants is not there, by stage."""
        return {name: str(self.failed[name]) for name in stage.wants if name in self.failed}


class NotDoneError(DeployError):
    """A stage could not be done, since one before it failed."""


def execute(plan: Plan, recipes: Sequence[Recipe], cache: Cache, pool: Pool, progress: Progress, anew: Collection[str] = ()) -> Results:
    """Do every stage that is not known.

    A stage that measures time runs alone; others run side by side as the pool's size and this machine's memory allow.

    Args:
        plan: what is to be done.
        recipes: the requests that it is of, in their order.
        cache: where results are.
        pool: who does stages.
        progress: told what begins.
        anew: stages that are done even where their result is known.
    """
    results, running, looked_up = Results(), dict[str, Stage](), set[str]()
    left, memory = list(plan), _memory()
    while left or running:
        for stage in list(left):
            if not all(results.over(name) for name in stage.before):
                continue
            if (why := _hindered(stage, results)) is not None:
                results.failed[stage.name] = why
            elif stage.name not in anew and stage.name not in looked_up and (found := _known(cache, stage, results)) is not None:
                results.folders[stage.name] = found
            elif _fits(stage, running, pool.size, memory):
                running[stage.name] = stage
                progress.step(stage.name)
                pool.begin(_order(stage, recipes, results, cache, anew=stage.name in anew))
            else:
                looked_up.add(stage.name)
                continue
            left.remove(stage)
            break  # what is over may have made an earlier one ready
        else:
            _settle(pool.next(), results, running)
    return results


def _known(cache: Cache, stage: Stage, results: Results) -> Path | None:
    return known(cache, stage, results.folders, results.missing(stage))


def _settle(over: Over, results: Results, running: dict[str, Stage]) -> None:
    running.pop(over.name)
    results.done.append(over.name)
    if over.result is not None:
        results.folders[over.name] = Path(over.result)
        return
    assert over.error is not None
    if not isinstance(over.error, InputError | MissingError):
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


def _fits(stage: Stage, running: Mapping[str, Stage], size: int, memory: int) -> bool:
    if not running:
        return True
    if stage.cost.exclusive or any(one.cost.exclusive for one in running.values()):
        return False
    together = [stage, *running.values()]
    return sum(one.cost.cores for one in together) <= size and sum(one.cost.memory for one in together) <= memory


def _order(stage: Stage, recipes: Sequence[Recipe], results: Results, cache: Cache, *, anew: bool) -> Order:
    return Order(
        stage=stage,
        recipe=as_data(recipes[stage.request]),
        given={name: str(results.folders[name]) for name in (*stage.needs, *stage.wants) if name in results.folders},
        missing=results.missing(stage),
        cache=str(cache.root.absolute()),
        # A result that is there and not believed, a latency that was INVALID, is put in its place too.
        anew=anew or (not stage.anew and cache.known(kind_of(stage), key_of(stage, results.folders, results.missing(stage))) is not None),
    )


def _memory() -> int:
    """Bytes that can be had now; by what is built in where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        return int(found[1]) << 10 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 8 << 30


def states(plan: Plan, cache: Cache) -> dict[str, str]:
    """Of each stage whether its result is known: ``known``, ``to do``, or ``after`` what is to do, which only then can tell.

    Nothing is done for it. A stage that is done anew each time is ``to do``, and what depends on it waits for what comes of it.
    """
    found: dict[str, str] = {}
    folders: dict[str, Path] = {}
    for stage in plan:
        taken = (*stage.needs, *stage.wants)
        if not folders.keys() >= set(taken):
            found[stage.name] = "after"
        elif (result := known(cache, stage, folders, {})) is not None:
            folders[stage.name] = result
            found[stage.name] = "known"
        else:
            found[stage.name] = "to do"
    return found

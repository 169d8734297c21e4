"""One stage is done: its result is built into the cache, and is there under its key from then on."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import content_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import printable
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.files import require_unchanged
from dtvit_deploy.plan.graph import Stage, last
from dtvit_deploy.plan.keys import key_of, kind_of, known
from dtvit_deploy.plan.work import Task, function_of
from dtvit_deploy.process.machine import MACHINE, at_work
from dtvit_deploy.recipe.tables import Recipe


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A stage to be done, as it is sent to whoever does it.

    Attributes:
        stage: what is done.
        recipe: of which request, as `as_data` has it.
        given: results of the stages before it that are there, by name.
        missing: why others that it wants are not there, by name.
        cache: root of the cache that the results are in.
        anew: whether it is done although a result is known.
        worker: who does it, for figures to say; empty on the machine that asked.
    """

    stage: Stage
    recipe: dict[str, Any]
    given: dict[str, str]
    missing: dict[str, str]
    cache: str
    anew: bool = False
    worker: str = ""


def perform(order: Order, progress: Progress) -> Path:
    """Do a stage, and return where its result is; one that measures time alone on this machine, as far as that is this user's.

    Raises:
        DeployError: what its function raises.
    """
    stage, given = order.stage, {name: Path(folder) for name, folder in order.given.items()}
    cache, key = Cache(Path(order.cache), anew=order.anew), key_of(stage, given, order.missing)
    if not order.anew and (found := known(cache, stage, key)) is not None:
        return found
    # One that is there and not believed, a latency that was INVALID, is put in its place too.
    results = Cache(cache.root, anew=order.anew or (not stage.anew and cache.known(kind_of(stage), key) is not None))
    task = Task(
        recipe=from_data(order.recipe),
        asked=stage.asked,
        needs={last(name): given[name] for name in stage.needs},
        wants={last(name): given[name] for name in stage.wants if name in given},
        missing=tuple((last(name), order.missing[name]) for name in stage.wants if name in order.missing),
        cache=cache,
        progress=progress,
        worker=order.worker,
        wait=stage.wait,
    )
    function = pkgutil.resolve_name(function_of(stage.does))

    def build(folder: Path) -> None:
        require_unchanged(stage.files)
        try:
            function(task, folder)
        except OSError:
            for result in given.values():
                content_of(result)  # which says so, where it was removed meanwhile
            raise
        finally:
            require_unchanged(stage.files)  # which counts more than what it may have led to

    # What a device does disturbs no measurement of this machine.
    with nullcontext() if stage.cost.idle else at_work(cache.beside(MACHINE), progress.step, alone=stage.cost.exclusive):
        if stage.anew:
            return results.entry_by_content(kind_of(stage), build, lambda part: {"content": content_of(part)})
        return results.entry(kind_of(stage), key, build)


def as_data(recipe: Recipe) -> dict[str, Any]:
    """A request as JSON has it, with paths that hold in any folder.

    Raises:
        InputError: a path is not UTF-8.
    """
    data: dict[str, Any] = msgspec.to_builtins(recipe, enc_hook=_absolute)
    return data


def _absolute(path: Path) -> str:
    text = str(path.absolute())
    if printable(text) != text:
        raise InputError(f"{printable(text)} is not UTF-8, and a plan is", remedy="give the folder another name")
    return text


def from_data(data: Mapping[str, Any]) -> Recipe:
    """The request that `as_data` was given."""
    return msgspec.convert(data, Recipe, dec_hook=lambda kind, value: Path(value))

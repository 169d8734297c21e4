"""Under what a stage's result is kept: the digest of what it was asked, of what it was given, of its tools and of its own source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import content_of
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.plan.graph import Stage, last
from dtvit_deploy.plan.work import PASSING, function_of


def kind_of(stage: Stage) -> str:
    """The first part of the name of its entry in the cache."""
    return f"stage-{stage.does}"


def key_of(stage: Stage, given: Mapping[str, Path], missing: Mapping[str, str]) -> dict[str, Any]:
    """What a stage's result depends on.

    Args:
        stage: one whose needs are all there.
        given: results of the stages before it that are there.
        missing: of those others that it wants, why they are not there.
    """
    return {
        "asked": stage.asked,
        "needs": {last(name): content_of(given[name]) for name in stage.needs},
        "wants": {last(name): content_of(given[name]) if name in given else missing.get(name, "") for name in stage.wants},
        "source": source_digest(function_of(stage.does).partition(":")[0]),
        "tools": versions(*stage.tools),
    }


def is_invalid(cache: Cache, stage: Stage, key: dict[str, Any]) -> bool:
    """Whether there is a result of a stage with that key, and it is not to be believed again: a latency that was INVALID."""
    found = None if stage.anew else cache.known(kind_of(stage), key)
    return found is not None and (found / PASSING).exists()


def known(cache: Cache, stage: Stage, key: dict[str, Any]) -> Path | None:
    """The result of a stage with that key, where it is in the cache and to be believed again."""
    if stage.anew:
        return None
    found = cache.known(kind_of(stage), key)
    return None if found is None or (found / PASSING).exists() else found

"""What a stage is given, and how it finds the artefacts in it. What each does is in a file for those that depend on the same source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.recipe.tables import Recipe

PASSING = "passing"
"""A file in a result that is good for the report at hand, and not to be believed the next time: a latency that is INVALID."""
WORK = {
    "trace": "tracing:trace",
    "checked": "tracing:checked",
    "ranges": "tracing:ranges",
    "observed": "calibrating:observed",
    "gathered": "calibrating:gathered",
    "simplified": "building:simplified",
    "float16": "building:float16",
    "build": "building:build",
    "built_there": "building_there:built_there",
    "accuracy": "measuring:accuracy",
    "scores": "evaluating:scores",
    "scored": "evaluating:scored",
    "parity": "measuring:parity",
    "latency": "measuring:latency",
    "asked": "on_device:asked",
    "answers": "on_device:answers",
    "timed": "on_device:latency",
    "report": "reporting:report",
}
"""Module and function of this package, by the name that a stage has for it. They take a `Task` and a folder to fill; called twice for one
stage, they end with the same."""


def function_of(does: str) -> str:
    """Full name of what does a stage, ``module:function``. Its source is that of the module and of all that this may import."""
    return f"dtvit_deploy.plan.{WORK[does]}"


@dataclass(frozen=True)
class Task:
    """One stage, about to be done.

    Attributes:
        recipe: the request.
        asked: what of it the stage depends on.
        needs: results of the stages that it cannot do without, by the last part of their names.
        wants: results of those others that are there, likewise, in their order.
        missing: names of the others, and why they are not there.
        cache: for what stages keep beside their results.
        progress: told what is going on.
        worker: who does it, on a farm.
        wait: for a device, where somebody else has it.
    """

    recipe: Recipe
    asked: Mapping[str, Any]
    needs: Mapping[str, Path]
    wants: Mapping[str, Path]
    missing: tuple[tuple[str, str], ...]
    cache: Cache
    progress: Progress
    worker: str = ""
    wait: bool = True

    @cached_property
    def program(self) -> ProgramEntry:
        return read_program_entry(self.needs["trace"])

    @cached_property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What was built; it comes out of this user's cache, and needs no trial."""
        found = [load_artifact(path) for folder in self.wants.values() for path in artifacts_in(folder)]
        return tuple(msgspec.structs.replace(artifact, trusted=True) for artifact in found)


def parts_of(task: Task, name: str) -> list[Path]:
    """Results of the stages that each did a stretch of the samples, in order; a `KeyError` where one is missing."""
    many: int = task.asked["parts"]
    return [task.needs[f"{name} {number + 1} of {many}"] for number in range(many)]


def artifacts_in(folder: Path) -> list[Path]:
    """Artefacts in a stage's result, in the order of their names."""
    return sorted(path.with_suffix("") for path in folder.glob("*.json") if os.path.lexists(path.with_suffix("")))

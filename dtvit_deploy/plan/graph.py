"""A graph of stages. A stage is data: the name of a function, what of the request it depends on, and the stages whose results it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from dtvit_deploy.errors import InputError
from dtvit_deploy.plan.files import FileState


@dataclass(frozen=True)
class Cost:
    """What a stage takes while it runs.

    Attributes:
        memory: bytes, by experience with networks of some ten million parameters.
        exclusive: whether nothing else may run on the machine beside it, since it measures time.
        brief: whether it is over before another process would have imported what it needs.
        idle: whether this machine only waits for a device meanwhile, so that it is in nobody's way.
        device: where most of its time passes, which one stage has at a time; empty for this machine.
    """

    memory: int = 2 << 30
    exclusive: bool = False
    brief: bool = False
    idle: bool = False
    device: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: unique in its plan: ``digits/onnx fp16``.
        does: the function of `dtvit_deploy.plan.work` that does it.
        request: which of the plan's requests it is of.
        asked: what of that it depends on, as JSON-able data.
        needs: stages whose results it takes; it cannot run without one of them.
        wants: stages whose results it takes where they are there; where none is, it cannot run either.
        cost: what it takes.
        anew: whether it is done each time: its function calls code of the user's, which can change unseen.
        tools: packages whose versions its result depends on.
        after: stages that only make its work shorter, by what they leave in the cache: it runs when they are over, however they ended.
        once: whether it is not done a second time where who did it was lost: it is a figure of time.
        files: states of the user's files and folders that it reads, by their paths.
        part: whether its result is put together with those of its like, which must come from the same kind of processor.
        home: whether whoever asked does it, and no worker of a farm: it only puts such parts together, or needs the user's keys for a
            device.
        wait: whether it waits for a device that somebody else has; no part of what its result depends on.
    """

    name: str
    does: str
    request: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    cost: Cost = Cost()
    anew: bool = False
    tools: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False
    files: Mapping[str, FileState] = field(default_factory=dict)
    part: bool = False
    home: bool = False
    wait: bool = True

    @property
    def before(self) -> tuple[str, ...]:
        """Every stage that comes before it."""
        return (*self.needs, *self.wants, *self.after)


def last(name: str) -> str:
    """A stage's name without the request's, so that requests share what they have in common."""
    return name.rpartition("/")[2]


class Plan:
    """Stages in an order in which each comes after those that it takes results of."""

    def __init__(self, stages: Collection[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        assert len(self.stages) == len(stages), "two stages have one name"
        known: set[str] = set()
        for stage in stages:
            assert known.issuperset(stage.before), f"{stage.name} comes before what it takes"
            known.add(stage.name)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)

    def matching(self, pattern: str) -> frozenset[str]:
        """Stages by a name, or by a pattern as a shell has them.

        Raises:
            InputError: there is none.
        """
        found = frozenset(
            name for name in self.stages if pattern in (name, last(name)) or fnmatchcase(name, pattern) or fnmatchcase(last(name), pattern)
        )
        if not found:
            raise InputError(f"no stage is called {pattern!r}", remedy=f"stages: {', '.join(self.stages)}")
        return found

    def up_to(self, names: Collection[str]) -> Plan:
        """Those stages and what they take, and nothing else."""
        wanted = set(names)
        for stage in reversed(list(self)):
            if stage.name in wanted:
                wanted.update(stage.before)
        return Plan([stage for stage in self if stage.name in wanted])

    def taken_by(self, names: Collection[str]) -> frozenset[str]:
        """Those stages and what their results are made of; not what only made the work shorter."""
        wanted = set(names)
        for stage in reversed(list(self)):
            if stage.name in wanted:
                wanted.update((*stage.needs, *stage.wants))
        return frozenset(wanted)

    def without_helpers(self) -> Plan:
        """What is left without the stages that only make others' work shorter, for where those do not find what they leave behind."""
        helpers = {name for stage in self for name in stage.after} - {name for stage in self for name in (*stage.needs, *stage.wants)}
        return Plan([dataclasses.replace(stage, after=()) for stage in self if stage.name not in helpers])

    def after(self, names: Collection[str]) -> frozenset[str]:
        """Those stages and everything that depends on them."""
        found = set(names)
        for stage in self:
            if not found.isdisjoint(stage.before):
                found.add(stage.name)
        return frozenset(found)

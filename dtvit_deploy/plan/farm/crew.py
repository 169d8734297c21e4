"""Who is there to do stages, and who of them can do which."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import NOT_INSTALLED
from dtvit_deploy.plan.farm.address import SECONDS, reaching
from dtvit_deploy.plan.farm.remote import Facts, facts
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.stages import GPUS
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from distributed import Client

LOOK = 2.0
"""Seconds after which one looks again who is there."""


class _Worker(NamedTuple):
    facts: Facts
    threads: int


class Crew:
    """The workers of a scheduler that run the same dtvit-deploy as whoever asks.

    One that comes is used from then on. A worker can do a stage where it has each package that the stage's result depends on in the version
    that is here, or lacks it as this machine does: the result is kept under the versions here.
    """

    def __init__(self, client: Client, address: str, plan: Plan, progress: Progress) -> None:
        """See who is there.

        Raises:
            InputError: nobody, within `SECONDS`.
            MissingError: nobody runs this version.
        """
        self._client, self._address, self._progress = client, address, progress
        self._packages = tuple(sorted({package for stage in plan for package in stage.tools}))
        self._own = Facts.here(self._packages)
        self._workers: dict[str, _Worker] = {}
        self._refused: set[str] = set()
        self._kinds: dict[tuple[int, str], str] = {}
        self._in_vain: set[tuple[object, ...]] = set()  # what was waited for, since anybody came
        self._looked = 0.0
        if not self._until(lambda: self._workers or self._refused):
            raise InputError(f"the scheduler at {address} has no worker", remedy=f"start `dask worker {address}` (docs/farm.md)")
        if not self._workers:
            raise MissingError(
                f"no worker of the scheduler at {address} runs dtvit-deploy {self._own.version}",
                remedy="install the same version everywhere, and start the workers again",
            )
        names = sorted({one.facts.machine for one in self._workers.values()})
        progress.step(f"{counted(len(self._workers), 'worker')} on {', '.join(names[:8])}{' and others' if names[8:] else ''}")

    def look(self, *, now: bool = False) -> None:
        """See who has come and gone, unless that was done a moment ago."""
        if not now and time.monotonic() - self._looked < LOOK:
            return
        with reaching(self._address):
            threads: dict[str, int] = self._client.nthreads()
            self._workers = {address: one for address, one in self._workers.items() if address in threads}
            new = [address for address in threads if address not in self._workers and address not in self._refused]
            answers = self._client.run(facts, self._packages, workers=new, on_error="return") if new else {}
        self._looked = time.monotonic()
        for address, answer in answers.items():
            if isinstance(answer, OSError):  # it has gone meanwhile, or could not be reached for a moment
                continue
            if isinstance(answer, BaseException):
                self._refuse(address, f"it has no dtvit-deploy of this version: {type(answer).__name__}: {answer}"[:300])
            elif answer.version != self._own.version:
                self._refuse(address, f"dtvit-deploy {answer.version} there, {self._own.version} here")
            else:
                self._workers[address] = _Worker(answer, threads[address])
                self._in_vain.clear()

    def gone(self, workers: Collection[str]) -> bool:
        """Whether none of some workers is there any more."""
        return self._workers.keys().isdisjoint(workers)

    def threads(self, workers: Collection[str]) -> int:
        """How many stages some workers do at once."""
        return sum(self._workers[address].threads for address in workers if address in self._workers)

    def capable(self, stage: Stage) -> tuple[str, ...]:
        """Who can do a stage; stretches that are put together go to one kind of processor, that which most have."""
        found = [address for address, one in self._workers.items() if not self._lacks(stage, one.facts)]
        if not stage.part or not found:
            return tuple(found)
        kinds = Counter(self._workers[address].facts.processor for address in found)
        kind = self._kinds.setdefault((stage.request, stage.does), kinds.most_common(1)[0][0])
        return tuple(address for address in found if self._workers[address].facts.processor == kind)

    def wait_for(self, stage: Stage) -> tuple[str, ...]:
        """Who can do a stage, once there is somebody.

        Raises:
            MissingError: nobody within `SECONDS`.
        """
        if found := self.capable(stage):
            return found
        wanted = (stage.tools, stage.does if stage.part else "", *stage.asked.get(GPUS, ()))
        if wanted in self._in_vain:
            raise self._nobody(stage)
        self._progress.step(f"{stage.name}: waiting for a worker that can do it")
        if self._until(lambda: self.capable(stage)):
            return self.capable(stage)
        self._in_vain.add(wanted)
        raise self._nobody(stage)

    def _nobody(self, stage: Stage) -> MissingError:
        """Why nobody can do a stage."""
        if not self._workers:
            return MissingError(f"no worker is there any more to do {stage.name}", remedy="start some, and run the same again")
        lacks = sorted({self._lacks(stage, one.facts) for one in self._workers.values()} - {""})
        kind = self._kinds.get((stage.request, stage.does)) if stage.part else None
        alike = f"; on {kind}, as the stretches before it" if kind and not lacks else ""
        return MissingError(
            f"no worker can do {stage.name}: {'; '.join(lacks[:3]) or 'the others are of another kind'}{alike}",
            remedy="give the workers what is installed here, and start them again",
        )

    def _lacks(self, stage: Stage, worker: Facts) -> str:
        """What a worker lacks for a stage; empty where nothing."""
        for package in stage.tools:
            here, there = self._own.packages[package], worker.packages[package]
            if here != there:
                has = f"{there} there" if there != NOT_INSTALLED else "missing there"
                return f"it needs {package} as it is here ({here}), and that is {has} ({worker.machine})"
        if stage.asked.get(GPUS, list(worker.gpus)) != list(worker.gpus):
            return f"it needs the GPUs that are here, and {worker.machine} has others"
        return ""

    def _until(self, condition: Callable[[], object]) -> bool:
        until = time.monotonic() + SECONDS
        while True:
            self.look(now=True)
            if condition():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.2)

    def leave_out(self, address: str, why: str) -> None:
        """Give a worker nothing more to do."""
        self._workers.pop(address, None)
        self._refuse(address, why)

    def _refuse(self, address: str, why: str) -> None:
        self._refused.add(address)
        self._progress.step(f"the worker {address} is left out: {why}")

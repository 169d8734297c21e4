"""Who does stages on this machine: this process, one after the other, or processes of its own, side by side."""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.local import cores, quota
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.graph import Stage
from dtvit_deploy.plan.performing import Order, perform
from dtvit_deploy.plan.server import Server


class Over(NamedTuple):
    """A stage that is over.

    Attributes:
        result: the folder; None where it failed.
        error: why it failed.
    """

    name: str
    result: str | None
    error: Exception | None


class LostError(DeployError):
    """Who did a stage is gone, and it was not done again; the others go on."""


class Pool(Protocol):
    """Does stages."""

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        """Whether a stage can be begun beside those that are running."""
        ...

    def begin(self, order: Order) -> None:
        """Have a stage done."""
        ...

    def next(self) -> Over:
        """The next one that is over; waits for it."""
        ...


def done_here(order: Order, progress: Progress) -> Over:
    """A stage, done by this very process."""
    try:
        return Over(order.stage.name, str(perform(order, progress)), None)
    except (InputError, MissingError) as error:
        return Over(order.stage.name, None, error)


class Here:
    """This process."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._over: list[Over] = []

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        return not running

    def begin(self, order: Order) -> None:
        self._over.append(done_here(order, self._progress))

    def next(self) -> Over:
        return self._over.pop()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Processes:
    """Processes of this one's, each started by its first stage, which end with it."""

    def __init__(self, size: int, progress: Progress) -> None:
        self._size, self._memory = size, _memory()
        self._progress = progress
        self._over: queue.SimpleQueue[tuple[Server | None, Over]] = queue.SimpleQueue()
        self._caches: set[str] = set()
        self._free: list[Server] = []
        self._every: list[Server] = []

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        """As far as the processors and the memory allow; one stage always has room."""
        if not running:
            return True
        if stage.own or stage.cost.exclusive or any(one.cost.exclusive for one in running):
            return False  # the lock would keep them apart too, and a process that starts beside a measurement disturbs it
        return len(running) < self._size and stage.cost.memory + sum(one.cost.memory for one in running) <= self._memory

    def begin(self, order: Order) -> None:
        self._caches.add(order.cache)
        if order.stage.own:
            self._over.put((None, done_here(order, self._progress)))
            return
        self._free = [server for server in self._free if server.lives]  # one that idled may have been killed for its memory
        if not self._free:
            self._free.append(Server())
            self._every.append(self._free[-1])
        threading.Thread(target=self._perform, args=(self._free.pop(), order), name=order.stage.name, daemon=True).start()

    def _perform(self, server: Server, order: Order) -> None:
        name = order.stage.name
        try:
            over = Over(name, server.perform(order, lambda step: self._progress.step(f"{name}: {step}")), None)
        except Exception as error:
            over = Over(name, None, error)
        self._over.put((server, over))

    def next(self) -> Over:
        server, over = self._over.get()
        self._free += [server] if server else []
        return over

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._every:
            server.end()
        for root in self._caches:
            Cache(Path(root)).tidy()


def here(progress: Progress, size: int) -> Here | Processes:
    """So many processes of this machine; this one alone where that is one."""
    return Processes(size, progress) if size > 1 else Here(progress)


def processors() -> int:
    """How many processes can run at once, a container's share considered."""
    share = quota()
    return max(1, cores() if share is None else min(cores(), round(share)))


def _memory() -> int:
    """Bytes that can be had now; by what is built in where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        return int(found[1]) << 10 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 8 << 30

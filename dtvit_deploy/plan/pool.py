"""Who does stages on this machine: this process, one after the other, or processes of its own, side by side."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.local import cores, quota
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.graph import Stage
from dtvit_deploy.plan.performing import Order, perform
from dtvit_deploy.plan.server import Server

GENTLE = 0.8
"""Seconds in which a process that has work done on a device may have it ended there: less than an end by force lets pass."""


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


class Here:
    """This process."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._over: list[Over] = []

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        return not running

    def begin(self, order: Order) -> None:
        name = order.stage.name
        try:
            self._over.append(Over(name, str(perform(order, self._progress)), None))
        except (InputError, MissingError) as error:
            self._over.append(Over(name, None, error))

    def next(self) -> Over:
        return self._over.pop()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Processes:
    """Processes of this one's, each started by its first stage, which end with it."""

    def __init__(self, size: int, progress: Progress, tell: Callable[[Over], None] | None = None) -> None:
        """Start nothing yet.

        Args:
            size: how many work side by side; those that wait for a device are not counted.
            tell: called, by other threads, with each stage that is over, in place of `next`.
        """
        self._size, self._memory = size, _memory()
        self._progress = progress
        self._over: queue.SimpleQueue[Over] = queue.SimpleQueue()
        self._tell = tell or self._over.put
        self._caches: set[str] = set()
        self._lock = threading.Lock()
        self._free: list[Server] = []
        self._every: list[Server] = []

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        """As far as the processors and the memory allow; one stage always has room.

        One that measures on a device takes little of this machine, which waits for it: such stages run side by side with those that work
        here, one for each device. Beside a measurement of time here they do not, since they put feeds together and compare answers. The
        times that a device tells are by its own clock, and need no peace here.
        """
        if not running:
            return True
        if stage.cost.exclusive or any(one.cost.exclusive for one in running):
            return False  # the lock would keep them apart too, and a process that starts beside a measurement disturbs it
        devices = [one.cost.device for one in running if one.cost.device]
        has_place = stage.cost.device not in devices if stage.cost.device else len(running) - len(devices) < self._size
        return has_place and stage.cost.memory + sum(one.cost.memory for one in running) <= self._memory

    def begin(self, order: Order) -> None:
        self._caches.add(order.cache)
        with self._lock:
            self._free = [server for server in self._free if server.lives]  # one that idled may have been killed for its memory
            if not self._free:
                self._free.append(Server())
                self._every.append(self._free[-1])
            server = self._free.pop()
        threading.Thread(target=self._perform, args=(server, order), name=order.stage.name, daemon=True).start()

    def _perform(self, server: Server, order: Order) -> None:
        name = order.stage.name
        try:
            over = Over(name, server.perform(order, lambda step: self._progress.step(f"{name}: {step}")), None)
        except Exception as error:
            over = Over(name, None, error)
        with self._lock:
            self._free.append(server)
        self._tell(over)

    def next(self) -> Over:
        return self._over.get()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        until = time.monotonic() + GENTLE
        for server in self._every:
            server.ask_to_end()
        for server in self._every:
            server.end(until)
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

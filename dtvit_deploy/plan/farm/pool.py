"""Stages on the workers of a Dask scheduler."""

from __future__ import annotations

import contextlib
import queue
import secrets
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import content_of
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.farm.address import SECONDS, connected, reaching
from dtvit_deploy.plan.farm.crew import LOOK, Crew
from dtvit_deploy.plan.farm.parcel import Parcel, packed, unpack
from dtvit_deploy.plan.farm.remote import Outcome, begun_name, do
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.pool import LostError, Over, Processes, processors

if TYPE_CHECKING:
    from distributed import Future

ATTEMPTS = 5
HELD = 2 << 30
"""Bytes of results that the workers are told to keep, so that they need not be sent again; the user's cache has them all."""


class _Begun(NamedTuple):
    order: Order
    workers: tuple[str, ...]


class Farm:
    """Workers that are there, each doing as many stages at once as it has threads.

    What they return is put into this user's cache, so that a run goes on where it was, and nothing depends on a worker's being there later.
    Where a worker goes, what it did is done by another, but for what measures time.
    """

    def __init__(self, address: str, plan: Plan, progress: Progress, *, insecure: bool = False) -> None:
        """Connect to the scheduler, and see who is there.

        Raises:
            InputError: the address cannot be used, no scheduler answers, or no worker is there.
            MissingError: Dask is not installed, or no worker runs this version.
        """
        self._address, self._progress = address, progress
        self._run = secrets.token_hex(8)
        self._client = connected(address, insecure=insecure)
        self._once: set[str] = set()
        self._begun: dict[Future[Outcome], _Begun] = {}
        self._ended: queue.SimpleQueue[Future[Outcome] | Over] = queue.SimpleQueue()
        self._sent: OrderedDict[str, tuple[Future[Parcel], int]] = OrderedDict()
        self._home = Processes(processors(), progress, self._ended.put)
        try:
            self._crew = Crew(self._client, address, plan, progress)
        except BaseException:
            self._close()
            raise

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        """Whether one of those who can do it is free; what is to be done here has its own processes."""
        if stage.home:
            return self._home.room(stage, [one for one in running if one.home])
        able = self._crew.capable(stage)  # where nobody is, `begin` waits for somebody, and says so
        return not able or sum(set(one.workers) <= set(able) for one in self._begun.values()) < self._crew.threads(able)

    def begin(self, order: Order) -> None:
        if order.stage.home:
            self._home.begin(order)  # by a process: whoever waits for the farm must not wait for that
            return
        try:
            for _ in range(ATTEMPTS):
                try:
                    self._submit(order, self._crew.wait_for(order.stage))
                    return
                except KeyError:  # noqa: PERF203 the scheduler's, of a worker that went between our look and its own
                    self._crew.look(now=True)
            raise MissingError(f"workers come and go too fast for {order.stage.name}", remedy="look at what ends them")
        except (InputError, MissingError) as error:
            self._ended.put(Over(order.stage.name, None, error))

    def next(self) -> Over:
        while True:
            self._look_after()
            try:
                ended = self._ended.get(timeout=LOOK)
            except queue.Empty:
                continue
            if isinstance(ended, Over):
                return ended
            begun = self._begun.pop(ended, None)  # None: it was sent elsewhere meanwhile
            if begun is not None and (over := self._result(ended, begun.order)) is not None:
                return over

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *exc: object) -> None:
        from distributed import Event

        with contextlib.suppress(Exception):  # of a scheduler that is gone; what brought us here is on its way already
            self._client.cancel(list(self._begun), force=True)
            for name in self._once:
                Event(begun_name(self._run, name), client=self._client).clear()  # which the scheduler would else keep for good
        self._close()

    def _close(self) -> None:
        self._home.__exit__()
        with contextlib.suppress(Exception):
            self._client.close(timeout=SECONDS)

    def _submit(self, order: Order, workers: tuple[str, ...]) -> None:
        stage = order.stage
        if stage.once:
            self._once.add(stage.name)
        parcels = [self._parcel(Path(folder), workers) for folder in order.given.values()]
        with reaching(self._address):
            future = self._client.submit(
                do,
                msgspec.msgpack.encode(order),
                self._run,
                *parcels,
                key=f"{stage.name} {secrets.token_hex(4)}",
                workers=list(workers),
                pure=False,
            )
            self._begun[future] = _Begun(order, workers)
            future.add_done_callback(self._ended.put)

    def _result(self, future: Future[Outcome], order: Order) -> Over | None:
        """What became of a stage; None where others do it again."""
        name = order.stage.name
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":
                return Over(name, None, LostError(f"{name} was lost with each worker that did it: {error}"))
            return Over(name, None, RuntimeError(f"{name}, on a worker: {type(error).__name__}: {error}"))
        try:
            with reaching(self._address):
                outcome = future.result()
        except CancelledError:  # what it takes, or what came of it, went with a worker
            self._progress.step(f"{name}: its worker is gone")
            return self._again(order)
        if outcome.kind == "unfit":
            self._crew.leave_out(outcome.worker, outcome.error)
            return self._again(order)
        if outcome.result is None:
            return Over(name, None, _raised(outcome))
        return Over(name, str(_kept(outcome.result, order)), None)

    def _again(self, order: Order) -> Over | None:
        """Send a stage to others, since its worker is gone; not one that has begun to measure time."""
        name = order.stage.name
        if order.stage.once and self._has_begun(name):
            lost = f"{name} measures time, and the worker that did so is gone; it is not measured a second time"
            return Over(name, None, LostError(lost, remedy="run the same again"))
        self.begin(order)
        return None

    def _has_begun(self, name: str) -> bool:
        from distributed import Event

        with reaching(self._address):
            begun: bool = Event(begun_name(self._run, name), client=self._client).is_set()
        return begun

    def _parcel(self, folder: Path, workers: tuple[str, ...]) -> Future[Parcel]:
        """A result that workers can have, sent to one of them."""
        content = content_of(folder)
        if content in self._sent:
            self._sent.move_to_end(content)
            future, _ = self._sent[content]
            if future.status == "finished":
                return future
        parcel = packed(folder)
        with reaching(self._address):
            (future,) = self._client.scatter([parcel], workers=list(workers), hash=False)
        self._sent[content] = future, parcel.size
        while len(self._sent) > 1 and sum(size for _, size in self._sent.values()) > HELD:
            self._sent.popitem(last=False)
        return future

    def _look_after(self) -> None:
        """See who has come and gone, and send elsewhere what was sent to workers that are all gone."""
        self._crew.look()
        for future, (order, workers) in list(self._begun.items()):
            if self._crew.gone(workers):
                del self._begun[future]
                future.cancel()
                self._progress.step(f"{order.stage.name}: its worker is gone")
                if (over := self._again(order)) is not None:
                    self._ended.put(over)


def _kept(parcel: Parcel, order: Order) -> Path:
    """Where a result is in the cache of this machine, once it is certain that it is what was sent."""
    stage, cache = order.stage, Cache(Path(order.cache))

    def build(folder: Path) -> None:
        unpack(parcel, folder)

    if stage.anew:
        return cache.entry_by_content(kind_of(stage), build, lambda part: {"content": content_of(part)})
    given = {name: Path(folder) for name, folder in order.given.items()}
    key = key_of(stage, given, order.missing)
    unbelieved = order.anew or cache.known(kind_of(stage), key) is not None  # a latency that was INVALID
    return Cache(cache.root, anew=unbelieved).entry(kind_of(stage), key, build)


def _raised(outcome: Outcome) -> Exception:
    """What a stage raised on a worker, as it would have been raised here."""
    if outcome.kind == "defect":
        return RuntimeError(outcome.error)
    kind = {"input": InputError, "missing": MissingError}.get(outcome.kind, LostError)
    return kind(outcome.error, remedy=outcome.remedy)

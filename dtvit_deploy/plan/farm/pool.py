"""Stages on the workers of a Dask scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.contents import content_of
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.plan.farm.address import SECONDS, connected
from dtvit_deploy.plan.farm.parcel import Parcel, packed, require_whole, unpack
from dtvit_deploy.plan.farm.remote import Facts, Outcome, begun_name, do, facts
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.pool import Here, LostError, Over
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK = 2.0
"""Seconds after which one looks whether the workers are still there."""
HELD = 2 << 30
"""Bytes of results that are kept on the workers, so that they need not be sent again; the user's cache has them all."""


class _Worker(NamedTuple):
    facts: Facts
    packages: dict[str, str]
    threads: int


class _Begun(NamedTuple):
    order: Order
    workers: tuple[str, ...]


class Farm:
    """Workers that are there, each doing as many stages at once as it has threads.

    What they return is put into this user's cache, so that a run goes on where it was, and nothing depends on a worker's being there later.
    A worker that joins is used from then on; where one goes, what it did is done by another, but for what measures time.
    """

    def __init__(self, address: str, plan: Plan, progress: Progress, *, insecure: bool = False) -> None:
        """Connect to the scheduler, and see who is there.

        Raises:
            InputError: the address cannot be used, no scheduler answers, or no worker is there.
            MissingError: Dask is not installed, or no worker runs this version.
        """
        self._progress, self._here = progress, Here(progress)
        self._packages = tuple(sorted({package for stage in plan for package in stage.requires}))
        self._own, self._installed = facts(self._packages)
        self._run = secrets.token_hex(8)
        self._client: Client = connected(address, insecure=insecure)
        self._address = address
        self._workers: dict[str, _Worker] = {}
        self._refused: set[str] = set()
        self._timed: set[str] = set()
        self._begun: dict[Future[Outcome], _Begun] = {}
        self._ended: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._over: list[Over] = []
        self._sent: OrderedDict[str, tuple[Future[Parcel], int]] = OrderedDict()
        self._kinds: dict[tuple[int, str], str] = {}
        try:
            self._require_workers()
        except BaseException:
            self._client.close()
            raise

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        """As far as there are threads; what only puts results together is done here, at once."""
        return stage.merges or len(self._begun) < sum(worker.threads for worker in self._workers.values())

    def begin(self, order: Order) -> None:
        if order.stage.merges:
            self._here.begin(order)
            self._over.append(self._here.next())
            return
        try:
            with self._reaching():
                self._submit(order)
        except (InputError, MissingError) as error:
            self._over.append(Over(order.stage.name, None, error))

    def next(self) -> Over:
        while not self._over:
            try:
                future = self._ended.get(timeout=LOOK)
            except queue.Empty:
                with self._reaching():
                    self._look_after()
                continue
            if future in self._begun:  # and was not sent elsewhere meanwhile
                with self._reaching():
                    self._end(future, self._begun.pop(future).order)
        return self._over.pop(0)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """What is raised where the scheduler is gone, or the network to it.

        Raises:
            DeployError: says so; what was done is kept.
        """
        from distributed import client

        closed: type[Exception] = getattr(client, "ClosedClientError", OSError)  # of recent releases
        try:
            yield
        except (OSError, closed) as error:
            raise DeployError(
                f"the scheduler at {self._address} does not answer any more: {error}"[:300],
                remedy="see what became of it, and run the same again: what is done is kept",
            ) from error

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *exc: object) -> None:
        from distributed import Event

        with contextlib.suppress(Exception):  # of a scheduler that is gone; what brought us here is on its way already
            self._client.cancel(list(self._begun), force=True)
            for name in self._timed:
                Event(begun_name(self._run, name), client=self._client).clear()  # which the scheduler would else keep for good
            self._client.close(timeout=SECONDS)

    def _submit(self, order: Order) -> None:
        workers = self._capable(order.stage)
        if order.stage.cost.exclusive:
            self._timed.add(order.stage.name)
        parcels = [self._parcel(Path(folder)) for folder in order.given.values()]
        future = self._client.submit(
            do,
            msgspec.msgpack.encode(order),
            self._run,
            order.stage.cost.exclusive,
            *parcels,
            key=f"{order.stage.name} {secrets.token_hex(4)}",
            workers=list(workers),
            pure=False,
        )
        self._begun[future] = _Begun(order, workers)
        future.add_done_callback(self._ended.put)

    def _end(self, future: Future[Outcome], order: Order) -> None:
        name = order.stage.name
        if future.status == "finished":
            outcome = future.result()
            if outcome.result is not None:
                self._over.append(Over(name, str(self._kept(outcome.result, order)), None))
            else:
                self._over.append(Over(name, None, _raised(outcome)))
        elif future.status == "error":
            error = future.exception()
            self._over.append(Over(name, None, LostError(f"{name} was lost with the workers that did it: {error}")))
        else:  # cancelled, since what it takes, or was sent to others for it, went with a worker
            self._again(order)

    def _again(self, order: Order) -> None:
        """Send a stage to others, since its worker is gone; not one that has begun to measure time."""
        name = order.stage.name
        self._progress.step(f"{name}: its worker is gone")
        if order.stage.cost.exclusive and self._has_begun(name):
            lost = f"{name} measures time, and the worker that did so is gone; it is not measured a second time"
            self._over.append(Over(name, None, LostError(lost, remedy="run the same again")))
            return
        self._look()
        self.begin(order)

    def _has_begun(self, name: str) -> bool:
        from distributed import Event

        begun: bool = Event(begun_name(self._run, name), client=self._client).is_set()
        return begun

    def _kept(self, parcel: Parcel, order: Order) -> Path:
        """Where a result is in the cache of this machine."""
        stage, cache = order.stage, Cache(Path(order.cache), anew=True)

        def build(folder: Path) -> None:
            unpack(parcel, folder)

        if stage.anew:
            kept = cache.entry_by_content(kind_of(stage), build, lambda part: {"content": content_of(part)})
        else:
            given = {name: Path(folder) for name, folder in order.given.items()}
            kept = cache.entry(kind_of(stage), key_of(stage, given, order.missing), build)
        require_whole(parcel, kept)
        return kept

    def _parcel(self, folder: Path) -> Future[Parcel]:
        """A result that the workers can have, sent once."""
        content = content_of(folder)
        if content in self._sent:
            self._sent.move_to_end(content)
            future, _ = self._sent[content]
            if future.status == "finished":
                return future
        parcel = packed(folder)
        (future,) = self._client.scatter([parcel], hash=False)
        self._sent[content] = future, parcel.size
        while len(self._sent) > 1 and sum(size for _, size in self._sent.values()) > HELD:
            self._sent.popitem(last=False)
        return future

    def _capable(self, stage: Stage) -> tuple[str, ...]:
        """Who can do a stage: those that have what it requires, in the versions that are installed here.

        Raises:
            MissingError: nobody can.
        """
        wanted = {package: self._installed.get(package) for package in stage.requires}
        found = [address for address, one in self._workers.items() if all(one.packages.get(name) == wanted[name] for name in wanted)]
        if absent := [package for package, version in wanted.items() if version is None]:
            raise MissingError(
                f"{stage.name} needs {', '.join(absent)}, and a worker's version would be compared with the one here, where there is none",
                remedy="pip install 'dtvit-deploy[all]' here too",
            )
        if stage.part and found:
            group = stage.request, stage.does
            kinds = Counter(self._workers[address].facts.processor for address in found)
            if self._kinds.get(group) not in kinds:
                self._kinds[group] = kinds.most_common(1)[0][0]
            found = [address for address in found if self._workers[address].facts.processor == self._kinds[group]]
        if not found:
            versions = ", ".join(f"{name} {version}" for name, version in wanted.items())
            raise MissingError(
                f"no worker can do {stage.name}, which needs {versions}", remedy="install that where workers are, and start them again"
            )
        return tuple(found)

    def _look_after(self) -> None:
        """See who has come and gone, and send elsewhere what was sent to workers that are all gone."""
        self._look()
        for future, (order, workers) in list(self._begun.items()):
            if self._workers.keys().isdisjoint(workers):
                del self._begun[future]
                future.cancel()
                self._again(order)

    def _look(self) -> None:
        """Who is there, and what those have that came since."""
        threads = self._client.nthreads()
        self._workers = {address: one for address, one in self._workers.items() if address in threads}
        new = [address for address in threads if address not in self._workers and address not in self._refused]
        answers = self._client.run(facts, self._packages, workers=new, on_error="return") if new else {}
        for address, answer in answers.items():
            if isinstance(answer, BaseException):
                self._refuse(address, f"it has no dtvit-deploy of this version: {type(answer).__name__}: {answer}"[:300])
            elif answer[0].version != self._own.version:
                self._refuse(address, f"dtvit-deploy {answer[0].version} there, {self._own.version} here")
            else:
                self._workers[address] = _Worker(answer[0], answer[1], threads[address])

    def _refuse(self, address: str, why: str) -> None:
        self._refused.add(address)
        self._progress.step(f"the worker {address} is left out: {why}")

    def _require_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=SECONDS)
        except (TimeoutError, asyncio.TimeoutError):  # before Python 3.11 these are two
            raise InputError(
                f"the scheduler at {self._address} has no worker", remedy="start `dask worker ADDRESS` on each machine (docs/farm.md)"
            ) from None
        self._look()
        if not self._workers:
            raise MissingError(
                f"no worker of the scheduler at {self._address} runs dtvit-deploy {self._own.version}",
                remedy="install the same version everywhere, and start the workers again",
            )
        names: Sequence[str] = sorted({one.facts.machine for one in self._workers.values()})
        self._progress.step(f"{counted(len(self._workers), 'worker')} on {', '.join(names[:8])}{' and others' if names[8:] else ''}")


def _raised(outcome: Outcome) -> Exception:
    """What a stage raised on a worker, as it would have been raised here."""
    if outcome.kind == "defect":
        return RuntimeError(outcome.error)
    kind = {"input": InputError, "missing": MissingError}.get(outcome.kind, LostError)
    return kind(outcome.error, remedy=outcome.remedy)

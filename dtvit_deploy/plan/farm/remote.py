"""What a worker of Dask calls: it tells what it has, and has a stage done by a process of its own.

In a process, since Dask must hear of its worker while a network is traced, which holds Python for minutes; and since what ends that process
must not end the worker, after which Dask would send the same to the next.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec

import dtvit_deploy
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.devices.local import state
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.formats.engine import gpu
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.plan.farm.parcel import Parcel, packed, received
from dtvit_deploy.plan.files import FileState, require_same
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.server import Server
from dtvit_deploy.plan.work import WORK, function_of
from dtvit_deploy.process.machine import MACHINE, at_work

_own = threading.local()
"""Each of the worker's threads has a process that does its stages, and ends with it."""


class Facts(NamedTuple):
    """What a worker has.

    Attributes:
        version: of this package, and of all source that stages run: workers of one farm run the same.
        processor: kind of its processor.
        machine: its name in the network.
        gpus: what an engine depends on of its GPUs.
        packages: versions of those that stages use; none is imported for that.
    """

    version: str
    processor: str
    machine: str
    gpus: tuple[str, ...]
    packages: dict[str, str]

    @classmethod
    def here(cls, packages: tuple[str, ...]) -> Facts:
        return cls(version(), state()["processor"], platform.node(), gpu.identity(), versions(*packages))


@functools.cache
def version() -> str:
    """Of this package, and of what a stage may come to run: stages are called by name, so that no import leads to them."""
    modules = {function_of(does).partition(":")[0] for does in WORK} | {__name__, "dtvit_deploy.plan.worker"}
    source = hashlib.sha256("".join(map(source_digest, sorted(modules))).encode()).hexdigest()
    return f"{dtvit_deploy.__version__} ({source[:12]})"


class Outcome(NamedTuple):
    """What became of a stage; it can be pickled wherever this package is installed.

    Attributes:
        result: None where it failed.
        error, remedy: why it failed, for the user.
        kind: what of our errors that was; ``defect`` where the fault is this program's, ``unfit`` where it is the worker's.
        worker: its address, where it is unfit.
    """

    result: Parcel | None
    error: str = ""
    remedy: str | None = None
    kind: str = ""
    worker: str = ""


def facts(packages: tuple[str, ...]) -> Facts:
    """What this worker has."""
    return Facts.here(packages)


def do(order: bytes, run: str, *given: Parcel) -> Outcome:
    """Do a stage.

    Args:
        order: an `Order` as MessagePack; the folders that it names are those of whoever sent it.
        run: what the sender calls this run: files of the user's are read once in it to see that they are the same.
        given: the results that the order names, in its order.
    """
    from distributed import Event, get_client, get_worker

    told = msgspec.msgpack.decode(order, type=Order)
    worker = get_worker()
    if told.stage.once:  # Dask may have lost the worker that it was sent to at first
        begun = Event(begun_name(run, told.stage.name), client=get_client())
        if begun.is_set():
            lost = f"{told.stage.name} measures time, and the worker that did so was lost; it is not measured a second time"
            return Outcome(None, lost, "run the same again", "lost")
        begun.set()
    try:
        cache = Cache.default()
        locks = cache.beside(MACHINE)
    except DeployError as error:
        return Outcome(None, str(error), error.remedy, "unfit", worker.address)
    try:
        with at_work(locks, lambda waiting: None, alone=False):  # to read so much beside a measurement would disturb it
            files = {path: _same(path, state, run) for path, state in told.stage.files.items()}
            folders = {name: str(received(parcel, cache)) for name, parcel in zip(told.given, given, strict=True)}
        name = f"{worker.name} on {platform.node()}, {state()['processor']}"
        stage = dataclasses.replace(told.stage, files=files)
        own = msgspec.structs.replace(told, stage=stage, cache=str(cache.root.absolute()), given=folders, worker=name)
        return Outcome(packed(Path(_server().perform(own, lambda step: None))))
    except (InputError, MissingError) as error:
        said = f"{error} (on {worker.address})"
        return Outcome(None, said, error.remedy, "missing" if isinstance(error, MissingError) else "input")
    except DeployError as error:
        return Outcome(None, f"{error} (on {worker.address})", error.remedy, "other")
    except OSError as error:
        return Outcome(None, f"{error} (on {worker.address})", None, "other")
    except RuntimeError as error:
        return Outcome(None, str(error), None, "defect")


def begun_name(run: str, stage: str) -> str:
    """What the scheduler knows a stage by that has been begun and must not be done twice."""
    return f"dtvit-deploy {run} {stage}"


def _server() -> Server:
    server: Server | None = getattr(_own, "server", None)
    if server is None or not server.lives:
        server = _own.server = Server()
    return server


@functools.lru_cache(maxsize=256)
def _same(path: str, state: FileState, run: str) -> FileState:
    """The state of a file here, read once in a run; it holds the same as where the plan was made."""
    return require_same(Path(path), state)

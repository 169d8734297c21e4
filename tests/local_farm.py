"""A Dask scheduler and workers on this machine, over TCP, for what measures or wears out a plan; the tests' own farms speak TLS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class LocalFarm(NamedTuple):
    """Where it is, and the processes of its workers."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def local_farm(folder: Path, size: int, **variables: str) -> Iterator[LocalFarm]:
    """A farm of so many workers, each with a cache of its own in ``folder``, which is made; nothing of it runs on."""
    dask = Path(sys.executable).with_name("dask")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
    folder.mkdir()
    common = ("--host", "127.0.0.1", "--no-dashboard")
    scheduler = [dask, "scheduler", *common, "--port", address.rpartition(":")[2]]
    worker = [dask, "worker", address, *common, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate([scheduler, *[worker] * size]):
            environment = os.environ | {"DTVIT_DEPLOY_CACHE": str(folder / f"cache{number}")} | variables
            with (folder / f"{number}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))
        yield LocalFarm(address, processes[1:])
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

"""Who works at a job: holds the device, has each task done by a process of its own, and writes down what that says, frame by frame.

A task is alone in its process: what ends it, a runtime's native code, say, ends no other, and is told. A worker that begins a job again
keeps the tasks that have ended, and does the others anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from dtvit_deploy.agent.lease import wait_for_lease
from dtvit_deploy.agent.lock import say_who_works
from dtvit_deploy.agent.log import how_ended, last_line, log_of
from dtvit_deploy.agent.store import Store
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices.emulation import emulated
from dtvit_deploy.devices.state.everything import facts
from dtvit_deploy.errors import DeployError, MissingError
from dtvit_deploy.formats.job.frames import CutOffError, Kind, ResultsError, frame_bytes, read_frame
from dtvit_deploy.formats.job.job import Job, decode_job
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.process.child import child_command
from dtvit_deploy.process.machine import MACHINE, at_work

_TASK = "from dtvit_deploy.agent.tasks import main; main(*sys.argv[1:])"
ARTIFACTS = "artifacts"
"""Folder of a job in which its artefacts are put together."""


def main(root: str, name: str, who: str, lock: str, lease: str) -> None:
    """Do a job, from where it was left. The job's lock came with this process; the device's too, unless ``lease`` is empty."""
    say_who_works(int(lock), os.getpid())  # whoever began the job may have been killed before it could
    store = Store(Path(root), private=False)  # whoever began the job has looked at that
    folder = store.jobs / name
    shutil.rmtree(folder / ARTIFACTS, ignore_errors=True)  # of a worker that was killed, and may have put half of one together
    job = decode_job((folder / "job.json").read_bytes())
    with (folder / "results").open("ab+") as made, Path(made.name).open("r+b") as file:
        writing = _Writing(Results(job, name, cast(BinaryIO, file)))
        writing.take_up()
        if writing.results.ended:
            return
        held = int(lease) if lease else wait_for_lease(who, writing.waits_for)
        try:
            with _beside_own_work(job, writing):
                for index in range(len(job.tasks)):
                    if not writing.results.outcomes[index].ended:
                        _do(store, folder, index, writing)
            shutil.rmtree(folder / ARTIFACTS, ignore_errors=True)  # nobody looks into a job that has its end
            writing.put("end", body=writing.results.end)
        finally:
            os.close(held)


class _Writing:
    """A results file that is written."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def take_up(self) -> None:
        """Go on behind the last whole frame; from the beginning where what is there cannot be read."""
        try:
            self.results.load()
        except CutOffError:
            self.results.cut()
        except ResultsError:
            self.results.begin()
        if not self.results.offset:
            self.results.begin()
        if not self.results.frames:
            now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())  # by a clock that nobody has looked at
            device = {**facts(), "emulated": emulated(), "host": platform.node(), "time": now}
            self.put("job", body={"job": self.results.identity, "device": device})

    def put(self, kind: Kind, *, task: int = -1, body: Mapping[str, Any] | None = None) -> None:
        """Write a frame of the worker's own."""
        frame = read_frame(io.BytesIO(frame_bytes(kind, task=task, body=body)))
        assert frame is not None
        self.results.accept(frame)

    def waits_for(self, whom: str) -> None:
        """Tell that somebody else has the device."""
        self.put("waiting", body={"holder": whom})


def _do(store: Store, folder: Path, index: int, writing: _Writing) -> None:
    """Have a task done; once more where somebody killed its process, which tells nothing of the task."""
    for _ in range(2):
        why, status = _attempt(store, folder, index, writing)
        if writing.results.outcomes[index].ended:
            return
        if status != -signal.SIGKILL or why:
            break
    store.doubt()
    name = writing.results.job.tasks[index].name
    words = last_line(log_of(folder))
    told: dict[str, Any] = {"message": f"{name}: {why or f'the process {how_ended(status)}'}", "remedy": f"its last words: {words}"}
    if words.startswith(("ModuleNotFoundError", "ImportError")):
        told = {"message": f"{name}: {words}", "remedy": "install it there", "exit_code": MissingError.exit_code}
    writing.put("failed", task=index, body=told)


def _attempt(store: Store, folder: Path, index: int, writing: _Writing) -> tuple[str, int]:
    """Why its frames were refused, and how the process ended."""
    writing.put("begin", task=index, body={"state": facts()})
    command = child_command(_TASK, str(store.root), folder.name, str(index))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=store.root) as process:
        stream = cast(BinaryIO, process.stdout)
        why = ""
        try:
            while (frame := read_frame(stream)) is not None:
                writing.results.accept(frame)
        except CutOffError:
            pass  # it ended within a frame
        except DeployError as error:
            why = str(error)
            process.kill()
    return why, process.returncode


@contextlib.contextmanager
def _beside_own_work(job: Job, writing: _Writing) -> Iterator[None]:
    """Keep apart from what this user's own ``dtvit-deploy`` measures on the machine, where there is one."""
    folder = None
    with contextlib.suppress(DeployError):
        cache = Cache.default()
        folder = cache.beside(MACHINE) if cache.root.is_dir() else None  # on a device that has none, none is left
    if folder is None:
        yield
        return
    with at_work(folder, writing.waits_for, alone=job.timed):
        yield

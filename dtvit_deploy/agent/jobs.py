"""A job's folder on the device, and the one process that works in it: begun, followed, stopped.

``job.json`` is what was asked, ``results`` what has come of it, ``lock`` is locked by who works, and ``log`` has what went wrong besides.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dtvit_deploy.agent.keeping import prune, remove_job
from dtvit_deploy.agent.lease import require_lease, try_lease
from dtvit_deploy.agent.lock import alive, locked, say_who_works, worker
from dtvit_deploy.agent.log import NAME as LOG
from dtvit_deploy.agent.log import log_of
from dtvit_deploy.agent.store import Store, require_room
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.frames import CutOffError, ResultsError
from dtvit_deploy.formats.job.job import Answers, Digest, Job, decode_job, job_id
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.process.child import BEGIN

_WORK = "from dtvit_deploy.agent.worker import main; main(*sys.argv[1:])"
_LOOKS = 0.05
"""Seconds between two looks at a results file."""
_TRIES = 4
_PIECE = 1 << 20
_MOST_TOLD = 20
"""Tasks of a job that are named where it is ended."""
_ENDED = "ended"
"""A file in a job's folder that says that its user wants it ended, and not begun again by whoever followed it."""
_GRACE = 3.0
"""Seconds that a worker has to end once it is asked to."""


def begin(store: Store, content: bytes, who: str, *, wait: bool, first: bool = False) -> dict[str, Any]:
    """Have a job done by a process of its own, which goes on whatever becomes of this one. Nothing happens where it is done or goes on.

    Args:
        content: the job's JSON.
        who: asks, for others to be told.
        wait: for the device, if somebody has it.
        first: whether this is a new request, for which a job in which a task failed is done anew: the reason may have gone.

    Returns:
        ``state``: ``began``, ``running``, ``done``, or ``missing`` where blobs are; then ``missing`` has how many bytes of each are there.

    Raises:
        InputError: it is no job; or it is not new, and was ended meanwhile by `stop_all`.
        MissingError: somebody has the device, or its disk is full.
    """
    job, name = decode_job(content), job_id(content)
    prune(store, {blob.sha256 for blob in job.blobs})
    folder = store.jobs / name
    folder.mkdir(0o700, exist_ok=True)
    for _ in range(_TRIES):
        if (lock := locked(folder)) is not None:
            break
        time.sleep(_LOOKS)  # somebody may only have looked whether anybody works there
    else:
        return {"state": "running"}
    try:
        if (folder / _ENDED).exists() and not first:
            raise InputError(
                "somebody has ended the job there (`dtvit-deploy device stop`)", remedy="ask for it again, and it goes on where it was"
            )
        (folder / _ENDED).unlink(missing_ok=True)
        if (before := _before(folder, job, name)) is not None:
            if first and before.failed:  # of one that was given up, too: its other tasks were not waited for
                (folder / "results").unlink()
            elif before.ended:
                os.utime(folder)
                return {"state": "done"}
        if absent := store.missing(job.blobs):
            sizes = {blob.sha256: blob.bytes for blob in job.blobs}
            require_room(store.root, _expected(job) + sum(sizes[name] - there for name, there in absent.items() if there < sizes[name]))
            return {"state": "missing", "missing": absent}
        require_room(store.root, _expected(job))
        _write(folder / "job.json", content)
        lease = try_lease(who) if wait else require_lease(who)
        try:
            _start(store, folder, who, lock, lease)
        finally:
            if lease is not None:
                os.close(lease)
        return {"state": "began"}
    finally:
        os.close(lock)


def follow(store: Store, name: Digest, offset: int) -> None:
    """Write a job's results to standard output from an offset on, as they come, until nobody works at it any more.

    It ends, too, when standard input does: then nobody follows.

    Raises:
        InputError: there is no such job, or fewer results than that.
    """
    folder = _folder(store, name)
    path = folder / "results"
    watched = select.poll()
    watched.register(0, select.POLLIN | select.POLLHUP)
    while True:
        ends = not alive(folder)
        if path.exists():
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < offset:
                    raise InputError(f"the results have fewer than {offset:,} bytes", remedy="follow them from their beginning")
                file.seek(offset)
                while piece := file.read(_PIECE):
                    offset += len(piece)
                    _write_out(piece)
        if ends:
            return
        if any(not os.read(0, 1) for _ in watched.poll(_LOOKS * 1e3)):
            return


def stop(store: Store, name: Digest) -> bool:
    """End whoever works at a job; what is whole of its results stays.

    Returns:
        Whether somebody did.

    Raises:
        InputError: there is no such job.
    """
    folder = _folder(store, name)
    if not alive(folder):
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _GRACE
        while alive(folder) and time.monotonic() < until:
            if (process := worker(folder)) is not None:
                with contextlib.suppress(OSError):
                    os.killpg(process, number)
            time.sleep(_LOOKS)
    return True


def stop_all(store: Store) -> list[dict[str, Any]]:
    """End whoever works at any job of this user.

    Returns:
        Each job that went on, by its name and those of its tasks.
    """
    found = []
    for folder in sorted(store.jobs.iterdir()):
        if alive(folder):
            tasks: list[str] = []
            with contextlib.suppress(DeployError, OSError):
                tasks = [task.name for task in decode_job((folder / "job.json").read_bytes()).tasks[:_MOST_TOLD]]
            with contextlib.suppress(OSError):
                (folder / _ENDED).touch()  # before: whoever follows it would begin it again
            if (folder / "job.json").is_file() and stop(store, folder.name):
                found.append({"job": folder.name, "tasks": tasks})
    return found


def forget(store: Store, name: Digest) -> None:
    """Remove a job's folder, and who works there before.

    Raises:
        InputError: there is no such job.
    """
    stop(store, name)
    remove_job(_folder(store, name))


def last_words(store: Store, name: Digest) -> str:
    """The end of what a worker said beside its results.

    Raises:
        InputError: there is no such job.
    """
    return log_of(_folder(store, name))


def _start(store: Store, folder: Path, who: str, lock: int, lease: int | None) -> None:
    handed = [lock] if lease is None else [lock, lease]
    arguments = [str(store.root), folder.name, who, str(lock), "" if lease is None else str(lease)]
    isolated = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *isolated, "-c", BEGIN + _WORK, json.dumps(sys.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=store.root,
            start_new_session=True,
            pass_fds=handed,
        )
    say_who_works(lock, process.pid)  # as it will itself, once its Python is there


def _before(folder: Path, job: Job, name: str) -> Results | None:
    """What has come of the job until now; None where nothing has that can be read."""
    path = folder / "results"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            results = Results(job, name, file)
            with contextlib.suppress(CutOffError):
                results.load()
            return results
    except ResultsError:  # the worker sees to it
        return None


def _expected(job: Job) -> int:
    """Bytes that the results take, about."""
    total = 0
    for task in job.tasks:
        if isinstance(task, Answers):
            outputs = job.subjects[task.subject].manifest.signature.outputs
            total += task.samples * (8 * sum(math.prod(spec.shape) for spec in outputs) + 200)
    return total


def _folder(store: Store, name: Digest) -> Path:
    folder = store.jobs / name
    if not re.fullmatch(r"[0-9a-f]{64}", name) or not (folder / "job.json").is_file():
        raise InputError(f"the device has no job {name[:16]}…", remedy="begin it")
    return folder


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def _write_out(piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(1, left) :]

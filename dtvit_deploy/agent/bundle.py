"""A job that came in a folder, on a stick: done here, its results one file in that folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dtvit_deploy.agent import jobs
from dtvit_deploy.agent.lock import alive
from dtvit_deploy.agent.log import last_line, log_of
from dtvit_deploy.agent.store import Store
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.bundle import JOB, RESULTS
from dtvit_deploy.formats.job.frames import MAGIC, CutOffError, ResultsError, read_frame
from dtvit_deploy.formats.job.job import Job, decode_job, job_id

_AGAIN = "remove that folder, and unpack the bundle again"
_LOOKS = 0.2
_ENDS = 2.0
"""Seconds that whoever was killed just now may take to be gone."""


def do_bundle(folder: Path, identity: str) -> None:
    """Do the job of a bundle's folder; one that was interrupted goes on where it was.

    Args:
        folder: where the bundle was unpacked.
        identity: the job's name.

    Raises:
        InputError: that job is not in it, or it cannot be done to its end.
        MissingError: files of it are missing or damaged, or the disk is full; or nothing could be done here.
    """
    try:
        content = (folder / JOB).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / JOB} cannot be read: {error.strerror}", remedy=_AGAIN) from error
    job, store = decode_job(content), Store(folder, private=False)
    with _alone(folder):
        _do(folder, identity, content, job, store)


def _do(folder: Path, identity: str, content: bytes, job: Job, store: Store) -> None:
    name = job_id(content)
    if name != identity:
        raise InputError(f"{folder / JOB} was changed: it is another job than the bundle's", remedy=_AGAIN)
    try:
        state = jobs.begin(store, content, "whoever runs the bundle", wait=True)["state"]
        if state == "missing":
            raise MissingError(f"files of the bundle are missing or damaged in {folder}", remedy=_AGAIN)
        _watch(store.jobs / name, job)
    except BaseException:
        if (store.jobs / name / JOB).is_file():
            jobs.stop(store, name)
        raise
    made = store.jobs / name / "results"
    if jobs.begin(store, content, "", wait=True)["state"] != "done":
        jobs.stop(store, name)
        raise InputError(
            f"the job ended before it was done: {last_line(log_of(store.jobs / name))}", remedy="call it again, and it goes on"
        )
    reasons = _failures(made)
    if len(reasons) == len(job.tasks):  # results of an earlier call, if there are any, are worth more
        jobs.stop(store, name)
        shutil.rmtree(store.jobs)
        raise MissingError(
            f"nothing that was asked could be done here: {'; '.join(dict.fromkeys(reasons))}",
            remedy="install what is missing, or name another Python that has it by PYTHON=…, and call it again",
        )
    part = folder / f".{RESULTS}"
    shutil.copyfile(made, part)
    part.replace(folder / RESULTS)
    shutil.rmtree(store.jobs)
    failed = f"; {len(reasons)} of {len(job.tasks)} tasks failed, which it says" if reasons else ""
    _say(f"done: take {RESULTS} back{failed}")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block nobody else does the bundle of that folder; an interruption is one line.

    Raises:
        InputError: somebody does already.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + _ENDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise InputError(f"the bundle in {folder} is being done already", remedy="wait until that has ended") from error
                time.sleep(_LOOKS)
        yield
    except KeyboardInterrupt:
        _say("interrupted; call it again, and it goes on where it was")
        raise SystemExit(130) from None
    finally:
        os.close(descriptor)


def _failures(results: Path) -> list[str]:
    """Why tasks failed, of each that did."""
    found = []
    with results.open("rb") as file:
        file.seek(len(MAGIC))
        while (frame := read_frame(file)) is not None:
            if frame.header.kind == "failed":
                found.append(str(frame.header.body.get("message")))
    return found


def _watch(job_folder: Path, job: Job) -> None:
    """Say what goes on until nobody works at it."""
    path, offset = job_folder / "results", len(MAGIC)
    while True:
        ends = not alive(job_folder)
        if path.exists() and path.stat().st_size > offset:
            offset = _told(path, offset, job)
        if ends:
            return
        time.sleep(_LOOKS)


def _told(path: Path, offset: int, job: Job) -> int:
    with path.open("rb") as file:
        file.seek(offset)
        try:
            while (frame := read_frame(file)) is not None:
                offset += len(frame.raw)
                kind, task = frame.header.kind, frame.header.task
                if kind == "waiting":
                    _say(str(frame.header.body.get("holder")))
                elif kind in ("begin", "done"):
                    _say(f"{job.tasks[task].name}: {kind}")
                elif kind == "failed":
                    _say(f"{job.tasks[task].name}: failed: {frame.header.body.get('message')}")
        except CutOffError:
            pass  # the rest of it is being written
        except ResultsError:  # of an earlier run, and damaged: the worker begins anew
            return len(MAGIC)
    return offset


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")

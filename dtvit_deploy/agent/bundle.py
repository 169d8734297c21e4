"""A job that came in a folder, on a stick: done here, its results one file in that folder."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from dtvit_deploy.agent import jobs
from dtvit_deploy.agent.lock import alive
from dtvit_deploy.agent.log import last_line, log_of
from dtvit_deploy.agent.store import Store
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.bundle import JOB, RESULTS
from dtvit_deploy.formats.job.frames import MAGIC, CutOffError, ResultsError, read_frame
from dtvit_deploy.formats.job.job import Job, decode_job, job_id

_LOOKS = 0.2


def do_bundle(folder: Path, identity: str) -> None:
    """Do the job of a bundle's folder; one that was interrupted goes on where it was.

    Args:
        folder: where the bundle was unpacked.
        identity: the job's name.

    Raises:
        InputError: that job is not in it, or it cannot be done to its end.
        MissingError: files of it are missing or damaged, or the disk is full.
    """
    try:
        content = (folder / JOB).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / JOB} cannot be read: {error.strerror}", remedy="unpack the whole bundle") from error
    job, store = decode_job(content), Store(folder, private=False)
    name = job_id(content)
    if name != identity:
        raise InputError(f"{folder / JOB} was changed: it is another job than the bundle's", remedy="unpack the whole bundle again")
    try:
        state = jobs.begin(store, content, "whoever runs the bundle", wait=True)["state"]
        if state == "missing":
            raise MissingError(f"files of the bundle are missing or damaged in {folder}", remedy="unpack the whole bundle again")
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
    part = folder / f".{RESULTS}"
    shutil.copyfile(made, part)
    part.replace(folder / RESULTS)
    shutil.rmtree(store.jobs)
    _say(f"done: take {RESULTS} back")


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

"""What is killed on a device in the middle of its work leaves nothing that misleads or stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from dtvit_deploy.agent import jobs, keeping, lease
from dtvit_deploy.agent.keeping import HOUR, prune, remove_job
from dtvit_deploy.agent.lease import require_lease
from dtvit_deploy.agent.lock import alive, worker
from dtvit_deploy.agent.store import Store
from dtvit_deploy.formats.job.job import Job, State, encode_job, job_id

JOB = encode_job(Job(agent="0" * 64, blobs=(), subjects=(), tasks=(State(),)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(lease.PLACE, str(tmp_path / "lease"))
    return Store(tmp_path / "device")


BEGIN = """
import sys
from pathlib import Path
from dtvit_deploy.agent import jobs
from dtvit_deploy.agent.store import Store

jobs.say_who_works = lambda lock, process: sys.exit()
jobs.begin(Store(Path(sys.argv[1])), sys.stdin.buffer.read(), "me", wait=True)
"""
"""Begins a job, and ends before it could write down whose it is."""


def test_a_worker_whose_beginner_was_killed_at_once_says_itself_who_it_is_and_can_be_stopped(store: Store) -> None:
    held = require_lease("somebody else")  # so that the worker waits
    folder = store.jobs / job_id(JOB)
    try:
        subprocess.run([sys.executable, "-c", BEGIN, store.root], input=JOB, check=True)
        assert alive(folder)
        until = time.monotonic() + 60
        while worker(folder) is None and time.monotonic() < until:
            time.sleep(0.02)
        assert jobs.stop(store, folder.name)
        assert not alive(folder)
    finally:
        os.close(held)


def test_a_job_is_removed_whole_whoever_is_killed_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.jobs / job_id(JOB)
    folder.mkdir()
    (folder / "results").write_text("some")

    def killed(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(keeping.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_job(folder)
    assert not folder.exists()
    assert list(store.jobs.iterdir())
    prune(store)
    assert not list(store.jobs.iterdir())
    remove_job(folder)  # of which somebody else has taken the rest


@pytest.mark.parametrize(("age", "stays"), [(60, True), (HOUR + 60, False)])
def test_half_an_agent_that_came_goes_after_an_hour_and_a_whole_one_stays(store: Store, age: int, stays: bool) -> None:
    whole, half = store.root / "agent" / f"{'a' * 64}.zip", store.root / "agent" / f"{'a' * 64}.zip.123"
    whole.parent.mkdir()
    for path in (whole, half):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    prune(store)
    assert (whole.exists(), half.exists()) == (True, stays)

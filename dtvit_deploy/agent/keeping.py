"""How long what is on a device stays there: what nobody asked for in a week goes as the next job begins; `clean` takes all of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Container
from pathlib import Path

from dtvit_deploy.agent.lock import alive
from dtvit_deploy.agent.store import Store, archive, size_of
from dtvit_deploy.errors import InputError

HOUR = 3600
"""Seconds after which an agent is no longer on its way here."""
WEEK = 7 * 24 * 3600
"""Seconds after which what nobody asked for is removed."""
MOST_RESULTS = 1 << 30
"""Bytes of all finished jobs' results; beyond them the oldest go first."""
_REMOVED = ".removed-"


def prune(store: Store, needed: Container[str] = ()) -> None:
    """Remove what nobody asked for in a week, and the oldest results beyond `MOST_RESULTS`; never what a job that goes on needs.

    Args:
        needed: digests of blobs that the next job needs: they may have come in 1970, by a clock that was set since, or lie in a bundle.
    """
    for folder in store.jobs.glob(f"{_REMOVED}*"):  # by who was killed meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    folders = list(store.jobs.iterdir())
    idle = [folder for folder in folders if not alive(folder)]
    total = 0
    for age, folder in sorted((_age(folder), folder) for folder in idle):
        total += size_of(folder / "results")
        if age > WEEK or total > MOST_RESULTS:
            remove_job(folder)
    if len(idle) < len(folders):
        return
    for path in (*store.blobs.iterdir(), *(store.root / "agent").glob("*")):
        if _age(path) > (HOUR if ".zip." in path.name else WEEK) and path != archive() and path.name not in needed:
            path.unlink(missing_ok=True)


def remove_job(folder: Path) -> None:
    """Remove a job's folder: first its name, so that whoever is killed in the middle leaves no job of which half is there."""
    away = folder.with_name(f"{_REMOVED}{folder.name[:16]}-{os.getpid()}")
    with contextlib.suppress(OSError):  # somebody else has removed it
        folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def clean(store: Store) -> int:
    """Remove all of it, the agent too.

    Returns:
        Bytes that were removed.

    Raises:
        InputError: a job goes on there.
    """
    if running := [folder.name for folder in store.jobs.iterdir() if alive(folder)]:
        raise InputError(f"the job {running[0][:16]}… goes on there", remedy="end it (`dtvit-deploy device stop DEVICE`), or wait for it")
    freed = sum(size_of(path) for path in store.root.rglob("*"))
    for folder in store.jobs.iterdir():
        remove_job(folder)
    shutil.rmtree(store.root)
    return freed


def _age(path: Path) -> float:
    """Seconds since it was last asked for, by a clock that may be in 1970; what is younger than nothing stays."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0

"""A job for a device that nobody can reach: one archive there, one results file back.

The archive is a tar of one folder: the agent, the job, its blobs, and two lines that say what to do. Equal jobs give equal archives. What
comes back is held to the job that was asked, as it is over a connection.
"""

from __future__ import annotations

import io
import tarfile
import weakref
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.staging import replacing
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.bundle import AGENT, BLOBS, JOB, README, RESULTS, RUN
from dtvit_deploy.formats.job.expected import parts_of
from dtvit_deploy.formats.job.frames import LARGEST_FRAME
from dtvit_deploy.formats.job.job import encode_job
from dtvit_deploy.formats.job.results import Results, read_results
from dtvit_deploy.remote.asking import Asked

_FOLDER = "dtvit-deploy-{}"
_OTHERS = 200_000
"""Frames beside the results, of a few hundred bytes each."""


def write_bundle(asked: Asked, path: Path) -> None:
    """Write the archive.

    Raises:
        InputError: it cannot be written, or a blob was changed meanwhile.
    """
    name = _FOLDER.format(asked.identity[:12])
    readme = (
        f"1. On the device: tar xf {path.name} && sh {name}/{RUN}   (Python 3.10 or later, numpy and the runtimes; PYTHON names one)\n"
        f"2. Bring back {name}/{RESULTS}, and give it to dtvit-deploy where this came from.\n"
    )
    call = f'cd "$(dirname "$0")" && exec "${{PYTHON:-python3}}" {AGENT} bundle . {asked.identity}'
    run = f"#!/bin/sh\n{call}\n".encode()
    with replacing(path) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, f"{name}/{README}", io.BytesIO(readme.encode()), len(readme.encode()))
        _add(archive, f"{name}/{RUN}", io.BytesIO(run), len(run), mode=0o755)
        for file, content in ((AGENT, agent_archive().content), (JOB, encode_job(asked.job))):
            _add(archive, f"{name}/{file}", io.BytesIO(content), len(content))
        for blob in asked.job.blobs:
            if asked.blobs[blob.sha256].stat().st_size != blob.bytes:
                raise InputError(f"{asked.blobs[blob.sha256]} was changed while the bundle was made", remedy="make it again")
            with asked.blobs[blob.sha256].open("rb") as stream:
                _add(archive, f"{name}/{BLOBS}/{blob.sha256}", cast(BinaryIO, stream), blob.bytes)


def read_bundle_results(asked: Asked, path: Path) -> Results:
    """The results that a device wrote, held to the job.

    Raises:
        InputError: there is no such file, it is larger than any answer to the job, it was altered, or answers another job.
    """
    if not path.is_file():  # a pipe might never end
        raise InputError(f"there is no results file at {path}", remedy=f"give the {RESULTS} that the bundle's device wrote")
    most = (sum(map(parts_of, asked.job.tasks)) + 10) * LARGEST_FRAME + _OTHERS * 1000
    if path.stat().st_size > most:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes; no answer to this job has more than {most:,}", remedy="fetch it again")
    file = cast(BinaryIO, path.open("rb"))
    try:
        results = read_results(asked.job, asked.identity, file)
    except BaseException:
        file.close()
        raise
    weakref.finalize(results, file.close)
    return results


def _add(archive: tarfile.TarFile, name: str, stream: BinaryIO | io.BytesIO, size: int, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    archive.addfile(info, stream)

"""A job for a device that nobody can reach: one archive there, one results file back.

The archive is a tar of one folder: the agent, the job, its blobs, and two lines that say what to do. Equal jobs give equal archives. What
comes back is held to the job that was asked, as it is over a connection.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.bundle import AGENT, BLOBS, JOB, README, RESULTS, RUN, WHOLE
from dtvit_deploy.formats.job.expected import parts_of
from dtvit_deploy.formats.job.frames import LARGEST_FRAME, ResultsError, read_frame, read_magic
from dtvit_deploy.formats.job.job import encode_job
from dtvit_deploy.formats.job.results import Results, read_results
from dtvit_deploy.remote.asking import Asked

_FOLDER = "dtvit-deploy-{}"
_OTHERS = 200_000
"""Frames beside the results, of a few hundred bytes each."""


def folder_of(identity: str) -> str:
    """The folder that a job's archive is unpacked into, on any device."""
    return _FOLDER.format(identity[:12])


def lines_of(identity: str, archive: str) -> tuple[str, str]:
    """What is to be done on the device, as its shell takes it, and which file is brought back.

    Args:
        identity: the job's name.
        archive: the file's name, whatever is in it.
    """
    name = folder_of(identity)
    quoted = shlex.quote(f"./{archive}" if archive.startswith("-") else archive)
    # Once whole, it is not unpacked again: a call that was interrupted may have left a worker that reads these files.
    return f"[ -e {name}/{WHOLE} ] || tar xf {quoted} && sh {name}/{RUN}", f"{name}/{RESULTS}"


def write_bundle(asked: Asked, path: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write the archive, and with it, all or none, other files of its folder.

    Args:
        asked: the job and what belongs to it.
        path: of the archive.
        beside: contents of the others, by name.

    Raises:
        InputError: it cannot be written, or a blob was changed meanwhile; or a shell could not be told its name in one line.
    """
    if not path.name.isprintable():
        raise InputError(f"{path.name!r} is no name that can be typed on a device", remedy="give the archive another name")
    if path.is_dir():
        raise InputError(f"{path} is a folder, and the archive is to be written there", remedy="give the name of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, which the archive would take the place of", remedy="give the name of a file")
    name = folder_of(asked.identity)
    there, back = lines_of(asked.identity, path.name)
    readme = (
        f"1. On the device: {there}   (Python 3.10 or later, numpy and the runtimes; PYTHON names one)\n"
        f"2. Bring back {back}, and give it to `dtvit-deploy report --import` where this came from.\n"
    )
    call = f'cd "$(dirname "$0")" && exec "${{PYTHON:-python3}}" {AGENT} bundle . {asked.identity}'
    run = f"#!/bin/sh\n{call}\n".encode()
    with staged(path.parent) as stage:
        for other, content in (beside or {}).items():
            (stage / other).write_bytes(content)
        with tarfile.open(stage / path.name, "w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, f"{name}/{README}", io.BytesIO(readme.encode()), len(readme.encode()))
            _add(archive, f"{name}/{RUN}", io.BytesIO(run), len(run), mode=0o755)
            for file, content in ((AGENT, agent_archive().content), (JOB, encode_job(asked.job))):
                _add(archive, f"{name}/{file}", io.BytesIO(content), len(content))
            for blob in asked.job.blobs:
                if asked.blobs[blob.sha256].stat().st_size != blob.bytes:
                    raise InputError(f"{asked.blobs[blob.sha256]} was changed while the bundle was made", remedy="make it again")
                with asked.blobs[blob.sha256].open("rb") as stream:
                    _add(archive, f"{name}/{BLOBS}/{blob.sha256}", cast(BinaryIO, stream), blob.bytes)
            _add(archive, f"{name}/{WHOLE}", io.BytesIO(), 0)


def job_answered(path: Path) -> str:
    """The name of the job that a results file says it answers; nothing else of it is looked at.

    Raises:
        InputError: there is no such file, or it is none of a device's.
    """
    _require_file(path)
    with path.open("rb") as file:
        read_magic(cast(BinaryIO, file))
        first = read_frame(cast(BinaryIO, file))
    named = first.header.body.get("job") if first is not None and first.header.kind == "job" else None
    if not isinstance(named, str) or not re.fullmatch("[0-9a-f]{64}", named):
        raise ResultsError(f"{path} does not say which job it answers", remedy=f"give the {RESULTS} that the bundle's device wrote")
    return named


def read_bundle_results(asked: Asked, path: Path) -> Results:
    """The results that a device wrote, held to the job.

    Raises:
        InputError: there is no such file, it is larger than any answer to the job, it was altered, or answers another job.
    """
    _require_file(path)
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


def _require_file(path: Path) -> None:
    if not path.is_file():  # a pipe might never end
        raise InputError(f"there is no results file at {path}", remedy=f"give the {RESULTS} that the bundle's device wrote")


def _add(archive: tarfile.TarFile, name: str, stream: BinaryIO | io.BytesIO, size: int, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    archive.addfile(info, stream)

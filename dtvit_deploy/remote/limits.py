"""What no job can ask of a device, told where the job is put together: which bound it is beyond, and what to do.

The bounds are those of the formats (`dtvit_deploy.formats.job`), which a device holds every job to; told from there, they would come after
minutes of work and transfer.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.expected import why_unanswerable
from dtvit_deploy.formats.job.job import MOST_TASKS, MOST_THREADS, MOST_TIMED, takes_name

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Artifact
    from dtvit_deploy.artifacts.signature import TensorSpec

_BESIDE = 16 << 20
"""Bytes that are left free on this machine's disk."""


def require_askable(artifacts: Sequence[Artifact], *, timed: bool, threads: int) -> None:
    """Refuse what no device can be asked at once.

    Args:
        artifacts: one for each runtime that it is to be loaded in.
        timed: whether a latency of all of them is wanted.
        threads: of each session.

    Raises:
        InputError: a name, an output, or the number of artefacts or threads is beyond what a job takes.
    """
    for artifact in artifacts:
        require_names(artifact)
        require_answerable(artifact.name, artifact.manifest.signature.outputs)
    if threads > MOST_THREADS:
        raise InputError(f"a device is asked for {MOST_THREADS:,} threads at most, and not for {threads:,}", remedy="ask for fewer")
    if timed:
        require_timed(len(artifacts))
    if len(artifacts) + timed > MOST_TASKS:
        raise InputError(
            f"{len(artifacts):,} artefacts, each in a runtime, are more than one job for a device takes ({MOST_TASKS - timed:,})",
            remedy="give fewer at once",
        )


def require_names(artifact: Artifact) -> None:
    """Refuse an artefact of whose files one has a name that a device does not take.

    Raises:
        InputError: it has a backslash or a control character, has more than 255 characters, or is no UTF-8.
    """
    path = artifact.path
    inside = sorted(path.rglob("*")) if path.is_dir() else []
    for name in (artifact.name, *(each.name for each in inside)):
        if not takes_name(name):
            where = "" if name == artifact.name else f" in {artifact.name}"
            raise InputError(
                f"{name!r}{where} is no name for a file on a device: a backslash, control characters, what is not UTF-8, and more than"
                " 255 characters are not taken",
                remedy="give it a plain name, and its manifest the same one" if not where else "export it anew, under plain names",
            )


def require_answerable(name: str, outputs: Sequence[TensorSpec]) -> None:
    """Refuse an artefact whose answers no frame can hold.

    Raises:
        InputError: says why.
    """
    if why := why_unanswerable(outputs):
        raise InputError(f"a device cannot send the answers of {name}: {why}", remedy="measure it on this machine")


def require_timed(count: int) -> None:
    """Refuse a latency of too many.

    Raises:
        InputError: they are more than are loaded side by side.
    """
    if count > MOST_TIMED:
        raise InputError(
            f"a latency of {count:,} artefacts, each in a runtime, was asked for, and a device times {MOST_TIMED} side by side at most",
            remedy="give fewer at once",
        )


def require_room_here(size: int, what: str) -> None:
    """Refuse to make files that this machine's folder for temporary ones cannot hold.

    Args:
        size: bytes.
        what: they are, for the message.

    Raises:
        MissingError: so much is not free there.
    """
    folder = Path(tempfile.gettempdir())
    if (free := shutil.disk_usage(folder).free) < size + _BESIDE:
        raise _full(f"{what} take {(size + _BESIDE) / 1e6:,.0f} MB of {folder}, and {free / 1e6:,.0f} MB are free there")


@contextmanager
def filling_up(what: str) -> Iterator[None]:
    """A disk that fills up all the same is told as one.

    Raises:
        MissingError: it did within the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(f"{what} do not fit into {tempfile.gettempdir()}: {error.strerror}") from error


def _full(told: str) -> MissingError:
    return MissingError(told, remedy="set TMPDIR to a folder with room for them, or give fewer samples (--samples, --data)")

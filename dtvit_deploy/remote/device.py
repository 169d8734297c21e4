"""A job done on a device, whatever becomes of the connection.

The job goes on there when the connection is lost; whoever asks for it again finds what is done or going on. Who interrupts it here ends it
there.
"""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.devices.transport import LostError, Transport
from dtvit_deploy.errors import DeployError
from dtvit_deploy.formats.job.job import Job, encode_job, job_id
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.commands import Commands
from dtvit_deploy.remote.following import Advanced, Doing, Say

PATIENCE = 120.0
"""Seconds without a connection after which nobody tries any more."""


class Device:
    """A device that does jobs.

    Args:
        transport: the way there.
        python: the device's Python.
        patience: seconds that a connection may be away.
    """

    def __init__(self, transport: Transport, *, python: str = "python3", patience: float = PATIENCE) -> None:
        self.commands, self._patience = Commands(transport, python), patience

    @property
    def name(self) -> str:
        """For messages."""
        return self.commands.name

    def perform(
        self,
        job: Job,
        blobs: Mapping[str, Path | bytes],
        *,
        say: Say = lambda text: None,
        advanced: Advanced = lambda task, part: None,
        wait: bool = True,
        keep: bool = True,
    ) -> Results:
        """Have a job done, and return its results; a task that failed there says so when it is asked for.

        Args:
            job: what is to be done; its ``agent`` is this device's.
            blobs: what it needs, by digest; only what is not there is sent.
            say: told what a person should know: who has the device, that the connection is lost.
            advanced: told of progress.
            wait: for the device, where somebody else has it.
            keep: the results there, for whoever asks the same again; those of a job in which a task failed are never kept.

        Raises:
            InputError: the device's answers are none; or as the agent fails there.
            MissingError: somebody has the device and nobody waits, or it lacks what is needed.
            LostError: there has been no connection for longer than the patience; the job goes on there.
        """
        content = encode_job(job)
        doing = Doing(self.commands, self._patience, job, content, say, advanced)
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it is the results', and goes with them
        results = Results(job, job_id(content), file)
        weakref.finalize(results, file.close)
        try:
            doing.until_done(results, blobs, wait=wait)
        except LostError:
            raise
        except BaseException as error:
            if doing.begun or not isinstance(error, DeployError):  # an interruption may have come between the beginning and its news
                with _quietly():
                    self.commands.stop(results.identity)
            raise
        if results.failed or not keep:
            self.forget(job)
        return results

    def forget(self, job: Job) -> None:
        """Have a job's results removed there, as far as that can be done now."""
        with _quietly():
            self.commands.forget(job_id(encode_job(job)))

    def clean(self) -> int:
        """Remove what is kept on the device, the agent too.

        Returns:
            Bytes that were freed.

        Raises:
            InputError: a job goes on there.
        """
        return self.commands.clean()

    def holder(self) -> str:
        """Who has the device since when, as they say; empty where nobody has."""
        return self.commands.holder()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """For what is no longer anybody's question here: whether it could be done changes nothing."""
    with contextlib.suppress(DeployError, RuntimeError, OSError):
        yield

"""A job done on a device, whatever becomes of the connection.

The job goes on there when the connection is lost; whoever asks for it again finds what is done or going on. Who interrupts it here ends it
there.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.devices.transport import LostError, Transport
from dtvit_deploy.errors import DeployError, InputError
from dtvit_deploy.formats.job.job import Job, encode_job, job_id
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.commands import Commands, Ended
from dtvit_deploy.remote.following import Advanced, Doing, Say, ending

PATIENCE = 120.0
"""Seconds without a connection after which nobody tries any more."""
_SOON = 0.6
"""Seconds after which one who interrupts a command hears that the job may go on: within one more the process has to have ended."""


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
        to_the_end: bool = True,
    ) -> Results:
        """Have a job done, and return its results; a task that failed there says so when it is asked for.

        Args:
            job: what is to be done; its ``agent`` is this device's.
            blobs: what it needs, by digest; only what is not there is sent.
            say: told what a person should know: who has the device, that the connection is lost.
            advanced: told of progress.
            wait: for the device, where somebody else has it.
            to_the_end: of the job, also where a task of it failed; else that is raised when it happens, and the others are ended.
            keep: the results there, for whoever asks the same again; those of a job in which a task failed are never kept.

        Raises:
            InputError: the device's answers are none; or as the agent, or a task, fails there.
            MissingError: somebody has the device and nobody waits, or it lacks what is needed.
            LostError: there has been no connection for longer than the patience; the job goes on there.
        """
        content = encode_job(job)
        doing = Doing(self.commands, self._patience, job, content, say, advanced, to_the_end=to_the_end)
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it is the results', and goes with them
        results = Results(job, job_id(content), file)
        weakref.finalize(results, file.close)
        try:
            doing.until_done(results, blobs, wait=wait)
        except LostError:
            raise
        except BaseException as error:
            if doing.going:
                self._end(results, doing, say, interrupted=not isinstance(error, DeployError))
            raise
        if results.failed or not keep:
            self.forget(job)
        return results

    def forget(self, job: Job) -> None:
        """Have a job removed there, over another connection where this one is lost: an equal request would be given these results again."""
        identity = job_id(encode_job(job))
        with _quietly():
            try:
                self.commands.forget(identity)
            except LostError:
                self.commands.forget(identity)

    def _end(self, results: Results, doing: Doing, say: Say, *, interrupted: bool) -> None:
        """End the job there, or say that it goes on: who interrupts a command is not to wait for a network that is not there."""
        ends = f"{ending(self.name)} ends it"
        if doing.lost:
            say(f"{self.name}: there is no connection, and the job {'goes' if doing.begun else 'may go'} on there; {ends}")
            return
        late = threading.Timer(_SOON, say, (f"{self.name}: it does not answer yet, and the job may go on there; {ends}",))
        late.daemon = True
        if interrupted:
            late.start()
        try:
            if results.failed:
                self.commands.forget(results.identity)  # which ends it before; what has failed is not what the next request is to find
            else:
                self.commands.stop(results.identity)
        except InputError:
            pass  # it had not begun
        except (DeployError, RuntimeError, OSError) as error:
            late.cancel()
            say(f"{self.name}: the job may go on there, and could not be ended ({error}); {ends}")
        finally:
            late.cancel()

    def end(self) -> tuple[Ended, ...]:
        """End this user's jobs there; those that went on."""
        return self.commands.end()

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

"""A job done on a device, whatever becomes of the connection.

The job goes on there when the connection is lost; whoever asks for it again finds what is done or going on. Who interrupts it here ends it
there.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import platform
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from dtvit_deploy.devices.transport import LostError, Transport
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.formats.job.expected import parts_of
from dtvit_deploy.formats.job.frames import CutOffError, Frame, ResultsError, read_frame
from dtvit_deploy.formats.job.job import Job, Latency, encode_job, job_id
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.remote.bring import Agent

Say = Callable[[str], None]
Advanced = Callable[[str, float], None]
"""Told the name of a task and how much of it is done, 0 to 1."""
PATIENCE = 120.0
"""Seconds without a connection after which nobody tries any more."""
_FIRST, _LONGEST = 0.5, 10.0
"""Seconds until one tries again: at first, and at most."""
_MOST_DEATHS = 3
"""Times that a worker may end within a task before that is told as the task's fault."""
_BRIEFLY = 15.0
"""Seconds that are waited for what nobody asks for any more."""
_POLL = 2.0
"""Seconds between two questions whether the device is free yet."""


class Device:
    """A device that does jobs.

    Args:
        transport: the way there.
        python: the device's Python.
        patience: seconds that a connection may be away.
    """

    def __init__(self, transport: Transport, *, python: str = "python3", patience: float = PATIENCE) -> None:
        self.transport, self._patience = transport, patience
        self.agent = Agent(transport, python)

    @property
    def name(self) -> str:
        """For messages."""
        return self.transport.name

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
        doing = _Doing(self, job, content, say, advanced)
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it is the results', and goes with them
        results = Results(job, job_id(content), file)
        weakref.finalize(results, file.close)
        try:
            doing.until_done(results, blobs, wait=wait)
        except LostError:
            raise
        except BaseException as error:
            if doing.begun or not isinstance(error, DeployError):  # an interruption may have come between the beginning and its news
                self._quietly("stop", results.identity)
            raise
        if results.failed or not keep:
            self._quietly("forget", results.identity)
        return results

    def clean(self) -> int:
        """Remove what is kept on the device, the agent too.

        Returns:
            Bytes that were freed.

        Raises:
            InputError: a job goes on there.
        """
        answer = self.agent.call("clean")
        return int(answer["freed"])

    def holder(self) -> str:
        """Who has the device since when, as they say; empty where nobody has."""
        answer = self.agent.call("holder")
        return clean(str(answer["by"])) if answer["held"] else ""

    def log(self, identity: str) -> str:
        """The end of what a job's worker said beside its results."""
        return clean(str(self.agent.call("log", identity)["log"]))

    def stop(self, identity: str) -> bool:
        """End whoever works at a job there; what is done of it is kept.

        Returns:
            Whether somebody did.
        """
        return bool(self.agent.call("stop", identity)["stopped"])

    def _quietly(self, *words: str) -> None:
        """Ask for what is no longer anybody's question here: whether it could be done changes nothing."""
        with contextlib.suppress(DeployError, RuntimeError, OSError):
            self.agent.call(*words, timeout=_BRIEFLY)


class _Doing:
    """One job on its way."""

    def __init__(self, device: Device, job: Job, content: bytes, say: Say, advanced: Advanced) -> None:
        self._agent, self._transport = device.agent, device.transport
        self._job, self._content, self._say, self._advanced = job, content, say, advanced
        self._patience = device._patience
        self._who = f"{_user()}@{platform.node()}"
        self._heard = time.monotonic()
        self.begun = False

    def until_done(self, results: Results, blobs: Mapping[str, Path | bytes], *, wait: bool) -> None:
        deaths, silent, altered, pause, told = 0, 0, 0, _FIRST, ""
        while not results.ended:
            before = results.frames
            try:
                began = self._begin(blobs, wait=wait)
                self._heard = time.monotonic()
                self._follow(results)
            except LostError as error:
                if time.monotonic() - self._heard > self._patience:
                    raise LostError(
                        f"{error}; there has been no connection for {self._patience:g} s",
                        remedy="the job goes on there: the same command picks it up",
                    ) from error
                if str(error) != told:
                    self._say(f"{self._transport.name}: the connection is lost ({error}); trying again")
                told = str(error)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                continue
            except CutOffError:
                began = "lost"
            except ResultsError:
                altered += 1
                if altered > 1:
                    self._forget(results.identity)
                    raise
                results.begin()  # the device may have begun anew
                continue
            if results.frames > before:
                deaths, silent, pause = 0, 0, _FIRST
                continue
            silent += 1
            deaths += began == "began"
            if deaths > _MOST_DEATHS or silent > 2 * _MOST_DEATHS:
                log = self._agent.call("log", results.identity)["log"]
                raise InputError(
                    f"{self._transport.name}: whoever works at the job ends before it is done; its last words: {clean(str(log))[-300:]!r}",
                    remedy="see what ends processes there: memory, a limit, another user",
                )
            if results.offset:
                results.begin()  # its results have become fewer: a device that lost its power, say
            time.sleep(_FIRST)

    def _begin(self, blobs: Mapping[str, Path | bytes], *, wait: bool) -> str:
        words = ("begin", self._who, "wait" if wait else "now")
        answer = self._agent.call(*words, stdin=self._content)
        if answer["state"] == "missing":
            self._until_free(wait=wait)
            self._send(blobs, answer["missing"])
            answer = self._agent.call(*words, stdin=self._content)
            if answer["state"] == "missing":
                raise MissingError(f"{self._transport.name} does not keep what is sent to it", remedy="see whether its disk is in order")
        self.begun = True
        return str(answer["state"])

    def _until_free(self, *, wait: bool) -> None:
        """Not to disturb by a transfer what somebody else measures there."""
        told = ""
        while (answer := self._agent.call("holder"))["held"]:
            by = clean(str(answer["by"]))
            if not wait:
                raise MissingError(f"{self._transport.name}: {by}", remedy="wait for them (without --no-wait), or ask them")
            if by != told:
                told = by
                self._say(f"{self._transport.name}: {by}; waiting")
            time.sleep(_POLL)

    def _send(self, blobs: Mapping[str, Path | bytes], missing: Any) -> None:
        sizes = {blob.sha256: blob.bytes for blob in self._job.blobs}
        wanted = {name: int(there) for name, there in missing.items() if name in sizes}
        total = sum(sizes[name] - min(there, sizes[name]) for name, there in wanted.items())
        self._say(f"{self._transport.name}: sending {len(wanted)} files, {total / 1e6:,.1f} MB")
        for number, (name, there) in enumerate(wanted.items()):
            self._advanced("sending", number / len(wanted))
            try:
                self._put(name, sizes[name], there, blobs[name])
            except InputError:
                if not there:
                    raise
                self._put(name, sizes[name], 0, blobs[name])  # what was there of it was another file's, or damaged
        self._advanced("sending", 1.0)

    def _put(self, name: str, size: int, there: int, blob: Path | bytes) -> None:
        there = there if there <= size else 0
        with _opened(blob) as file:
            file.seek(there)
            self._agent.call("put", name, str(size), str(there), stdin=file)

    def _follow(self, results: Results) -> None:
        with self._transport.following(self._agent.command("follow", results.identity, str(results.offset))) as stream:
            if not results.offset:
                results.begin(stream)
            while (frame := read_frame(stream)) is not None:
                results.accept(frame)
                self._heard = time.monotonic()
                self._tell(frame, results)

    def _tell(self, frame: Frame, results: Results) -> None:
        header = frame.header
        if header.kind == "waiting":
            self._say(f"{self._transport.name}: {clean(str(header.body.get('holder', '')))}; waiting")
        if header.task < 0:
            return
        task = self._job.tasks[header.task]
        if header.kind == "part" and not isinstance(task, Latency):  # whose progress is told while it samples
            self._advanced(task.name, len(results.outcomes[header.task].parts) / max(1, parts_of(task)))
        elif header.kind == "progress":
            self._advanced(task.name, float(header.body["fraction"]))
        elif header.kind in ("begin", "done"):
            self._advanced(task.name, float(header.kind == "done"))

    def _forget(self, identity: str) -> None:
        with contextlib.suppress(DeployError, RuntimeError):
            self._agent.call("forget", identity)


@contextlib.contextmanager
def _opened(blob: Path | bytes) -> Iterator[BinaryIO]:
    with io.BytesIO(blob) if isinstance(blob, bytes) else blob.open("rb") as file:
        yield cast(BinaryIO, file)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "somebody"

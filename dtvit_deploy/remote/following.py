"""A job on its way: begun, followed, begun again where the connection or the worker was lost, until its results are whole."""

from __future__ import annotations

import contextlib
import getpass
import io
import math
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from dtvit_deploy.devices.transport import LostError
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.formats.job.expected import parts_of
from dtvit_deploy.formats.job.frames import CutOffError, Frame, ResultsError, read_frame
from dtvit_deploy.formats.job.job import Build, Job, Latency
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.plural import counted
from dtvit_deploy.remote.commands import Began, Commands

Say = Callable[[str], None]
Advanced = Callable[[str, float], None]
"""Told the name of a task and how much of it is done, 0 to 1."""
SENDING = "sending"
"""What is told of in place of a task while blobs are sent."""
_FIRST, _LONGEST = 0.5, 10.0
"""Seconds until one tries again: at first, and at most."""
_STANDS = 5.0
"""Seconds that a connection lasts which stands; one that breaks before is none."""
_MOST_DEATHS = 3
"""Times that a worker may end within a task before that is told as the task's fault."""
_POLL = 2.0
"""Seconds between two questions whether the device is free yet."""


class Doing:
    """One job on its way.

    Args:
        commands: of the device's agent.
        patience: seconds that a connection may be away.
        job: to be done.
        content: its JSON.
        say: told what a person should know.
        advanced: told of progress.
        to_the_end: whether tasks are waited for that come after one that failed.

    Attributes:
        begun: whether it was begun, or found going on.
        going: whether it may go on there now.
    """

    def __init__(
        self, commands: Commands, patience: float, job: Job, content: bytes, say: Say, advanced: Advanced, *, to_the_end: bool = True
    ) -> None:
        self._commands, self._patience = commands, patience
        self._job, self._content, self._say, self._advanced = job, content, say, advanced
        self._to_the_end = to_the_end
        self._lost: float | None = None
        self._up = math.inf
        self._pause = _FIRST
        self.begun = self.going = False

    @property
    def lost(self) -> bool:
        """Whether there is no connection, as far as that is known."""
        return self._lost is not None and math.isinf(self._up)

    def until_done(self, results: Results, blobs: Mapping[str, Path | bytes], *, wait: bool) -> None:
        """Begin and follow, and again, until the results are whole."""
        deaths, silent, altered = 0, 0, 0
        while not results.ended:
            before, state = results.frames, "lost"
            try:
                state = self._begin(blobs, wait=wait)
                self._follow(results)
            except LostError as error:
                self._wait_for_connection(error)
                continue
            except CutOffError:
                pass  # what is whole was taken
            except ResultsError:
                altered += 1
                if altered > 1:
                    with contextlib.suppress(DeployError, RuntimeError):
                        self._commands.forget(results.identity)
                    raise
                results.begin()  # the device may have begun anew
                continue
            if results.frames > before:
                deaths, silent = 0, 0
                continue
            silent += 1
            deaths += state == "began"
            if deaths > _MOST_DEATHS or silent > 2 * _MOST_DEATHS:
                raise InputError(
                    f"{self._commands.name}: whoever works at the job ends before it is done;"
                    f" its last words: {self._commands.log(results.identity)[-300:]!r}",
                    remedy="see what ends processes there: memory, a limit, another user",
                )
            if results.offset:
                results.begin()  # its results have become fewer: a device that lost its power, say
            time.sleep(_FIRST)

    def _wait_for_connection(self, error: LostError) -> None:
        """Wait a little, and each time longer.

        Raises:
            LostError: there has been none for too long.
        """
        now = time.monotonic()
        if now - self._up > _STANDS:
            self._lost = None
        self._up = math.inf
        if self._lost is None:
            self._lost, self._pause = now, _FIRST
            self._say(f"{self._commands.name}: the connection is lost ({error}); trying again")
        if now - self._lost > self._patience:
            raise LostError(
                f"{error}; there has been no connection for {self._patience:g} s",
                remedy=f"the job goes on there: the same command picks it up, and {ending(self._commands.name)} ends it",
            ) from error
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST)

    def _begin(self, blobs: Mapping[str, Path | bytes], *, wait: bool) -> str:
        found = self._asked_to_begin(wait=wait)
        self._up = time.monotonic()
        if found.state == "missing":
            self._until_free(wait=wait)
            self._send(blobs, found.missing)
            found = self._asked_to_begin(wait=wait)
            if found.state == "missing":
                raise MissingError(f"{self._commands.name} does not keep what is sent to it", remedy="see whether its disk is in order")
        self.begun = True
        return found.state

    def _asked_to_begin(self, *, wait: bool) -> Began:
        before, self.going = self.going, True  # whatever becomes of the answer
        try:
            found = self._commands.begin(self._content, asking_user(), wait=wait, first=not self.begun)
        except (InputError, MissingError):
            self.going = before
            raise
        self.going = found.state != "missing"
        return found

    def _until_free(self, *, wait: bool) -> None:
        """Not to disturb by a transfer what somebody else measures there."""
        told = ""
        while by := self._commands.holder():
            if not wait:
                raise MissingError(f"{self._commands.name}: {by}", remedy="wait for them (without --no-wait), or ask them")
            if by != told:
                self._say(f"{self._commands.name}: {by}; waiting")
            told = by
            time.sleep(_POLL)

    def _send(self, blobs: Mapping[str, Path | bytes], missing: Mapping[str, int]) -> None:
        sizes = {blob.sha256: blob.bytes for blob in self._job.blobs}
        wanted = {name: there if there <= sizes[name] else 0 for name, there in missing.items() if name in sizes}
        total = sum(sizes[name] - there for name, there in wanted.items())
        self._say(f"{self._commands.name}: sending {counted(len(wanted), 'file')}, {total / 1e6:,.1f} MB")
        for number, (name, there) in enumerate(wanted.items()):
            self._advanced(SENDING, number / len(wanted))
            try:
                self._put(name, sizes[name], there, blobs[name])
            except InputError:
                if not there:
                    raise
                self._put(name, sizes[name], 0, blobs[name])  # what was there of it was another file's, or damaged
        self._advanced(SENDING, 1.0)

    def _put(self, name: str, size: int, there: int, blob: Path | bytes) -> None:
        with _opened(blob) as file:
            file.seek(there)
            self._commands.put(name, size, there, file)
        self._lost = None

    def _follow(self, results: Results) -> None:
        with self._commands.transport.following(self._commands.following(results.identity, results.offset)) as stream:
            if not results.offset:
                results.begin(stream)
            while (frame := read_frame(stream)) is not None:
                results.accept(frame)
                self._lost = None
                self._tell(frame, results)
                failure = results.outcomes[frame.header.task].error if frame.header.kind == "failed" else None
                if failure is not None and not self._to_the_end:
                    raise type(failure)(f"{self._commands.name}: {failure}", remedy=failure.remedy)

    def _tell(self, frame: Frame, results: Results) -> None:
        header = frame.header
        if header.kind == "waiting":
            self._say(f"{self._commands.name}: {clean(str(header.body.get('holder', '')))}; waiting")
        if header.task < 0:
            return
        task = self._job.tasks[header.task]
        if header.kind == "part" and not isinstance(task, Latency | Build):  # whose progress is told meanwhile
            self._advanced(task.name, len(results.outcomes[header.task].parts) / max(1, parts_of(task)))
        elif isinstance(header.body.get("said"), str):
            self._say(f"{self._commands.name}: {task.name}: {clean(header.body['said'])}")
        elif header.kind == "progress":
            self._advanced(task.name, float(header.body["fraction"]))
        elif header.kind in ("begin", "done"):
            self._advanced(task.name, float(header.kind == "done"))


def ending(name: str) -> str:
    """What ends the jobs that go on on a device, for people to type."""
    return f"`dtvit-deploy device stop {shlex.quote(name)}`"


def asking_user() -> str:
    """Who asks, as it is told to others there."""
    return f"{_user()}@{platform.node()}"


@contextlib.contextmanager
def _opened(blob: Path | bytes) -> Iterator[BinaryIO]:
    with io.BytesIO(blob) if isinstance(blob, bytes) else blob.open("rb") as file:
        yield cast(BinaryIO, file)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "somebody"

"""What a host asks an agent, and what it may answer: whatever else it says is refused."""

from __future__ import annotations

from typing import BinaryIO, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Count
from dtvit_deploy.devices.transport import Transport
from dtvit_deploy.formats.job.words import clean
from dtvit_deploy.remote.bring import Agent

BRIEFLY = 15.0
"""Seconds that are waited for what nobody asks for any more."""


class Began(msgspec.Struct, frozen=True):
    """What has become of a job; ``missing`` has how many bytes of each missing blob are there."""

    state: Literal["began", "running", "done", "missing"]
    missing: dict[str, Count] = {}


class _Held(msgspec.Struct, frozen=True):
    held: bool
    by: str


class _Freed(msgspec.Struct, frozen=True):
    freed: Count


class Ended(msgspec.Struct, frozen=True):
    """A job that was ended on a device: its name, and the first of its tasks."""

    job: str
    tasks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"the job {clean(self.job)[:12]} ({clean(', '.join(self.tasks))[:200] or 'of another version'})"


class _Ended(msgspec.Struct, frozen=True):
    ended: tuple[Ended, ...]


class _Stopped(msgspec.Struct, frozen=True):
    stopped: bool


class _Log(msgspec.Struct, frozen=True):
    log: str


class Commands:
    """An agent's commands.

    Every one raises what `dtvit_deploy.remote.bring.Agent.call` does.

    Args:
        transport: the way to the device.
        python: its Python.
    """

    def __init__(self, transport: Transport, python: str) -> None:
        self.transport = transport
        self._agent = Agent(transport, python)

    @property
    def name(self) -> str:
        """The device's."""
        return self.transport.name

    def begin(self, content: bytes, who: str, *, wait: bool, first: bool) -> Began:
        """Have a job begun, as `dtvit_deploy.agent.jobs.begin`."""
        return self._agent.call("begin", who, "wait" if wait else "now", "new" if first else "again", answer=Began, stdin=content)

    def put(self, sha256: str, size: int, offset: int, stream: BinaryIO) -> None:
        """Send a blob, or the rest of it."""
        self._agent.call("put", sha256, str(size), str(offset), answer=object, stdin=stream)

    def following(self, identity: str, offset: int) -> list[str]:
        """The command whose output is a job's results from an offset on."""
        return self._agent.command("follow", identity, str(offset))

    def holder(self) -> str:
        """Who has the device since when, as they say; empty where nobody has."""
        found = self._agent.call("holder", answer=_Held)
        return clean(found.by) if found.held else ""

    def log(self, identity: str) -> str:
        """The end of what a job's worker said beside its results."""
        return clean(self._agent.call("log", identity, answer=_Log).log)

    def stop(self, identity: str) -> bool:
        """End whoever works at a job; whether somebody did."""
        return self._agent.call("stop", identity, answer=_Stopped, timeout=BRIEFLY).stopped

    def end(self) -> tuple[Ended, ...]:
        """End whoever works at this user's jobs; those that went on."""
        found = self._agent.call_where_used("end", answer=_Ended)
        return () if found is None else found.ended

    def forget(self, identity: str) -> None:
        """Remove a job and its results."""
        self._agent.call("forget", identity, answer=object, timeout=BRIEFLY)

    def clean(self) -> int:
        """Remove all that is kept; how many bytes that was."""
        found = self._agent.call_where_used("clean", answer=_Freed)
        return 0 if found is None else found.freed

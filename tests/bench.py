"""Who works for a command on a device, each found by what it was started with, so that it can be killed; and what is left of them.

Nothing here knows what the command does: whoever tries something says what it is to end with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from commandline import DEPLOY, answering
from devices import Board
from dtvit_deploy.remote.bring import _BOOT
from sshd import Sshd
from warm import Begun, WarmStart

KINDS = ("client", "ssh", "session", "command", "worker", "task", "connection", "listener")
"""Who can be killed: the command here, its ssh client that holds the connection, one that carries a command of the agent, that command
there, the worker of the job and the process of its task, the server's process for the connection, and the one that listens."""
EVENTS = ("bring", "put", "begin", "follow", "forget", "end")
"""Moments: as a command of the agent is seen, and as the worker has gone."""
HANGS = 600
"""Seconds after which a command is taken to hang."""
_LOOKS = 0.02
_AWAY = 1.0
"""Seconds that nobody listens."""
_GRACE = 20.0
"""Seconds that whoever has nobody to work for any more has to find out."""
_JOB = {"job.json", "results", "lock", "log"}


class Process(NamedTuple):
    parent: int
    words: list[str]


class Moment(NamedTuple):
    """When somebody is killed: so many seconds after the command's begin, or as an event is seen."""

    kind: str
    after: float = 0.0
    event: str = ""
    by: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        how = "" if self.by == signal.SIGKILL else f" by {self.by.name}"
        return f"{self.kind}{how} at {self.event}" if self.event else f"{self.kind}{how} after {self.after:.1f} s"


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit status, negative for a signal.
        out, said: its standard output and standard error.
        seconds: that it took.
        killed: whether there was somebody to kill.
    """

    code: int
    out: str
    said: str
    seconds: float
    killed: bool = False


def processes() -> dict[int, Process]:
    """Everything that runs, but what has ended and was not waited for."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, parent, *_ = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state != "Z":
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(folder.name)] = Process(int(parent), words[:-1])
    return found


@dataclass
class Bench:
    """A device behind a server, and the user's own folders, so that what is left in them is seen.

    Attributes:
        user: holds the home, the folder for temporary files and the one for what lives as long as a login.
    """

    server: Sshd
    board: Board
    user: Path

    def __post_init__(self) -> None:
        self._clients: list[int] = []
        self._warm = WarmStart()
        for name in ("home/.ssh", "tmp", "run"):
            (self.user / name).mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of whoever reaches it."""
        return os.environ | {
            "HOME": str(self.user / "home"),
            "TMPDIR": str(self.user / "tmp"),
            "XDG_RUNTIME_DIR": str(self.user / "run"),
            "DTVIT_DEPLOY_SSH_CONFIG": str(self.server.config),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, command: Sequence[str], cwd: Path, moment: Moment | None = None, drawn: random.Random | None = None, **env: str) -> Ended:
        """A command to its end, in which somebody may be killed; where several could be, one that ``drawn`` chooses."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
            process = self._begun(command, cwd, self.environment | env, out, said)
            began = time.monotonic()
            try:
                killed = moment is not None and self._disturb(process, moment, drawn or random.Random(0), began)
                process.wait(HANGS)
            finally:
                process.kill()
                process.wait()
            out.seek(0)
            said.seek(0)
            return Ended(process.wait(), out.read(), said.read(), time.monotonic() - began, killed)

    def lives(self, command: Sequence[str], cwd: Path, **env: str) -> tuple[Ended, dict[str, tuple[float, float]]]:
        """A command that nobody disturbs, and in which of its seconds each of `KINDS` was first and last seen."""
        seen: dict[str, tuple[float, float]] = {}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
            process = self._begun(command, cwd, self.environment | env, out, said)
            began = time.monotonic()
            while process.poll() is None:
                everybody, now = processes(), time.monotonic() - began
                for kind in KINDS:
                    if self._who(kind, process.pid, everybody):
                        seen[kind] = (seen.get(kind, (now, now))[0], now)
                time.sleep(_LOOKS)
            out.seek(0)
            said.seek(0)
            return Ended(process.wait(), out.read(), said.read(), time.monotonic() - began), seen

    def left(self) -> list[str]:
        """What still runs, and files that are neither the user's nor of the device's cache, once everybody had time to end."""
        until = time.monotonic() + _GRACE
        while (found := [*self._running(), *self._litter()]) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _begun(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], out: IO[str], said: IO[str]
    ) -> Begun | subprocess.Popen[bytes]:
        if command[0] == DEPLOY:  # in a process that has the frameworks already: most of what a command takes otherwise
            process: Begun | subprocess.Popen[bytes] = self._warm.begin([*command[1:]], cwd, environment, out.fileno(), said.fileno())
        else:
            process = subprocess.Popen(
                list(command), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=said, preexec_fn=answering
            )
        self._clients.append(process.pid)
        return process

    def _disturb(self, process: Begun | subprocess.Popen[bytes], moment: Moment, drawn: random.Random, began: float) -> bool:
        before = set(self.board.workers())
        while process.poll() is None:
            everybody = processes()
            due = self._seen(moment.event, everybody, before) if moment.event else time.monotonic() - began >= moment.after
            if due and (found := self._who(moment.kind, process.pid, everybody)):
                if moment.kind == "listener":
                    self.server.listen_anew(_AWAY)
                    return True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(drawn.choice(found), moment.by)
                    return True
            time.sleep(_LOOKS)
        return False

    def _seen(self, event: str, everybody: Mapping[int, Process], before: set[int]) -> bool:
        if event != "end":
            return any(event in process.words for process in self._commands(everybody).values())
        working = {pid for pid, process in everybody.items() if self._is_ours(process, "agent.worker import main")}
        gone = bool(before) and not working
        before |= working
        return gone

    def _who(self, kind: str, client: int, everybody: Mapping[int, Process]) -> list[int]:
        if kind == "client":
            return [client] if client in everybody else []
        if kind in ("ssh", "session"):
            below = {pid: everybody[pid] for pid in _below(client, everybody)}
            return [
                pid for pid, (_, words) in below.items() if words[:1] == ["ssh"] and "-S" in words and ("-M" in words) is (kind == "ssh")
            ]
        if kind == "command":
            return list(self._commands(everybody))
        if kind == "connection":
            return self.server.sessions()
        if kind == "listener":
            return [client] if client in everybody else []  # for as long as somebody may want to connect
        code = "agent.worker import main" if kind == "worker" else "agent.tasks import"
        return [pid for pid, process in everybody.items() if self._is_ours(process, code)]

    def _commands(self, everybody: Mapping[int, Process]) -> dict[int, Process]:
        """Calls of the agent there."""
        lease = str(self.board.folder / "lease").encode()
        return {pid: one for pid, one in everybody.items() if _BOOT in one.words and lease in _environment(pid)}

    def _is_ours(self, process: Process, code: str) -> bool:
        return str(self.board.root) in process.words and any(code in word for word in process.words)

    def _running(self) -> Iterator[str]:
        everybody = processes()
        names = [f"dtvit-deploy-{client}-" for client in self._clients]
        for pid, process in everybody.items():
            words = " ".join(process.words)
            ours = str(self.board.root) in words or any(name in words for name in names)  # a number alone may be another's by now
            if ours or (str(self.server.config) in words) or pid in self._commands({pid: process}):
                yield f"process {pid}: {words[:200]}"
        yield from (f"the server's process {pid}" for pid in self.server.sessions())

    def _litter(self) -> Iterator[str]:
        for name in ("tmp", "run", "home/.ssh"):
            yield from (str(path) for path in (self.user / name).iterdir())
        yield from (str(path) for client in self._clients for path in Path("/tmp").glob(f"dtvit-deploy-{client}-*"))
        root = self.board.root
        kept = {"agent": r"[0-9a-f]{64}\.zip", "blobs": r"[0-9a-f]{64}", "jobs": r"[0-9a-f]{64}"}
        for path in root.glob("*/*"):
            if not re.fullmatch(kept.get(path.parent.name, "-"), path.name):
                yield str(path)
        yield from (str(path) for path in root.glob("jobs/*/*") if path.name not in _JOB)
        yield from (str(path) for path in self.board.folder.iterdir() if path.name not in ("cache", "lease", "packages", "python"))
        if _is_held(self.board.folder / "lease"):
            yield "the lease is held"


def _below(parent: int, everybody: Mapping[int, Process]) -> list[int]:
    children = [pid for pid, process in everybody.items() if process.parent == parent]
    return children + [each for child in children for each in _below(child, everybody)]


def _environment(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def _is_held(lease: Path) -> bool:
    if not lease.exists():
        return False
    with lease.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

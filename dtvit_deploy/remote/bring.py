"""The agent on a device: brought there once, known by its digest, and called.

What is run there first is one line of Python that any version reads. It runs the agent's archive if it has the right bytes, and says if it
has not; then the archive is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO, TypeVar

import msgspec

from dtvit_deploy.agent.archive import agent_archive
from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.devices.needs import PYTHON
from dtvit_deploy.devices.transport import Finished, LostError, Transport
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.words import clean

Said = TypeVar("Said")
HOME = "dtvit-deploy-device"
"""The agent's folder in the user's cache on a device."""
_NOTHING, _ABSENT, _OLD = 65, 66, 67
_BOOT = f"""
import sys
if sys.path and not sys.path[0]: del sys.path[0]
sys.dont_write_bytecode = True
import hashlib, os, runpy
digest, words = sys.argv[1], sys.argv[2:]
base = os.environ.get("XDG_CACHE_HOME", "")
base = base if os.path.isabs(base) else os.path.join(os.path.expanduser("~"), ".cache")
if not os.path.isabs(base): sys.exit("there is no home folder, and XDG_CACHE_HOME names no other place")
folder = os.path.join(base, "{HOME}", "agent")
place = os.path.join(folder, digest + ".zip")
if sys.version_info < {PYTHON!r}:
    print(sys.version.split()[0]); sys.exit({_OLD})
def closed():
    found = os.stat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & 18: sys.exit("others can write " + folder + ", and what they put there would be run")
def fits(content): return hashlib.sha256(content).hexdigest() == digest
if words == ["bring"]:
    content = sys.stdin.buffer.read(1 << 26)
    if not fits(content): sys.exit("it was altered on its way")
    os.umask(63)
    try:
        os.makedirs(folder, exist_ok=True)
        closed()
        part = place + "." + str(os.getpid())
        with open(part, "wb") as file: file.write(content)
        os.replace(part, place)
    except OSError as error:
        try: os.unlink(part)
        except (OSError, NameError): pass
        sys.exit(str(error))
    sys.exit(0)
try:
    closed()
    with open(place, "rb") as file: content = file.read()
except OSError: content = b""
if not fits(content): sys.exit({_ABSENT} if os.path.isdir(os.path.dirname(folder)) else {_NOTHING})
del content
sys.argv = [place] + words
runpy.run_path(place, run_name="__main__")
"""


class Agent:
    """The agent on one device.

    Args:
        transport: the way there.
        python: the device's Python, a program of its.
    """

    def __init__(self, transport: Transport, python: str = "python3") -> None:
        self.transport, self.python = transport, python
        self._archive = agent_archive()

    @property
    def sha256(self) -> str:
        """The agent's digest, which a job names."""
        return self._archive.sha256

    def command(self, *words: str) -> list[str]:
        """What calls the agent with such words, once it is there."""
        return [self.python, "-c", _BOOT, self.sha256, *words]

    def call_where_used(self, *words: str, answer: type[Said], timeout: float | None = None) -> Said | None:
        """As `call`, but on a device that holds nothing of ours, to which no agent is brought for that: None."""
        found = self.transport.run(self.command(*words), timeout=timeout)
        if found.returncode == _NOTHING:
            return None
        return self.call(*words, answer=answer, timeout=timeout) if found.returncode == _ABSENT else self._said(found, words, answer)

    def call(self, *words: str, answer: type[Said], stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Said:
        """Call the agent, which is brought there first where it is not, or is damaged.

        Args:
            words: the command and what belongs to it.
            answer: what it answers, of JSON.
            stdin: what it is given; a file that can be read twice.
            timeout: seconds until it is given up; None: it has the time that it takes.

        Raises:
            InputError, MissingError: as it fails there; or it answers something else; or the device lacks Python, or has too old a one.
            LostError: the connection went away, or somebody ended the agent.
            RuntimeError: a defect of the agent.
        """
        start = 0 if isinstance(stdin, bytes) else stdin.tell()
        found = self.transport.run(self.command(*words), stdin=stdin, timeout=timeout)
        if found.returncode in (_NOTHING, _ABSENT):
            self._bring()
            if not isinstance(stdin, bytes):
                stdin.seek(start)
            found = self.transport.run(self.command(*words), stdin=stdin, timeout=timeout)
        return self._said(found, words, answer)

    def _said(self, found: Finished, words: Sequence[str], answer: type[Said]) -> Said:
        if found.returncode:
            raise self._failure(found, words)
        try:
            require_shallow_json(found.stdout)
            return msgspec.json.decode(found.stdout or b"null", type=answer)
        except ValueError as error:
            raise InputError(f"{self.transport.name} answers what the agent would not ({words[0]}): {clean(str(error))}") from error

    def _bring(self) -> None:
        found = self.transport.run(self.command("bring"), stdin=self._archive.content)
        if found.returncode:
            raise self._failure(found, ("bring",))

    def _failure(self, found: Finished, words: Sequence[str]) -> Exception:
        name = self.transport.name
        said = clean((found.stderr.decode(errors="replace").strip().splitlines() or [""])[-1])
        if found.returncode == _OLD:
            version = clean(found.stdout.decode(errors="replace").strip())
            return MissingError(
                f"{name}: {self.python} is Python {version}, and the agent needs {'.'.join(map(str, PYTHON))} or later",
                remedy=f"name another Python of the device, as python{'.'.join(map(str, PYTHON))}",
            )
        if found.returncode < 0 or 128 < found.returncode < 255:
            number = -found.returncode if found.returncode < 0 else found.returncode - 128
            return LostError(f"{name}: the agent was ended by signal {number} ({words[0]})", remedy="see what ends processes there")
        if found.returncode in (126, 127):
            return MissingError(f"{name}: {self.python} cannot be run: {said}", remedy="install Python there, or name the one that it has")
        if found.returncode in (_NOTHING, _ABSENT):
            return MissingError(
                f"{name}: the agent was brought there, and is not there", remedy="see whether the device's disk keeps what is written"
            )
        try:
            told = json.loads(said)
            message, remedy, code = clean(str(told["error"])), told["remedy"], told["exit_code"]
        except (ValueError, KeyError, TypeError, RecursionError):
            told = said or f"exit status {found.returncode}"
            if words[0] == "bring":
                return MissingError(
                    f"{name}: the agent cannot be kept there: {told}",
                    remedy="make room there, or set XDG_CACHE_HOME there to a folder of the user's that has some",
                )
            return MissingError(
                f"{name}: the agent cannot be called there ({words[0]}): {told}", remedy="see what the device's Python lacks"
            )
        remedy = clean(remedy) if isinstance(remedy, str) else None
        if code == MissingError.exit_code:
            return MissingError(f"{name}: {message}", remedy=remedy)
        if code == InputError.exit_code:
            return InputError(f"{name}: {message}", remedy=remedy)
        return RuntimeError(f"{name}: the agent failed: {message}")

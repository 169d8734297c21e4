"""A device over the system's own ssh client: the user's keys, agent, configuration, jump hosts and known hosts apply (docs/adr/0026).

One client holds the connection (``ControlMaster``), and each command is a session over it: none of them connects, and none can ask.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from typing_extensions import Self

from dtvit_deploy.artifacts.scratch import scratch_folder, temporary_folder
from dtvit_deploy.devices import ssh_options
from dtvit_deploy.devices.address import Address
from dtvit_deploy.devices.exchange import WORDS, Finished, TooLongError, end, exchange, followed
from dtvit_deploy.devices.login_shell import Line
from dtvit_deploy.devices.ssh_failure import unreachable
from dtvit_deploy.devices.transport import LostError, command_words, too_long
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.words import last_line
from dtvit_deploy.process.ending import removed_at_the_end, uninterrupted

_LONGEST_SOCKET = 84
"""Letters of the socket's path: macOS allows 103, and ssh makes the socket under a name that is 17 letters longer."""
_LOOKS = 0.02
_REFUSED = b"Session open refused by peer"
_FREED = 2.0
"""Seconds in which a server that allows one session may still refuse the next: the client learns of an end before the server counts it."""
_GUARD = (
    'exec 3<&0; "$@" </dev/null 3<&- & ssh=$!; (read -r _ <&3; kill -9 "$ssh") >/dev/null 2>&1 & guard=$!; exec 3<&- </dev/null;'
    ' wait "$ssh"; status=$?; kill "$guard" 2>/dev/null; exit "$status"'
)
"""Runs the client that holds the connection, and ends it when its own input ends: that is when this process is gone, however it ended."""


class Connection:
    """A connection, within a ``with`` block: a `dtvit_deploy.devices.transport.Transport`.

    When it is lost, each of its commands says so by `LostError`, and whoever wants to goes on with a new one.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._held = contextlib.ExitStack()
        self._master: subprocess.Popen[bytes] | None = None
        self._client: list[str] = []
        self._errors: Path | None = None

    @property
    def name(self) -> str:
        return str(self.address)

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            InputError: the ssh client does not accept its configuration.
            MissingError: there is no ssh client, or the device cannot be reached; says why.
        """
        said = ssh_options.settings(self.address)
        with contextlib.ExitStack() as held:
            folder = held.enter_context(scratch_folder(_folder))
            socket = ssh_options.socket_name(str(folder / "s"))
            self._errors = folder / "said"
            command = [*ssh_options.client(), *ssh_options.options(said), "-M", "-N", "-T", "-S", socket, *self.address.arguments]
            self._master = held.enter_context(_master(command, self._errors))
            self._await(self._master, folder / "s", said)
            self._client = ssh_options.session(socket)
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def run(self, command: Sequence[str], *, stdin: bytes | BinaryIO = b"", timeout: float | None = None) -> Finished:
        """As `dtvit_deploy.devices.transport.Transport.run`.

        Raises:
            MissingError: the login shell there runs no commands.
        """
        line = Line(command_words(command))
        self._require_alive()
        try:
            done = self._exchanged(line.text, stdin, timeout)
        except TimeoutError as error:
            raise LostError(f"{self.name} has not answered within {timeout:g} s", remedy="see whether it is still there") from error
        except TooLongError as error:
            raise too_long(self.name, command) from error
        answer = line.answer(done)
        if answer is not None:
            return answer
        if line.was_cut(done):
            raise self._lost(done.stderr)
        raise self._no_commands(done.stderr or done.stdout)

    @contextlib.contextmanager
    def following(self, command: Sequence[str]) -> Iterator[BinaryIO]:
        """As `dtvit_deploy.devices.transport.Transport.following`.

        Raises:
            MissingError: the login shell there runs no commands.
        """
        until = time.monotonic() + _FREED
        while True:
            line = Line(command_words(command))
            self._require_alive()
            with followed([*self._client, line.text], environment=ssh_options.environment()) as stream:
                if line.begins(stream):
                    yield stream
                    return
            self.run(["true"])  # which says what is wrong; where nothing is, no session was free
            if time.monotonic() > until:
                raise self._lost(b"")

    def _exchanged(self, line: str, stdin: bytes | BinaryIO, timeout: float | None) -> Finished:
        """A session, asked for again for a moment where the server refuses one: nothing of the command has run then."""
        until = time.monotonic() + _FREED
        start = 0 if isinstance(stdin, bytes) else stdin.tell() if stdin.seekable() else None
        while True:
            done = exchange([*self._client, line], stdin=stdin, timeout=timeout, environment=ssh_options.environment())
            if _REFUSED not in done.stderr or done.stdout or start is None or time.monotonic() > until:
                return done
            if not isinstance(stdin, bytes):
                stdin.seek(start)
            time.sleep(_LOOKS)

    def _await(self, master: subprocess.Popen[bytes], socket: Path, settings: Mapping[str, str]) -> None:
        """Wait until the client has logged in: that is when it makes its socket, whole, under this name."""
        until = time.monotonic() + ssh_options.patience(settings)
        while not socket.exists():
            ended = master.poll() is not None
            if ended or time.monotonic() > until:
                said = self._said() if ended else b"timed out: it was neither let in nor refused"
                raise unreachable(self.address, settings, said, loosened=ssh_options.unchecked(settings))
            time.sleep(_LOOKS)

    def _said(self) -> bytes:
        """The end of what the client that holds the connection has said."""
        with contextlib.suppress(OSError):
            if self._errors is not None:
                with self._errors.open("rb") as file:
                    file.seek(max(0, self._errors.stat().st_size - WORDS))
                    return file.read(WORDS)
        return b""

    def _require_alive(self) -> None:
        if self._master is None or self._master.poll() is not None:
            raise self._lost(b"")

    def _lost(self, said: bytes) -> LostError:
        # Where the connection stands, a session was refused; what the client then says of its attempt to go on without it is no news.
        alone = b"\n".join(line for line in said.splitlines() if not line.startswith(b"kex_exchange_identification"))
        words = last_line(self._said()) or last_line(alone)
        return LostError(f"the connection to {self.name} is lost{f': {words}' if words else ''}", remedy="connect again")

    def _no_commands(self, said: bytes) -> MissingError:
        words = last_line(said)
        return MissingError(
            f"{self.name} let us in, and its login shell runs no command{f': {words}' if words else ''}",
            remedy="give the user there a shell (chsh), and no forced command for this key",
        )


@contextlib.contextmanager
def _master(command: Sequence[str], errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The client that holds the connection, until the block ends or this process does, by whatever means."""
    with contextlib.ExitStack() as held:
        said = held.enter_context(errors.open("wb"))
        with uninterrupted():  # between its start and the note that it must end
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=ssh_options.environment(),
                start_new_session=True,
            )
            held.enter_context(removed_at_the_end(lambda: end(process)))
        yield process


def _folder() -> tuple[Path, int]:
    """A private folder whose name is short enough for a socket in it.

    Raises:
        InputError: there is no place for it.
    """
    tried = dict.fromkeys(Path(place) for place in (tempfile.gettempdir(), "/tmp"))
    for place in tried:
        if len(os.fsencode(place)) + len("/dtvit-deploy-4194304-01234567/s") <= _LONGEST_SOCKET:
            with contextlib.suppress(OSError):
                return temporary_folder(place)
    raise InputError(
        f"there is no place for the socket of a connection: tried {', '.join(map(str, tried))}",
        remedy="set TMPDIR to a folder of yours with a short name",
    )

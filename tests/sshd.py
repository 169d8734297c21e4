"""A device at hand: Debian's own ssh server on a free port of this machine, with keys, users' home and configuration of its own.

Nothing of the user's is read, and nothing of the system's is touched: the server runs in the foreground of a process of ours. The client
finds it by the configuration file that `DTVIT_DEPLOY_SSH_CONFIG` names, as a user's bench would be found.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAM = "/usr/sbin/sshd"
SEPARATED = Path("/run/sshd")
"""An empty folder that a server of root's wants to see; the system's unit makes it."""
LONGEST = 20.0
"""Seconds until a server that has not begun to listen is taken for one that never will."""
ALIAS = "device-at-hand"


def required() -> None:
    """Have an ssh server on this machine, or skip with the reason."""
    if shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client (openssh-client)")
    if Path(PROGRAM).exists():
        return
    # Where systemd runs, installing the package would start the system's server, which is nobody's wish.
    if os.geteuid() != 0 or shutil.which("apt-get") is None or Path("/run/systemd/system").exists():
        pytest.skip("needs Debian's openssh-server, which is installed by itself only as root and where no systemd would start it")
    with (Path(tempfile.gettempdir()) / "dtvit-deploy-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # files of tests run side by side
        if not Path(PROGRAM).exists():
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            for words in (["update"], ["install", "-y", "--no-install-recommends", "openssh-server"]):
                done = subprocess.run(["apt-get", "-q", *words], env=quiet, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    pytest.skip(f"openssh-server cannot be installed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


@dataclass
class Sshd:
    """A server and all that its client needs.

    Attributes:
        folder: holds everything.
        home: what is the user's home there.
        variables: of the sessions, besides `HOME`.
        force: a command in place of what the client asks for, which it finds in `SSH_ORIGINAL_COMMAND`; empty runs what is asked.
        lines: more of the server's configuration.
        host: the address at which it listens.
        inside: words before the server's own, which run it elsewhere: in a network namespace.
    """

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    force: str = ""
    lines: tuple[str, ...] = ()
    port: int = 0
    host: str = "127.0.0.1"
    inside: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None
    _former: list[int] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def config(self) -> Path:
        """The client's configuration."""
        return self.folder / "client"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def address(self) -> str:
        return f"ssh://{ALIAS}"

    def prepare(self) -> None:
        """Make the keys, and a client's configuration that knows the server's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        for name in ("host", "user"):
            self.make_key(name)
        shutil.copy(self.folder / "user.pub", self.folder / "authorized")
        self.port = self.port or free_port()
        self.know(self.folder / "host.pub")
        self.configure()

    def make_key(self, name: str, passphrase: str = "") -> Path:
        path = self.folder / name
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    def know(self, public: Path) -> None:
        """Have the client know one key as the server's, and no other."""
        kind, key, *_ = public.read_text().split()
        (self.folder / "known").write_text(f"[{self.host}]:{self.port} {kind} {key}\n")

    def configure(self, *more: str, key: str = "user", alias: str = ALIAS) -> None:
        """Write the client's configuration; ``more`` comes first, and so before what is there."""
        lines = (
            *more,
            f"HostName {self.host}",
            f"Port {self.port}",
            f"IdentityFile {self.folder / key}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.folder / 'known'}",
            "GlobalKnownHostsFile /dev/null",
        )
        self.config.write_text("\n  ".join((f"Host {alias}", *lines)) + "\n")

    def start(self) -> None:
        if os.geteuid() == 0:
            SEPARATED.mkdir(mode=0o755, exist_ok=True)
        variables = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / ".cache"), **self.variables}
        lines = (
            *self.lines,
            f"Port {self.port}",
            f"ListenAddress {self.host}",
            f"HostKey {self.folder / 'host'}",
            f"PidFile {self.folder / 'pid'}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            "StrictModes no",  # the folder for temporary files is everybody's
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "PrintMotd no",
            "LogLevel VERBOSE",
            "SetEnv " + " ".join(f'{name}="{value}"' for name, value in variables.items()),
            *((f"ForceCommand {self.force}",) if self.force else ()),
        )
        (self.folder / "server").write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            command = [*self.inside, PROGRAM, "-f", str(self.folder / "server"), "-p", str(self.port), "-D", "-e"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={"PATH": os.defpath}
            )
        until = time.monotonic() + LONGEST
        while not listens(self.host, self.port):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and every session that it has: for a client, the machine is gone."""
        if self._process is not None:
            for number in (*self.sessions(), self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, 9)
            self._process.wait()
            self._process = None

    def listen_anew(self, away: float) -> None:
        """Kill who listens, and have another listen after so many seconds; connections that stand go on."""
        assert self._process is not None
        self._former = self.sessions()
        self._process.kill()
        self._process.wait()
        time.sleep(away)
        self.start()

    def sessions(self) -> list[int]:
        """The server's own processes that serve connections; what they have started there is not among them."""
        everybody = _servers()
        served = [] if self._process is None else _served_by(self._process.pid, everybody)
        return [*(number for number in self._former if number in everybody), *served]


def _servers() -> dict[int, int]:
    """Every process of an ssh server on this machine, with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            name, _, state = stat.read_text(errors="replace").rpartition(")")
            if "sshd" in name and not state.startswith(" Z"):
                found[int(stat.parent.name)] = int(state.split()[1])
    return found


def _served_by(server: int, everybody: Mapping[int, int]) -> list[int]:
    children = [number for number, parent in everybody.items() if parent == server]
    return [each for child in children for each in (*_served_by(child, everybody), child)]


def listens(host: str, port: int) -> bool:
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex((host, port)) == 0


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@contextlib.contextmanager
def sshd(folder: Path, **what: object) -> Iterator[Sshd]:
    """A server that runs in the block; see `Sshd` for what can be said of it."""
    required()
    server = Sshd(folder, **what)  # type: ignore[arg-type]
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop()

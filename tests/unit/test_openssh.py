"""A connection to a real ssh server: words arrive as they are, answers come back alone, and what is lost is said to be lost."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import processes
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.ssh_options import options, settings
from dtvit_deploy.devices.transport import LostError, Shell, Transport
from dtvit_deploy.errors import InputError, MissingError
from sshd import Sshd, sshd

HOSTILE = [
    "a b",
    "$(touch pwned)",
    "`touch pwned`",
    'it\'s "q"',
    "!x !! \\",
    "\\\\n",
    "%d %s",
    "a\nb",
    "-n",
    "",
    "é ☃",
    "~",
    "*",
    "#",
    ";touch pwned",
]
TELL = "import os, sys; print([os.fsencode(each) for each in sys.argv[1:]])"
NOISE = "echo welcome; echo you have mail >&2; printf 'no newline'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("device")) as found:
        yield found


def connected(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
    return Connection(parse(server.address))


@pytest.fixture(params=["ssh", "a shell here"])
def device(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    if request.param != "ssh":
        yield Shell(tmp_path)
        return
    with connected(request.getfixturevalue("server"), monkeypatch) as connection:
        yield connection


def test_words_arrive_as_they_are_and_run_nothing(device: Transport) -> None:
    done = device.run([sys.executable, "-c", TELL, *HOSTILE])
    assert done.stdout.decode().strip() == str([os.fsencode(each) for each in HOSTILE])
    assert done.returncode == 0


@pytest.mark.parametrize("first", ["if", "A=b", "-x", "$(true)", "nobody's program", "{"])
def test_the_first_word_is_a_program_whatever_it_is_called(device: Transport, first: str) -> None:
    assert device.run([first, "x"]).returncode == 127


def test_each_stream_and_the_status_are_the_commands_own(device: Transport) -> None:
    done = device.run(["sh", "-c", "cat; echo wrong >&2; exit 255"], stdin=b"asked")
    assert done == (255, b"asked", b"wrong\n")
    assert device.run(["sh", "-c", "exit 1"]) == (1, b"", b"")


def test_a_file_is_fed_while_the_answer_is_taken(device: Transport) -> None:
    content = os.urandom(3 << 20)
    assert device.run(["cat"], stdin=io.BytesIO(content)).stdout == content


def test_a_command_that_does_not_read_is_no_trouble(device: Transport) -> None:
    assert device.run(["sh", "-c", "exec <&-; echo done"], stdin=b"x" * (1 << 20)).stdout == b"done\n"


def test_a_command_that_closes_its_outputs_is_fed_to_the_end(device: Transport, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    assert device.run(["sh", "-c", 'exec >&- 2>&-; cat > "$0"', str(taken)], stdin=b"x" * (1 << 20), timeout=20) in ((0, b"", b""),)
    assert taken.stat().st_size == 1 << 20


def test_an_answer_without_end_is_refused(device: Transport) -> None:
    with pytest.raises(InputError, match="more than 16 MiB to `yes`"):
        device.run(["yes"])


def test_words_without_end_keep_their_end(device: Transport) -> None:
    done = device.run(["sh", "-c", "yes | head -c 1000000 >&2; echo reason >&2; exit 3"])
    assert done.returncode == 3
    assert len(done.stderr) <= 64 << 10
    assert done.stderr.endswith(b"reason\n")


def test_a_device_that_does_not_answer_in_time_is_lost(device: Transport) -> None:
    with pytest.raises(LostError, match=r"has not answered within 0\.2 s"):
        device.run(["sleep", "30"], timeout=0.2)
    assert device.run(["echo", "here"]).stdout == b"here\n"


@pytest.mark.parametrize("command", [[], ["a\0b"], ["a", "\ud800"], ["x" * 20_000]])
def test_what_is_no_command_is_refused(device: Transport, command: list[str]) -> None:
    with pytest.raises(InputError, match="this is no command"):
        device.run(command)


def test_a_long_command_is_followed_while_it_runs_and_learns_when_nobody_does(device: Transport, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with device.following(["sh", "-c", 'echo one; read more; echo "more:$more" > "$0"', str(ended)]) as stream:
        assert stream.readline() == b"one\n"
        assert not ended.exists()
    if device.name.startswith("ssh"):  # a shell of this machine is ended itself
        until = time.monotonic() + 10
        while not ended.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert ended.read_text() == "more:\n"


def test_many_commands_take_one_connection(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    before = server.log.count("Accepted publickey")
    with connected(server, monkeypatch) as connection:
        assert [connection.run(["echo", str(number)]).stdout for number in range(4)] == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert server.log.count("Accepted publickey") == before + 1


def test_nothing_is_left_of_a_connection(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's name has little room
        monkeypatch.setattr("tempfile.tempdir", short)
        with connected(server, monkeypatch) as connection:
            connection.run(["true"])
            (folder,) = Path(short).iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(Path(short).iterdir())
    with pytest.raises(LostError):
        connection.run(["true"])


@pytest.mark.parametrize("name", ["100%h", "a b", "x" * 90])
def test_the_folder_for_temporary_files_may_be_called_anything(
    server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("t") / name
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with connected(server, monkeypatch) as connection:
        assert connection.run(["echo", "here"]).stdout == b"here\n"


@pytest.mark.parametrize(
    "shell",
    [
        "bash -c",
        "dash -c",
        "fish -c",
        "tcsh -c",
        "busybox sh -c",
        f"bash -c '{NOISE.replace(chr(39), chr(34))}; eval \"$0\"'",
        f"sh -c '{NOISE.replace(chr(39), chr(34))}; eval \"$0\"; code=$?; echo bye; echo bye >&2; exit $code'",
    ],
    ids=["bash", "dash", "fish", "tcsh", "busybox", "noisy", "noisy to the end"],
)
def test_any_login_shell_passes_words_on_and_its_own_words_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, request: pytest.FixtureRequest
) -> None:
    program = shell.partition(" ")[0]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}, which Debian has in a package of that name")
    with sshd(tmp_path / "device", force=f'{shell} "$SSH_ORIGINAL_COMMAND"') as server, connected(server, monkeypatch) as connection:
        done = connection.run([sys.executable, "-c", TELL, *HOSTILE])
        assert done.stdout.decode().splitlines()[0] == str([os.fsencode(each) for each in HOSTILE])
        assert connection.run(["sh", "-c", "cat; echo wrong >&2; exit 7"], stdin=b"x\n")[::2] == (7, b"wrong\n")
        with connection.following(["echo", "first"]) as stream:
            assert stream.readline() == b"first\n"


def test_a_user_who_may_run_nothing_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    force = "/bin/sh -c 'echo This account is not available.; exit 1'"
    with sshd(tmp_path / "device", force=force) as server, connected(server, monkeypatch) as connection:
        with pytest.raises(MissingError, match=r"runs no command: This account is not available"):
            connection.run(["true"])
        with pytest.raises(MissingError, match="runs no command"), connection.following(["true"]):
            pass


def test_a_connection_that_goes_away_is_lost_and_the_next_one_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(tmp_path / "device") as server:
        with connected(server, monkeypatch) as connection:
            with connection.following(["sh", "-c", "echo here; cat"]) as stream:
                assert stream.readline() == b"here\n"
                server.stop()
                assert stream.read() == b""
            with pytest.raises(LostError, match="is lost"):
                connection.run(["true"])
            with pytest.raises(LostError), connection.following(["true"]):
                pass
        with pytest.raises(MissingError, match="no ssh server answers at that port"), connected(server, monkeypatch):
            pass
        server.start()
        with connected(server, monkeypatch) as connection:
            assert connection.run(["echo", "again"]).stdout == b"again\n"


def test_a_connection_that_goes_away_during_a_command_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(tmp_path / "device") as server, connected(server, monkeypatch) as connection:
        cut = Cut(server)
        with pytest.raises(LostError, match="is lost"):
            connection.run(["cat"], stdin=cut)  # type: ignore[arg-type]


class Cut(io.RawIOBase):
    """A file in whose middle the device goes away."""

    def __init__(self, server: Sshd) -> None:
        self._server, self._pieces = server, [b"x" * 1000, b"y" * 1000]

    def read(self, size: int = -1) -> bytes:
        del size
        if len(self._pieces) == 1:
            self._server.stop()
        return self._pieces.pop(0) if self._pieces else b""


def test_a_command_whose_client_is_killed_is_lost_and_the_connection_stands(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(server, monkeypatch) as connection:
        with pytest.raises(LostError, match="is lost"):
            connection.run(["cat"], stdin=KillsTheClient())  # type: ignore[arg-type]
        assert connection.run(["echo", "here"]).stdout == b"here\n"


class KillsTheClient(io.RawIOBase):
    """A file in whose middle somebody kills the ssh client of the command that reads it."""

    _pieces = 2

    def read(self, size: int = -1) -> bytes:
        del size
        self._pieces -= 1
        if not self._pieces:
            for pid, process in processes().items():
                if process.parent == os.getpid() and process.words[:1] == ["ssh"]:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        return b"x" * 1000 if self._pieces >= 0 else b""


@pytest.mark.parametrize("whose", ["$PPID", "$$"])
def test_a_shell_that_somebody_kills_there_is_no_shell_that_runs_nothing(server: Sshd, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    with connected(server, monkeypatch) as connection:
        if whose == "$$":  # the command's own: its status is told
            assert connection.run(["sh", "-c", f"kill -9 {whose}"]).returncode == 137
            return
        with pytest.raises(LostError, match="is lost"):
            connection.run(["sh", "-c", f"kill -9 {whose}"])


def test_the_socket_of_a_process_that_was_killed_goes_with_the_next_connection(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr("tempfile.tempdir", short)
        left, notes = Path(short) / "dtvit-deploy-4194304-0123abcd", Path(short) / "dtvit-deploy-notes"
        for folder in (left, notes):
            folder.mkdir()
        with connected(server, monkeypatch):
            assert not left.exists()
        assert list(Path(short).iterdir()) == [notes]


def test_a_server_that_allows_one_session_at_a_time_is_enough_for_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(tmp_path / "device", lines=("MaxSessions 1",)) as server, connected(server, monkeypatch) as connection:
        assert connection.run(["echo", "one"]).stdout == b"one\n"
        with connection.following(["cat"]), pytest.raises(LostError, match="Session open refused"):
            connection.run(["echo", "two"])
        for _ in range(10):  # each directly after the end of another, which the server may not have counted yet
            with connection.following(["echo", "three"]) as stream:
                assert stream.read() == b"three\n"
            with io.BytesIO(b"four") as given:
                assert connection.run(["cat"], stdin=given).stdout == b"four"


def test_signs_of_life_are_asked_for_unless_the_user_has_said_how_often(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds of the client set an interval of minutes as soon as nobody may be asked, which is no wish of the user's."""
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
    assert "ServerAliveInterval=10" in options(settings(parse(server.address)))
    server.configure("ServerAliveInterval 60")
    assert not [word for word in options(settings(parse(server.address))) if word.startswith("ServerAlive")]
    server.configure()


def test_a_device_that_falls_silent_is_lost_before_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(tmp_path / "device") as server:
        server.configure("ServerAliveInterval 1", "ServerAliveCountMax 1")
        with connected(server, monkeypatch) as connection, connection.following(["sh", "-c", "echo here; cat"]) as stream:
            assert stream.readline() == b"here\n"
            for number in server.sessions():
                os.kill(number, signal.SIGSTOP)
            assert stream.read() == b""
            with pytest.raises(LostError):
                connection.run(["true"])

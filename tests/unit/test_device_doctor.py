"""``doctor --device`` over a real connection: what it tells, how it fails, and that nothing runs on when it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commandline import DEPLOY, answering, deploy
from dtvit_deploy.devices.address import parse
from dtvit_deploy.devices.inventory import FILE
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.probe import probe
from sshd import Sshd, sshd

NEEDED = ("cat", "date", "df", "env", "grep", "id", "readlink", "sed", "sh", "sleep", "touch", "tr", "uname")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A device in whose PATH there is what every system has, and no Python."""
    folder = tmp_path_factory.mktemp("path")
    for name in NEEDED:
        (folder / name).symlink_to(shutil.which(name) or f"/no/{name}")
    with sshd(tmp_path_factory.mktemp("device"), variables={"PATH": str(folder)}) as found:
        yield found


@pytest.fixture
def bench(tmp_path: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with an inventory."""
    monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
    entry = f'[[device]]\naddress = "{server.address}"\n'
    text = f'{entry}name = "good"\ntags = ["all"]\npython = "{sys.executable}"\n{entry}name = "bare"\ntags = ["all"]\n'
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\necho python_version 3.8.10\n")
    old.chmod(0o755)
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/began\nexec sleep 30\n")
    slow.chmod(0o755)
    text += f'{entry}name = "old"\npython = "{old}"\n{entry}name = "slow"\npython = "{slow}"\n'
    (tmp_path / FILE).write_text(text)
    return tmp_path


def test_a_device_that_will_do_is_told_and_programs_can_read_it(bench: Path, server: Sshd) -> None:
    (found,) = json.loads(deploy("doctor", "--device", "good", "--json", cwd=bench, code=None, fresh=True).stdout)
    assert (found["name"], found["address"]) == ("good", server.address)
    assert found["facts"]["python_version"] == [*sys.version_info[:3]]
    assert found["facts"]["cache"] == str(server.home / ".cache")
    assert found["facts"]["packages"]["numpy"]
    assert "numpy" in deploy("doctor", "--device", "good", cwd=bench, code=None, fresh=True).stdout


def test_a_device_without_python_is_one_message_and_exit_code_3(bench: Path) -> None:
    done = deploy("doctor", "--device", "bare", cwd=bench, code=3, fresh=True)
    assert "error: bare lacks what this needs: Python: no such program is in the PATH of" in done.stderr
    assert "say by `python` in devices.toml which program it is" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_with_python_3_8_is_one_message_and_exit_code_3(bench: Path) -> None:
    done = deploy("doctor", "--device", "old", cwd=bench, code=3, fresh=True)
    assert "error: old lacks what this needs: Python 3.10 or later: " in done.stderr
    assert "is 3.8.10" in done.stderr


def test_of_several_devices_each_is_told_and_each_failure_is_named(bench: Path) -> None:
    with (bench / FILE).open("a") as file:
        file.write('[[device]]\nname = "gone"\naddress = "ssh://127.0.0.1:1"\ntags = ["all"]\n')
    done = deploy("doctor", "--device", "all", "--json", cwd=bench, code=3, fresh=True)
    assert [one["name"] for one in json.loads(done.stdout)] == ["good", "bare"]
    assert done.stderr.count("error:") == 1
    for part in ("ssh://127.0.0.1:1 cannot be reached", "bare lacks what this needs"):
        assert part in done.stderr


def test_this_machine_is_a_device_too(tmp_path: Path) -> None:
    (found,) = json.loads(deploy("doctor", "--device", "local", "--json", cwd=tmp_path, code=None, fresh=True).stdout)
    assert found["facts"]["python"] == sys.executable


def test_an_engine_is_explained_here_and_not_on_a_device(tmp_path: Path) -> None:
    assert "--explain" in deploy("doctor", "--device", "local", "--explain", "x", cwd=tmp_path, code=2, fresh=True).stderr


@pytest.mark.parametrize("name", ["a b", 'it\'s "so"', "$(touch ran)", "`touch ran`;touch ran", "-n", "100% \\ *?", "ä\nb"])
def test_a_device_whose_folders_have_any_name_is_asked_as_any_other(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / name
    (home / "bin").mkdir(parents=True)
    python = f"./bin/{name.splitlines()[0]} python"
    (home / python).symlink_to(sys.executable)
    place = tmp_path / "place"
    place.write_text(f"{home}x")  # `$(…)` takes ends of lines away
    force = f'HOME=$(cat {place}); HOME=${{HOME%x}}; cd "$HOME"; unset XDG_CACHE_HOME; eval "$SSH_ORIGINAL_COMMAND"'
    with sshd(tmp_path / "device", force=force) as server:
        monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
        with Connection(parse(server.address)) as connection:
            found = probe(connection, python)
    assert found.python_version == sys.version_info[:3]
    assert found.cache == (f"{home}/.cache" if "\n" not in name else str(home).partition("\n")[0])
    assert found.writable
    assert not list(tmp_path.rglob("ran"))


def processes(marker: str) -> list[list[str]]:
    """The words of those commands that are running and name something."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(marker in word for word in words):
                found.append(words)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_runs_on_here_when_a_command_is_ended_in_the_middle(bench: Path, server: Sshd, number: signal.Signals) -> None:
    temporary = bench / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [DEPLOY, "doctor", "--device", "slow"],
        cwd=bench,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=answering,
    ) as command:
        try:
            wait_for((bench / "began").exists)
            holding = processes(str(server.config))[0]
            socket = holding[holding.index("-S") + 1]
            assert len(processes(socket)) >= 2  # that client, and the one of the command
        finally:
            command.send_signal(number)
        _, told = command.communicate(timeout=60)
    wait_for(lambda: not processes(socket))
    if number != signal.SIGKILL:
        assert command.returncode == 128 + number
        assert "Traceback" not in told
        assert not list(temporary.iterdir())
        assert not Path(socket).parent.exists()


def wait_for(reached: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.02)

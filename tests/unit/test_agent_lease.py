"""One machine has one lease: who has it is told and never believed, and it frees itself with who had it."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.agent import lease
from dtvit_deploy.agent.lease import holder, require_lease, try_lease, wait_for_lease
from dtvit_deploy.errors import InputError, MissingError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setenv(lease.PLACE, str(path))
    return path


@pytest.fixture
def other(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lease."""
    code = "import sys; from dtvit_deploy.agent.lease import try_lease; print(try_lease('you@there'), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 2
        yield process
        process.kill()


def test_nobody_has_what_nobody_took(place: Path) -> None:
    assert holder() is None


def test_the_second_does_not_get_it_and_is_told_who_has_it_since_when(other: subprocess.Popen[str]) -> None:
    assert try_lease("me") is None
    found = holder()
    assert found is not None
    assert found.who == "you@there"
    assert str(found).startswith("you@there has the device since 2")
    with pytest.raises(MissingError, match="you@there has the device") as raised:
        require_lease("me")
    assert raised.value.exit_code == 3


def test_who_waits_comes_to_its_turn_when_the_holder_is_killed(other: subprocess.Popen[str]) -> None:
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        threading.Thread(target=other.kill).start()

    os.close(wait_for_lease("me", say))
    assert told
    assert "you@there" in told[0]


def test_it_goes_with_an_open_file_that_is_handed_on(place: Path) -> None:
    mine = try_lease("me")
    assert mine is not None
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[mine]) as child:
        os.close(mine)
        assert holder() is not None
        child.kill()
    assert holder() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\n" * 5000,
        b"\0\0\n\0",
        b"\x1b[2J" * 200 + b"\nsince \r1970\n",
        b"\xff" * 9000,
    ],
)
def test_what_is_written_in_it_may_be_anything(place: Path, other: subprocess.Popen[str], content: bytes) -> None:
    place.write_bytes(content)
    found = holder()
    assert found is not None
    assert str(found).isprintable()
    assert len(str(found)) < 450
    assert try_lease("me") is None


def test_a_file_that_is_given_up_costs_nobody_the_lease(place: Path, other: subprocess.Popen[str]) -> None:
    lease.give_up()
    assert place.exists()  # somebody has it
    other.kill()
    other.wait()
    opened = lease._opened()
    lease.give_up()
    assert not place.exists()
    mine = try_lease("me")
    assert mine is not None
    assert try_lease("you") is None
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the old file's lock is nobody's any more, and says nothing
    assert not lease._is_the_file(opened)
    for file in (opened, mine):
        os.close(file)


def test_every_user_may_lock_it_whatever_the_umask(place: Path) -> None:
    before = os.umask(0o077)
    try:
        found = try_lease("me")
    finally:
        os.umask(before)
    assert found is not None
    os.close(found)
    assert stat.S_IMODE(place.stat().st_mode) == 0o666


def test_a_link_in_its_place_is_not_followed(place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    place.symlink_to(victim)
    with pytest.raises(MissingError, match="cannot be opened"):
        try_lease("me")
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_in_its_place_holds_nobody_up(place: Path, make: object) -> None:
    make(place)  # type: ignore[operator]
    with pytest.raises((InputError, MissingError)):
        try_lease("me")


def test_a_second_name_of_somebodys_file_is_not_written_to(place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    os.link(victim, place)
    with pytest.raises(InputError, match="not a file of its own"):
        try_lease("me")
    assert victim.read_text() == "kept"


def test_the_usual_place_is_one_that_every_user_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lease.PLACE, raising=False)
    assert lease.place().parent.stat().st_mode & stat.S_IWOTH

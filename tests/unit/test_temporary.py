"""A command's temporary files are in a folder of its own, which is gone when the command is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import NoReturn

import pytest

from commandline import answering
from dtvit_deploy.cli import temporary
from dtvit_deploy.cli.temporary import own_temporary_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_python_native_code_and_children_are_given_it(place: Path) -> None:
    with own_temporary_folder():
        (folder,) = place.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert tempfile.gettempdir() == str(folder)
        Path(tempfile.mkdtemp()).joinpath("left by a library").touch()
        named = subprocess.run(["sh", "-c", 'echo "$TMPDIR"'], capture_output=True, text=True, check=True).stdout
        assert named == f"{folder}\n"
    assert list(place.iterdir()) == []
    assert (os.environ["TMPDIR"], tempfile.gettempdir()) == (str(place), str(place))


def test_it_goes_when_the_block_fails(place: Path) -> None:
    with pytest.raises(ValueError, match="why"), own_temporary_folder():
        raise ValueError("why")
    assert list(place.iterdir()) == []


def test_one_command_within_another_has_its_own(place: Path) -> None:
    with own_temporary_folder():
        (outer,) = place.iterdir()
        with own_temporary_folder():
            (inner,) = outer.iterdir()
            assert tempfile.gettempdir() == str(inner)
        assert tempfile.gettempdir() == str(outer)
        assert list(outer.iterdir()) == []


def test_a_place_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (("TMPDIR", "absent"), ("TEMP", "second")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "second").mkdir()
    with own_temporary_folder():
        assert [path.name for path in tmp_path.iterdir()] == ["second"]
        assert len(list((tmp_path / "second").iterdir())) == 1
    assert os.environ["TMPDIR"] == str(tmp_path / "absent")


def test_where_there_is_no_place_at_all_the_command_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(temporary, "_made", refuse)
    with own_temporary_folder():
        assert os.environ["TMPDIR"] == str(place)


def test_who_the_user_is_is_not_asked_for_and_a_name_that_is_there_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in temporary.NAMES:
        monkeypatch.delenv(name, raising=False)
    with own_temporary_folder():
        import getpass

        assert getpass.getuser() == "user"
    assert not any(name in os.environ for name in temporary.NAMES)
    monkeypatch.setenv("USER", "ada")
    with own_temporary_folder():
        assert getpass.getuser() == "ada"


BODY = """
    import os, signal, sys, tempfile, time
    from dtvit_deploy.cli import failure

    @failure.explained
    def command():
        os.mkdir(os.path.join(tempfile.gettempdir(), "package"))
        print("writing", flush=True)
        {then}

    failure.end_on_request()
    try:
        command()
    except SystemExit as ended:
        failure.leave(ended.code)
    failure.leave(0)
    """


@pytest.mark.parametrize(
    ("then", "number", "code"),
    [
        ("pass", None, 0),
        ("raise failure.DeployError('no')", None, 2),
        ("time.sleep(60)", signal.SIGINT, 130),
        ("time.sleep(60)", signal.SIGTERM, 143),
        ("time.sleep(60)", signal.SIGHUP, 129),
        ("failure.leave(7)", None, 7),  # as whoever does not wait for blocks to be left
    ],
)
def test_nothing_is_left_however_the_process_ends(place: Path, then: str, number: signal.Signals | None, code: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(BODY).replace("{then}", then)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=answering) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        if number is not None:
            process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    assert list(place.iterdir()) == []


def test_what_a_killed_one_left_goes_with_the_next_and_a_living_ones_stays(place: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(BODY).replace("{then}", "time.sleep(600)")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed, subprocess.Popen(command, stdout=subprocess.PIPE) as living:
        for process in (killed, living):
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
        killed.kill()
        killed.wait()
        (place / "dtvit-deploy-notes").mkdir()
        with own_temporary_folder():
            assert len(list(place.iterdir())) == 3  # the living one's, the user's own, and this
        assert {path.name for path in place.iterdir()} > {"dtvit-deploy-notes"}
        living.kill()


def test_a_request_that_comes_while_it_is_made_leaves_nothing(place: Path) -> None:
    command = """
    import os, signal, time
    from dtvit_deploy.cli import failure, temporary

    made = temporary._made

    def interrupted():
        found = made()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)  # the handler would come now, and nobody know of the folder
        return found

    temporary._made = interrupted
    failure.end_on_request()  # a second thread, which any signal may be given to
    try:
        failure.explained(lambda: print("the command ran"))()
    except SystemExit as ended:
        failure.leave(ended.code)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(command)], capture_output=True, text=True, preexec_fn=answering, check=False
    )
    assert (done.returncode, done.stdout) == (143, ""), done.stderr
    assert list(place.iterdir()) == []

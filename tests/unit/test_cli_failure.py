"""Whatever ends a command is told in one message, with the documented exit code, and leaves nothing half written."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import answering
from dtvit_deploy.cli import failure
from dtvit_deploy.cli.failure import DEFECT, Ended, explained, told
from dtvit_deploy.errors import InputError, MissingError


@pytest.fixture
def debug() -> Iterator[None]:
    failure.set_debug(True)
    yield
    failure.set_debug(False)


def end(error: BaseException) -> int:
    """The exit code of a command that raises."""

    @explained
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        command()
    assert isinstance(caught.value.code, int)
    return caught.value.code


class TestTheMessage:
    @pytest.mark.parametrize(("kind", "code"), [(InputError, 2), (MissingError, 3)])
    def test_an_expected_failure_says_what_and_what_to_do(
        self, kind: type[InputError], code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert end(kind("there is no model 'nope'", remedy="give one of a, b")) == code
        assert capsys.readouterr() == ("", "error: there is no model 'nope'\n  try: give one of a, b\n")

    def test_there_is_no_empty_line_where_there_is_no_remedy(self, capsys: pytest.CaptureFixture[str]) -> None:
        end(InputError("no"))
        assert capsys.readouterr().err == "error: no\n"

    @pytest.mark.usefixtures("debug")
    def test_debug_shows_the_traceback_and_keeps_message_and_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert end(InputError("no", remedy="yes")) == 2
        said = capsys.readouterr().err
        assert said.startswith("Traceback")
        assert said.endswith("error: no\n  try: yes\n")

    def test_an_interruption_is_one_line_and_the_code_that_shells_give_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert end(KeyboardInterrupt()) == 130
        assert capsys.readouterr() == ("", "interrupted; nothing was left half written\n")

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/tmp/x"), MemoryError()])
    def test_what_the_machine_lacks_is_no_defect(self, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
        assert end(error) == 2
        said = capsys.readouterr().err
        assert "No space left on device: '/tmp/x'" in said or "out of memory" in said
        assert "Traceback" not in said

    def test_a_defect_is_not_taken_for_a_failed_gate(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert end(KeyError("logits")) == DEFECT not in (0, 1, 2, 3)
        said = capsys.readouterr().err
        assert said.startswith("Traceback")
        assert "KeyError: 'logits'" in said
        assert "report it" in said.splitlines()[-1]

    def test_a_command_that_chose_its_code_keeps_it(self) -> None:
        assert end(SystemExit(failure.GATE_FAILED)) == 1

    def test_a_name_from_elsewhere_cannot_move_the_cursor(self, capsys: pytest.CaptureFixture[str]) -> None:
        end(InputError("no file \x1b[2J\r\u202emodel\nsecond line"))
        assert capsys.readouterr().err == "error: no file �[2J��model\nsecond line\n"

    def test_what_a_command_returns_comes_through(self) -> None:
        assert explained(lambda: 5)() == 5


def test_a_users_module_that_survives_an_exit_does_not_survive_a_request_to_end() -> None:
    with pytest.raises(Ended), contextlib.suppress(Exception, SystemExit):
        raise Ended(signal.SIGTERM)


PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from dtvit_deploy.cli import failure, progress, show
from dtvit_deploy.artifacts.staging import staged
"""


def start(body: str, *arguments: str, shell: str = '"$0" -c "$@"', ignoring: str = "") -> subprocess.Popen[bytes]:
    """A command as a process, begun by a shell that sets its streams up, and what it inherits of signals."""
    command = [
        "sh",
        "-c",
        f"trap '' {ignoring}; exec {shell}" if ignoring else f"exec {shell}",
        sys.executable,
        PREAMBLE + textwrap.dedent(body),
        *arguments,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=answering)


class TestSignals:
    WRITING = """
        failure.end_on_request()
        with failure.told(), staged(Path(sys.argv[1])) as stage:
            (stage / "model.onnx").write_text("half")
            print("writing", flush=True)
            time.sleep(300)
        """

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_each_ends_the_process_with_one_line_and_leaves_nothing(self, number: signal.Signals, code: int, tmp_path: Path) -> None:
        process = start(self.WRITING, str(tmp_path / "new" / "out"))
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code
        assert said.count(b"\n") == 1
        assert said.endswith(b"nothing was left half written\n")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
    def test_one_that_python_drops_is_asked_again(self, number: str, code: int) -> None:
        body = f"""
            class Dropping:
                def __del__(self):
                    signal.raise_signal(signal.{number})  # what it raises is ignored here

            failure.end_on_request()
            with failure.told():
                Dropping()
                time.sleep(300)
            """
        process = start(body)
        _, said = process.communicate(timeout=120)
        assert process.returncode == code
        assert said.count(b"\n") == 1

    def test_one_that_a_library_makes_something_else_of_is_still_told_as_what_it_was(self) -> None:
        body = """
            failure.end_on_request()
            with failure.told():
                try:
                    signal.raise_signal(signal.SIGTERM)
                except BaseException as error:
                    raise ImportError("the library cannot be initialised") from error
            """
        process = start(body)
        assert process.communicate(timeout=120)[1] == b"ended by SIGTERM; nothing was left half written\n"
        assert process.returncode == 143

    @pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
    def test_one_that_a_library_drops_is_told_at_the_end(self, number: str, code: int) -> None:
        body = f"""
            failure.end_on_request()
            with failure.told():
                try:
                    signal.raise_signal(signal.{number})
                except BaseException:
                    pass
            """
        process = start(body)
        assert process.communicate(timeout=120)[1].endswith(b"; nothing was left half written\n")
        assert process.returncode == code

    def test_any_other_exception_that_python_drops_is_shown_as_ever(self) -> None:
        body = """
            class Wrong:
                def __del__(self):
                    raise ValueError("lost")

            failure.end_on_request()
            Wrong()
            """
        process = start(body)
        assert b"ValueError: lost" in process.communicate(timeout=120)[1]
        assert process.returncode == 0

    STAYING = """
        failure.end_on_request()
        with failure.told():
            signal.raise_signal(signal.{number})
            print("still here")
        """

    def test_nohup_is_respected(self) -> None:
        said, _ = start(self.STAYING.format(number="SIGHUP"), shell='nohup "$0" -c "$@"').communicate(timeout=120)
        assert said == b"still here\n"

    def test_a_job_in_the_background_is_not_ended_by_the_ctrl_c_that_is_meant_for_another(self) -> None:
        said, _ = start(self.STAYING.format(number="SIGINT"), ignoring="INT").communicate(timeout=120)
        assert said == b"still here\n"

    def test_a_request_to_terminate_is_answered_whatever_was_inherited(self) -> None:
        process = start(self.STAYING.format(number="SIGTERM"), ignoring="TERM")
        assert process.communicate(timeout=120) == (b"", b"ended by SIGTERM; nothing was left half written\n")
        assert process.returncode == 143

    @pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_a_librarys_forked_child_ends_by_it_as_any_process_does(self, number: str) -> None:
        body = f"""
            failure.end_on_request()
            with failure.told():
                child = os.fork()
                if child == 0:
                    signal.raise_signal(signal.{number})
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            """
        said = start(body).communicate(timeout=120)
        assert said == (f"{-signal.Signals[number]}\n".encode(), b"")


class TestStandardOutput:
    TELLING = """
        failure.open_streams()
        with failure.told():
            show.as_json(["×"] * 50_000)
            show.console().print("and a table")
            raise SystemExit(failure.GATE_FAILED)
        """

    def test_a_reader_who_has_seen_enough_does_not_change_the_outcome(self) -> None:
        process = start(self.TELLING)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == failure.GATE_FAILED
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()

    def test_a_full_disk_under_it_is_an_error_and_said_once(self) -> None:
        process = start(self.TELLING, shell='"$0" -c "$@" > /dev/full')
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2
        assert said.startswith(b"error: ")
        assert b"No space left on device" in said
        assert b"Traceback" not in said
        assert b"Exception ignored" not in said

    def test_where_nobody_hears_the_message_the_code_is_left(self) -> None:
        process = start("failure.open_streams()\nwith failure.told(): raise failure.DeployError('no')")
        assert process.stderr is not None
        process.stderr.close()
        process.communicate(timeout=120)
        assert process.returncode == 2

    def test_closed_streams_are_not_given_to_the_first_artefact(self, tmp_path: Path) -> None:
        body = """
            failure.open_streams()
            with failure.told(), open(sys.argv[1], "w") as artefact:
                progress.Terminal().step("a step")
                show.console().print("a table")
                artefact.write("artefact")
            """
        process = start(body, str(tmp_path / "artefact"), shell='"$0" -c "$@" >&- 2>&-')
        process.communicate(timeout=120)
        assert process.returncode == 0
        assert (tmp_path / "artefact").read_text() == "artefact"

    def test_any_encoding_will_do(self) -> None:
        process = start(self.TELLING.replace("and a table", "224×224"), shell='env PYTHONIOENCODING=ascii "$0" -c "$@"')
        out, said = process.communicate(timeout=120)
        assert said == b""
        assert "×".encode() in out  # JSON is UTF-8 everywhere
        assert out.endswith(b"224\\xd7224\n")


def test_leaving_writes_what_is_held_back_and_takes_nothing_apart() -> None:
    body = """
        class Large:
            def __del__(self):
                sys.stderr.write("taken apart")

        kept = Large()
        sys.stdout.write("held back")
        failure.leave(7)
        """
    process = start(body)
    assert process.communicate(timeout=120) == (b"held back", b"")
    assert process.returncode == 7


def test_output_held_back_is_written_before_the_code_is_chosen(capfd: pytest.CaptureFixture[str]) -> None:
    with told():
        sys.stdout.write("held back")
    assert capfd.readouterr().out == "held back"


@pytest.mark.parametrize(
    ("text", "length"),
    [("n" * 1_000_000, 260), (f"no model {'n' * 5000}: nor {'m' * 5000}", 520), ("a name " * 100_000, 4100), ("n\n" * 100_000, 8100)],
    ids=["a word", "two words", "many words", "many lines"],
)
def test_a_message_is_cut_where_a_name_in_it_is_without_end(text: str, length: int, capsys: pytest.CaptureFixture[str]) -> None:
    end(InputError(text))
    said = capsys.readouterr().err
    assert len(said) <= length
    assert "…" in said


def test_a_path_of_usual_length_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    end(InputError(f"there is no artefact at /{'folder/' * 30}net.onnx"))
    assert "…" not in capsys.readouterr().err

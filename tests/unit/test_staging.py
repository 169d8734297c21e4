"""Output is whole or absent, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.artifact import write_json
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.staging import replacing, staged


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and every empty folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_text()
        elif not any(path.iterdir()):
            found[f"{path.relative_to(folder)}/"] = ""
    return found


def write(folder: Path, files: dict[str, str], failing: BaseException | None = None) -> None:
    """Write a set of files, then fail if told to."""
    with staged(folder) as stage:
        for name, text in files.items():
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_text(text)
        if failing is not None:
            raise failing


class TestTheBlockEndsWell:
    def test_a_set_of_files_arrives_with_its_sub_folders(self, tmp_path: Path) -> None:
        with staged(tmp_path / "a" / "out") as stage:
            (stage / "model.onnx").write_text("weights")
            (stage / "parity").mkdir()
            (stage / "parity" / "layers.json").write_text("{}")
            assert not (tmp_path / "a" / "out" / "model.onnx").exists()
        assert tree(tmp_path) == {"a/out/model.onnx": "weights", "a/out/parity/layers.json": "{}"}

    def test_older_files_of_the_same_name_are_replaced_and_others_stay(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_text("old")
        (tmp_path / "notes.txt").write_text("the user's")
        with staged(tmp_path) as stage:
            (stage / "model.onnx").write_text("new")
        assert tree(tmp_path) == {"model.onnx": "new", "notes.txt": "the user's"}

    def test_one_file_keeps_its_suffix_while_it_is_written(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "out" / "plot.png") as part:
            assert part.name == "plot.png"  # matplotlib takes the format from it, numpy appends its own to any other
            part.write_text("picture")
        assert tree(tmp_path) == {"out/plot.png": "picture"}

    def test_a_manifest_gets_its_name_before_what_it_describes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = []
        replace = Path.replace

        def watched(self: Path, target: Path) -> Path:
            moved.append(target.name)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", watched)
        with staged(tmp_path) as stage:
            for name in ("model.fp32.onnx.json", "model.fp32.onnx", "model.fp16.onnx.json", "model.fp16.onnx"):
                (stage / name).touch()
        assert moved == ["model.fp16.onnx.json", "model.fp16.onnx", "model.fp32.onnx.json", "model.fp32.onnx"]

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_files_are_as_readable_as_the_umask_says(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            with staged(tmp_path) as stage:
                (stage / "plain").touch()
                os.close(os.open(stage / "private", os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors makes them
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}

    def test_a_forgotten_write_is_a_defect_and_not_an_empty_success(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="nothing was written"), replacing(tmp_path / "file"):
            pass
        assert tree(tmp_path) == {}

    def test_json_is_written_through_it(self, tmp_path: Path) -> None:
        write_json(tmp_path / "new" / "report.json", {"b": 1, "a": 2})
        assert tree(tmp_path) == {"new/report.json": '{\n  "a": 2,\n  "b": 1\n}\n'}


class TestTheBlockFails:
    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, MissingError])
    def test_nothing_stays_of_it_and_the_failure_is_the_callers(self, tmp_path: Path, failure: type[BaseException]) -> None:
        with pytest.raises(failure, match="why"):
            write(tmp_path / "a" / "b", {"half": "…"}, failing=failure("why"))
        assert tree(tmp_path) == {}
        assert tmp_path.is_dir()

    def test_what_was_there_before_stays(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model.onnx").write_text("old")
        with pytest.raises(ValueError, match="why"):
            write(tmp_path / "out", {"model.onnx": "new"}, failing=ValueError("why"))
        assert tree(tmp_path) == {"out/model.onnx": "old"}

    def test_an_empty_folder_of_the_user_stays(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(ValueError, match="why"):
            write(tmp_path / "out" / "deeper", {"half": "…"}, failing=ValueError("why"))
        assert tree(tmp_path) == {"out/": ""}

    def test_a_file_that_the_block_could_not_read_is_not_blamed_on_the_output(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), staged(tmp_path / "out"):
            (tmp_path / "input").read_text()

    @pytest.mark.parametrize("older", [True, False])
    def test_a_set_that_cannot_all_be_moved_is_not_moved_at_all(self, tmp_path: Path, older: bool) -> None:
        if older:
            (tmp_path / "a").write_text("old")
        (tmp_path / "b").mkdir()  # in the way of the file of that name
        before = tree(tmp_path)
        with pytest.raises(InputError, match="cannot write b to the folder"):
            write(tmp_path, {"a": "new", "a2/c": "new", "b": "new"})
        assert tree(tmp_path) == before


class TestTheFolderCannotBeWritten:
    def test_a_file_is_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file")
        for folder in (tmp_path / "out", tmp_path / "out" / "deeper" / "still"):
            with pytest.raises(InputError, match=f"{tmp_path / 'out'} is not a folder") as caught, staged(folder):
                pytest.fail("the block must not be entered")
            assert caught.value.remedy == "choose another output folder"
        assert tree(tmp_path) == {"out": "a file"}

    def test_a_folder_is_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is a folder"), replacing(tmp_path):
            pytest.fail("the block must not be entered")

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that refuses even root: /proc and /sys")
    @pytest.mark.parametrize("folder", ["/proc/out", "/sys/out/deeper"])
    def test_the_file_system_refuses(self, folder: str) -> None:
        with pytest.raises(InputError, match=f"cannot write to the folder {folder}"), staged(Path(folder)):
            pytest.fail("the block must not be entered")

    @pytest.mark.parametrize("name", ["seen", "seen/unseen/out"])
    def test_the_user_may_not(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "seen" / "unseen").mkdir(parents=True)
        (tmp_path / "seen" / "unseen").chmod(0)
        (tmp_path / "seen").chmod(0o555)
        result = run(
            """
            if os.geteuid() == 0:
                os.seteuid(65534)  # root may write everywhere
            try:
                with staged(out):
                    print("entered")
            except InputError as error:
                print(error, "|", error.remedy)
            """,
            tmp_path / name,
        )
        assert result.stdout == f"cannot write to the folder {tmp_path / name}: Permission denied | choose another output folder\n"
        (tmp_path / "seen").chmod(0o755)
        (tmp_path / "seen" / "unseen").chmod(0o755)

    def test_a_process_that_can_open_nothing_more_leaves_nothing(self, tmp_path: Path) -> None:
        result = run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                with staged(out):
                    print("entered")
            except InputError as error:
                print(error)
            """,
            tmp_path / "out",
        )
        assert result.stdout == f"cannot write to the folder {tmp_path / 'out'}: Too many open files\n", result.stderr
        assert tree(tmp_path) == {}


class TestTheDiskIsFull:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of one megabyte."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if shutil.which("mount") is None or subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], stderr=subprocess.DEVNULL
        ):
            pytest.skip("a small file system can only be mounted by root")
        yield disk
        subprocess.check_call(["umount", disk])

    def test_it_is_said_and_the_space_is_given_back(self, small: Path) -> None:
        with pytest.raises(InputError, match="No space left on device") as caught, staged(small / "out") as stage:
            (stage / "model.onnx").write_bytes(bytes(2 << 20))
        assert "free some space" in str(caught.value.remedy)
        assert isinstance(caught.value.__cause__, OSError)
        assert tree(small) == {}
        assert shutil.disk_usage(small).used == 0

    def test_it_is_said_of_a_writer_that_says_something_else(self, small: Path) -> None:
        def write_as_torch_does(path: Path) -> None:
            try:
                path.write_bytes(bytes(2 << 20))
            except OSError:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0") from None

        with pytest.raises(InputError, match="No space left on device"), staged(small / "out") as stage:
            write_as_torch_does(stage / "program.pt2")

    def test_it_is_said_of_a_writer_that_takes_its_file_away(self, tmp_path: Path) -> None:
        as_safetensors_does = RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")
        with pytest.raises(InputError, match="No space left on device"):
            write(tmp_path, {}, failing=as_safetensors_does)

    def test_an_error_on_a_disk_with_room_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="unexpected pos"):
            write(tmp_path, {}, failing=RuntimeError("unexpected pos 64 vs 0"))

    def test_a_limit_on_the_size_of_files_is_said(self, tmp_path: Path) -> None:
        result = run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
            try:
                with staged(out) as stage:
                    (stage / "model.onnx").write_bytes(bytes(1 << 20))
            except InputError as error:
                print(error, "|", error.remedy)
            """,
            tmp_path / "out",
        )
        assert "File too large | raise the limit" in result.stdout, result.stderr
        assert tree(tmp_path) == {}


PREAMBLE = """
import os, signal, sys
from pathlib import Path
from dtvit_deploy.errors import InputError
from dtvit_deploy.staging import replacing, staged
out = Path(sys.argv[1])
"""


def program(body: str) -> str:
    return PREAMBLE + textwrap.dedent(body)


def run(body: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program(body), str(out)], capture_output=True, text=True, timeout=60, check=False)


class TestTheProcessEnds:
    KILLED = """
        with staged(out) as stage:
            (stage / "model.onnx").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """

    def test_what_a_killed_process_left_is_hidden_and_goes_with_the_next_write(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run(self.KILLED, out).returncode == -signal.SIGKILL
        (left,) = out.iterdir()
        assert left.name.startswith(".partial-")
        with staged(out) as stage:
            (stage / "model.onnx").write_text("whole")
        assert tree(out) == {"model.onnx": "whole"}

    @pytest.mark.parametrize("moves", [0, 1, 2, 3])
    def test_killed_while_files_move_each_name_is_absent_old_or_new(self, tmp_path: Path, moves: int) -> None:
        write(tmp_path, {"a": "old", "c": "old"})
        body = f"""
            replace = Path.replace
            moves = {moves}

            def replace_or_die(self, target):
                global moves
                if moves == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                moves -= 1
                return replace(self, target)

            Path.replace = replace_or_die
            with staged(out) as stage:
                for name in "abcd":
                    (stage / name).write_text("new")
            """
        assert run(body, tmp_path).returncode == -signal.SIGKILL
        old = {"a": "old", "c": "old"}
        new = dict.fromkeys("abcd"[:moves], "new")
        assert {name: text for name, text in tree(tmp_path).items() if not name.startswith(".")} == old | new
        write(tmp_path, {"e": "new"})
        assert tree(tmp_path) == old | new | {"e": "new"}

    def test_ctrl_c_in_the_block_leaves_nothing(self, tmp_path: Path) -> None:
        result = run(
            """
            try:
                with staged(out) as stage:
                    (stage / "model.onnx").write_text("half")
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                print("interrupted")
            """,
            tmp_path / "out",
        )
        assert result.stdout == "interrupted\n", result.stderr
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize(("interruption", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
    def test_an_interruption_while_files_move_waits_for_the_last_of_them(
        self, tmp_path: Path, interruption: signal.Signals, code: int
    ) -> None:
        result = run(
            f"""
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as the command line does
            replace = Path.replace
            Path.replace = lambda self, target: (signal.raise_signal({interruption:d}), replace(self, target))
            with staged(out) as stage:
                (stage / "a").write_text("whole")
                (stage / "b").write_text("whole")
            print("not interrupted at all")
            """,
            tmp_path / "out",
        )
        assert result.returncode == code, result.stderr
        assert result.stdout == ""
        assert tree(tmp_path) == {"out/a": "whole", "out/b": "whole"}

    def test_an_interruption_is_not_forgotten_because_a_file_could_not_be_moved(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        result = run(
            """
            replace = Path.replace
            Path.replace = lambda self, target: (signal.raise_signal(signal.SIGINT), replace(self, target))
            with staged(out) as stage:
                (stage / "a").write_text("a folder is in its way")
            """,
            tmp_path,
        )
        assert result.returncode == -signal.SIGINT
        assert tree(tmp_path) == {"a/": ""}

    def test_a_handler_of_the_program_is_put_back(self, tmp_path: Path) -> None:
        def handlers() -> list[object]:
            return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]

        before = handlers()
        with staged(tmp_path / "out"):
            assert handlers() == before
        assert handlers() == before


class TestSeveralWriters:
    def test_a_living_process_keeps_its_work_while_another_writes_the_same_folder(self, tmp_path: Path) -> None:
        body = """
            with staged(out) as stage:
                (stage / "theirs").write_text("whole")
                print("ready", flush=True)
                sys.stdin.readline()
            """
        with subprocess.Popen(
            [sys.executable, "-c", program(body), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            with staged(tmp_path) as stage:
                (stage / "ours").write_text("whole")
            with pytest.raises(ValueError, match="why"):
                write(tmp_path, {"half": "…"}, failing=ValueError("why"))
            child.communicate("now\n", timeout=60)
        assert child.returncode == 0
        assert tree(tmp_path) == {"ours": "whole", "theirs": "whole"}

    def test_threads_that_fail_and_threads_that_do_not_share_a_folder_that_comes_and_goes(self, tmp_path: Path) -> None:
        out = tmp_path / "a" / "out"
        unexpected: list[Exception] = []

        def write_often(number: int) -> None:
            for turn in range(10):
                try:
                    write(out, {f"{number}-{turn}": "whole"}, failing=ValueError("why") if turn % 2 else None)
                except ValueError:
                    pass
                except Exception as error:
                    unexpected.append(error)
                (out / f"{number}-{turn}").unlink(missing_ok=True)

        threads = [threading.Thread(target=write_often, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert unexpected == []
        assert not out.exists() or tree(out) == {}

    def test_a_users_own_folder_with_a_similar_name_stays(self, tmp_path: Path) -> None:
        (tmp_path / ".partial-results").mkdir()
        with staged(tmp_path) as stage:
            (stage / "file").write_text("new")
        assert tree(tmp_path) == {".partial-results/": "", "file": "new"}

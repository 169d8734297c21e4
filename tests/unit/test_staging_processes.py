"""Output is whole or absent when its process is killed or interrupted, and when several write at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.staging import staged
from staged_files import program, run, tree, write


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
            child.communicate("now\n", timeout=300)
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

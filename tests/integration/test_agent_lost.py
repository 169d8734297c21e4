"""Whatever is lost on the way or killed meanwhile, a job's results are those of one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from devices import Board
from dtvit_deploy.devices.transport import LostError
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.job.frames import read_frame, read_magic
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.asking import Asked
from jobs import Killing, answers, perform

pytest.importorskip("openvino")


def kill_the_worker(board: Board) -> None:
    for worker in board.workers():
        os.kill(worker, signal.SIGKILL)


def kill_all_of_it(board: Board) -> None:
    for worker in board.workers():
        os.killpg(worker, signal.SIGKILL)


def kill_the_followers(board: Board) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        words = (process / "cmdline").read_bytes() if (process / "cmdline").exists() else b""
        if b"follow" in words.split(b"\0") and str(board.root).encode() in _environment(process):
            os.kill(int(process.name), signal.SIGKILL)


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "every"), [(kill_the_worker, 7), (kill_all_of_it, 8), (kill_the_followers, 2)])
def test_whatever_is_killed_the_results_are_those_of_an_undisturbed_job(
    board: Board, asked: Asked, kill: Callable[[Board], None], every: int
) -> None:
    undisturbed = answers(perform(board.device(), asked, keep=False))
    killing = Killing(board, every, 7, kill)
    results = perform(board.device(), asked, advanced=killing)
    assert killing.killed >= 2
    assert answers(results) == undisturbed
    assert board.workers() == []


class KillingATask:
    """Sends a signal to the process of the second task, once, as it begins."""

    def __init__(self, board: Board, task: str, number: signal.Signals) -> None:
        self.board, self.task, self.number = board, task, number

    def __call__(self, task: str, part: float) -> None:
        if task != self.task or part:
            return
        (worker,) = self.board.workers()
        children = Path("/proc") / str(worker) / "task" / str(worker) / "children"
        until = time.monotonic() + 20
        while not (found := children.read_text().split()) and time.monotonic() < until:
            time.sleep(0.01)
        self.task = ""
        os.kill(int(found[0]), self.number)


def test_a_task_that_crashes_fails_alone_and_is_done_anew_by_the_next_call(board: Board, asked: Asked) -> None:
    expected = answers(perform(board.device(), asked, keep=False))
    results = perform(board.device(), asked, advanced=KillingATask(board, asked.job.tasks[1].name, signal.SIGSEGV))
    assert [one.ended for one in results.outcomes] == ["done", "failed"]
    assert len(list(results.parts(0))) == 6
    with pytest.raises(InputError, match=r"was ended by SIGSEGV: a runtime's native code, want of memory, or somebody"):
        list(results.parts(1))
    assert not list(board.root.glob("jobs/*"))
    assert answers(perform(board.device(), asked)) == expected


def test_a_failure_that_nobody_took_is_not_what_the_next_request_finds(board: Board, asked: Asked) -> None:
    (board.folder / "packages" / "onnxruntime").rename(board.folder / "elsewhere")

    def leave(task: str, part: float) -> None:
        if task != "sending":
            while board.workers():
                time.sleep(0.05)
            raise KeyboardInterrupt  # once the job is done there

    with pytest.raises(KeyboardInterrupt):
        perform(board.device(), asked, advanced=leave)
    assert list(board.root.glob("jobs/*/results"))
    (board.folder / "elsewhere").rename(board.folder / "packages" / "onnxruntime")
    results = perform(board.device(), asked)
    assert [one.ended for one in results.outcomes] == ["done", "done"]


def test_a_task_that_somebody_kills_is_begun_again(board: Board, asked: Asked) -> None:
    results = perform(board.device(), asked, advanced=KillingATask(board, asked.job.tasks[1].name, signal.SIGKILL))
    assert [one.ended for one in results.outcomes] == ["done", "done"]
    begun = [frame for frame in frames_of(results) if frame == ("begin", 1)]
    assert len(begun) == 2


def frames_of(results: Results) -> list[tuple[str, int]]:
    results._file.seek(0)
    read_magic(results._file)
    found = []
    while (frame := read_frame(results._file)) is not None:
        found.append((frame.header.kind, frame.header.task))
    return found


class TestALostConnection:
    def test_a_blob_goes_on_from_where_it_broke_off(self, board: Board, asked: Asked) -> None:
        cut_at: list[int] = []

        def cut(words: Sequence[str], size: int) -> int | None:
            if words[0] == "put" and size > 5000 and len(cut_at) < 3:
                cut_at.append(size // 2)
                return size // 2
            return None

        board.transport.cut = cut
        told: list[str] = []
        results = perform(board.device(), asked, say=told.append)
        assert len(list(results.parts(0))) == 6
        assert len(cut_at) == 3
        assert any("the connection is lost" in line for line in told)
        assert board.transport.moved("put") == sum(blob.bytes for blob in asked.job.blobs) - sum(cut_at)

    @pytest.mark.parametrize("command", ["bring", "begin", "put"])
    def test_at_any_command_costs_nothing(self, board: Board, asked: Asked, command: str) -> None:
        left = [1, -1]
        board.transport.cut = lambda words, size: left.pop() if left and words[0] == command else None
        assert len(list(perform(board.device(), asked).parts(1))) == 6

    def test_at_the_end_leaves_no_times_that_the_next_request_would_take_for_its_own(self, board: Board, asked: Asked) -> None:
        left = [-1]
        board.transport.cut = lambda words, size: left.pop() if left and words[0] == "forget" else None
        perform(board.device(), asked, keep=False)
        assert not left
        assert not list(board.root.glob("jobs/*"))

    def test_that_stands_only_for_a_moment_each_time_is_none(self, board: Board, asked: Asked) -> None:
        board.transport.cut = lambda words, size: -1 if words[0] == "follow" else None
        with pytest.raises(LostError, match=r"no connection for 1 s"):
            perform(board.device(patience=1.0), asked)

    def test_for_longer_than_anybody_waits_is_told_and_the_job_goes_on(self, board: Board, asked: Asked) -> None:
        expected = answers(perform(board.device(), asked, keep=False))
        began = threading.Event()

        def cut(words: Sequence[str], size: int) -> int | None:
            return -1 if began.is_set() else None

        board.transport.cut = cut
        killing = Killing(board, 2, 1, lambda board: began.set())
        with pytest.raises(LostError, match=r"no connection for 1 s") as raised:
            perform(board.device(patience=1.0), asked, advanced=killing)
        assert raised.value.remedy is not None
        assert "the same command picks it up" in raised.value.remedy
        began.clear()
        board.transport.sent.clear()
        assert answers(perform(board.device(), asked)) == expected
        assert board.transport.moved("put") == 0


def test_an_artefact_of_which_half_is_left_of_a_killed_worker_is_put_together_again(board: Board, asked: Asked) -> None:
    def interrupt(task: str, part: float) -> None:
        if part:
            kill_all_of_it(board)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(board.device(), asked, advanced=interrupt)
    for model in board.root.glob("jobs/*/artifacts/*/*.onnx"):
        model.unlink()
    assert len(list(perform(board.device(), asked).parts(0))) == 6
    assert not list(board.root.glob("jobs/*/artifacts"))


def test_an_interruption_here_ends_the_job_there(board: Board, asked: Asked) -> None:
    def interrupt(task: str, part: float) -> None:
        if task != "sending":
            assert board.workers()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(board.device(), asked, advanced=interrupt)
    assert board.workers() == []
    assert board.device().holder() == ""
    assert len(list(perform(board.device(), asked).parts(0))) == 6  # and it can be taken up

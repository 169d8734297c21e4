"""A device with numpy and the runtimes alone does jobs, and answers bit for bit as this machine does, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from commandline import deploy
from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.devices.transport import LostError
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.frames import read_frame, read_magic
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.process.machine import MACHINE, WAITING, at_work
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.device import Device
from dtvit_deploy.remote.recorded import RecordedRuntime, latencies
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import BY_FORMAT, open_session

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

pytest.importorskip("openvino")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.GELU(), nn.Conv2d(8, 96, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4)
    return nn.Sequential(*body), (torch.zeros(1, 3, 32, 32),)
"""
HOLDS = """
import sys
from dtvit_deploy.agent.lease import try_lease
print(try_lease('you@there\\x1b[2J'), flush=True)
sys.stdin.read()
"""
"""A program that has a device until its input ends, and calls itself something that clears a terminal."""
QUICK = MeasureOptions(min_samples=8, min_seconds=0.0, warmup_seconds=0.0, max_warmup_seconds=0.1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A small network as ONNX and OpenVINO in FP32, FP16 and INT8."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "mine.py").write_text(NETWORK)
    np.savez(folder / "some.npz", input=np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32))
    asked = ("-t", "onnx", "-t", "openvino", "-p", "fp32", "-p", "fp16", "-p", "int8", "--calibration", "some.npz", "--no-search")
    deploy("export", "-m", "mine:make", *asked, "-o", "out", cwd=folder)
    return [load_artifact(path.with_suffix("")) for path in sorted((folder / "out").glob("mine*.json"))]


@pytest.fixture(scope="module")
def feeds() -> list[Feeds]:
    rng = np.random.default_rng(1)
    return [{"input": rng.standard_normal((1, 3, 32, 32), np.float32)} for _ in range(6)]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


@pytest.fixture
def asked(tmp_path: Path, exported: list[Artifact], feeds: list[Feeds]) -> Asked:
    """Answers of two ONNX artefacts."""
    return asked_for(tmp_path, exported[:3:2], feeds)


def asked_for(folder: Path, artifacts: Sequence[Artifact], feeds: Sequence[Feeds], token: str = "") -> Asked:
    (folder / "blobs").mkdir(exist_ok=True)
    asking = Asking(folder / "blobs", token=token)
    given = asking.feeds(feeds)
    for artifact in artifacts:
        asking.answers(asking.subject(artifact, BY_FORMAT[artifact.manifest.format][0]), given)
    return asking.asked


def answers(results: Results) -> list[dict[str, bytes]]:
    return [
        {name: array.tobytes() for name, array in part.items()} for task, _ in enumerate(results.job.tasks) for part in results.parts(task)
    ]


def perform(device: Device, asked: Asked, **options: object) -> Results:
    return device.perform(asked.job, asked.blobs, **options)  # type: ignore[arg-type]


def test_every_artefact_answers_there_as_it_does_here(tmp_path: Path, board: Board, exported: list[Artifact], feeds: list[Feeds]) -> None:
    asked = asked_for(tmp_path, exported, feeds)
    results = perform(board.device(), asked)
    assert len(exported) == 6
    for index, artifact in enumerate(exported):
        runtime = RecordedRuntime(asked, results, index, "on the board")
        assert runtime.rung is Rung.ON_DEVICE
        with runtime.load(artifact, SessionOptions()) as there, open_session(artifact, SessionOptions()) as here:
            assert there.conditions["runtime"] == here.conditions["runtime"] == f"{runtime.name.split()[0]} {runtime.available().version}"
            for feed in reversed(feeds):
                expected, found = here.run(feed), there.run(feed)
                assert expected.keys() == found.keys()
                for name, array in expected.items():
                    np.testing.assert_array_equal(found[name], array)
            with pytest.raises(RuntimeError, match="not asked about these feeds"):
                there.run({"input": feeds[0]["input"] + 1})


def test_the_agent_there_has_msgspec_of_its_own_and_nothing_else_of_ours(board: Board, asked: Asked) -> None:
    perform(board.device(), asked)
    (archive,) = board.root.glob("agent/*.zip")
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import msgspec, dtvit_deploy.agent.tasks, dtvit_deploy.agent.worker;"
        "print(json.dumps([msgspec.__file__, sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))]))"
    )
    file, modules = json.loads(subprocess.check_output([board.python, "-c", code, archive]))
    assert file == f"{archive}/msgspec/__init__.py"
    assert set(modules) - {"__main__", "dtvit_deploy", "msgspec", "numpy", "openvino_telemetry"} == set()  # the last is kept out by a name
    missing = subprocess.run([board.python, "-c", "import onnx"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in missing.stderr


def test_a_second_call_moves_no_byte_of_the_agent_or_of_an_artefact(
    tmp_path: Path, board: Board, exported: list[Artifact], feeds: list[Feeds], asked: Asked
) -> None:
    perform(board.device(), asked)
    assert board.transport.moved("bring") > 100_000
    sent = board.transport.moved("put")
    assert sent == sum(blob.bytes for blob in asked.job.blobs)
    board.transport.sent.clear()
    perform(board.device(), asked)
    perform(board.device(), asked_for(tmp_path, exported[:3:2], feeds, token="another request"))
    assert board.transport.moved("bring", "put") == 0
    other = asked_for(tmp_path, exported[:3:2], feeds[:1])
    perform(board.device(), other)
    assert 0 < board.transport.moved("put") == sum(blob.bytes for blob in other.job.blobs if blob not in asked.job.blobs) < sent / 2


def test_an_equal_request_finds_what_is_done_unless_it_is_not_to_be_kept(board: Board, asked: Asked) -> None:
    begun: list[str] = []
    first = perform(board.device(), asked)
    second = perform(board.device(), asked, advanced=lambda task, part: begun.append(task))
    assert answers(first) == answers(second)
    assert first.end == second.end  # the very same file
    assert perform(board.device(), asked, keep=False).end == first.end
    assert not list(board.root.glob("jobs/*"))


class Killing:
    """Kills something there at every so many reports of progress."""

    def __init__(self, board: Board, every: int, most: int, kill: Callable[[Board], None]) -> None:
        self.board, self.every, self.most, self.kill = board, every, most, kill
        self.heard = self.killed = 0

    def __call__(self, task: str, part: float) -> None:
        self.heard += 1
        if self.heard % self.every == 0 and self.killed < self.most:
            self.killed += 1
            self.kill(self.board)


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


def test_clean_leaves_nothing(board: Board, asked: Asked) -> None:
    perform(board.device(), asked)
    assert board.device().clean() > 100_000
    assert sorted(path.name for path in board.folder.iterdir()) == ["cache", "packages", "python"]
    assert list((board.folder / "cache").iterdir()) == []


class TestWhatIsDamaged:
    def test_an_agent_is_brought_again(self, board: Board, asked: Asked) -> None:
        perform(board.device(), asked)
        (archive,) = board.root.glob("agent/*.zip")
        archive.write_bytes(archive.read_bytes()[:-100])
        board.transport.sent.clear()
        assert board.device().holder() == ""
        assert board.transport.moved("bring") > 100_000

    def test_a_blob_there_is_sent_again(
        self, tmp_path: Path, board: Board, asked: Asked, exported: list[Artifact], feeds: list[Feeds]
    ) -> None:
        expected = answers(perform(board.device(), asked))
        for blob in board.root.glob("blobs/*"):
            content = bytearray(blob.read_bytes())
            content[len(content) // 2] ^= 1
            blob.write_bytes(content)
        again = asked_for(tmp_path, exported[:3:2], feeds, token="again")
        assert answers(perform(board.device(), again)) == expected

    def test_an_artefact_that_changes_on_the_way_is_refused(self, board: Board, asked: Asked) -> None:
        name = next(iter(asked.job.subjects[0].files.values()))
        content = bytearray(asked.blobs[name].read_bytes())
        content[100] ^= 1
        with pytest.raises(InputError, match="was altered on its way"):
            board.device().perform(asked.job, asked.blobs | {name: bytes(content)})  # type: ignore[arg-type]
        assert not list(board.root.glob(f"blobs/{name}*"))
        assert board.workers() == []

    @pytest.mark.parametrize("where", [30, -30, 2000])
    def test_results_there_are_refused_and_done_anew_by_the_next_call(self, board: Board, asked: Asked, where: int) -> None:
        expected = answers(perform(board.device(), asked))
        (path,) = board.root.glob("jobs/*/results")
        content = bytearray(path.read_bytes())
        content[where] ^= 1
        path.write_bytes(content)
        assert answers(perform(board.device(), asked)) == expected  # the worker there sees it itself


class TestTheLease:
    def test_the_second_waits_is_told_for_whom_and_comes_to_its_turn(self, board: Board, asked: Asked) -> None:
        held = subprocess.Popen(
            [sys.executable, "-c", HOLDS],
            env=os.environ | {"DTVIT_DEPLOY_LEASE": str(board.folder / "lease")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert held.stdout is not None
        held.stdout.readline()
        told: list[str] = []

        def say(text: str) -> None:
            told.append(text)
            if "waiting" in text:
                held.kill()  # a dead holder's lease frees itself

        with pytest.raises(MissingError, match=r"you@there.* has the device since"):
            perform(board.device(), asked, wait=False)
        assert "you@there" in board.device().holder()
        assert "\x1b" not in board.device().holder()
        results = perform(board.device(), asked, say=say)
        assert any("you@there" in line and "waiting" in line for line in told)
        assert len(list(results.parts(0))) == 6
        held.communicate()

    def test_it_is_held_while_a_job_goes_on_and_after_that_by_nobody(self, board: Board, asked: Asked) -> None:
        seen: list[str] = []
        perform(board.device(), asked, advanced=lambda task, part: seen.append(board.device().holder()) if len(seen) < 20 else None)
        assert any("@" in one for one in seen)
        assert board.device().holder() == ""


def test_a_measurement_of_the_same_user_on_the_machine_is_waited_for(tmp_path: Path, exported: list[Artifact], feeds: list[Feeds]) -> None:
    cache = Cache(tmp_path / "their cache")
    board = Board(tmp_path / "shared", DTVIT_DEPLOY_CACHE=str(cache.root))
    ends = threading.Event()

    def measure() -> None:
        with at_work(cache.beside(MACHINE), lambda waiting: None, alone=True):
            begun.set()
            ends.wait(60)

    begun, told = threading.Event(), list[str]()
    thread = threading.Thread(target=measure)
    thread.start()
    begun.wait(60)

    def say(text: str) -> None:
        told.append(text)
        if WAITING in text:
            ends.set()

    with killed_later(board):
        results = perform(board.device(), asked_for(tmp_path, exported[:1], feeds), say=say)
    thread.join()
    assert any(WAITING in text for text in told)
    assert len(list(results.parts(0))) == 6


class TestLatency:
    def ask(self, folder: Path, artifacts: Sequence[Artifact], feeds: Sequence[Feeds]) -> tuple[Asked, int]:
        (folder / "blobs").mkdir()
        asking = Asking(folder / "blobs")
        given = asking.feeds(feeds[:1])
        subjects = [asking.subject(artifact, BY_FORMAT[artifact.manifest.format][0]) for artifact in artifacts]
        task = asking.latency(subjects, [given] * len(subjects), options=QUICK)
        return asking.asked, task

    def test_is_taken_there_and_judged_here(self, tmp_path: Path, board: Board, exported: list[Artifact], feeds: list[Feeds]) -> None:
        asked, task = self.ask(tmp_path, exported[:2], feeds)
        parts: list[float] = []
        results = perform(board.device(), asked, advanced=lambda name, part: parts.append(part) if "latency" in name else None)
        for found in latencies(asked, results, task):
            assert len(found.samples_ms) >= 8
            assert found.p50 in found.samples_ms
            assert found.status == "INVALID"  # eight samples are too few, and that is found here
            assert found.reasons[0].startswith("too few samples: ")
            assert found.conditions["measured"] == "interleaved with 1 other"
            assert found.conditions["threads"] == "1"
            assert found.load_ms
            assert found.load_ms > 0
            assert found.peak_memory_mib
            assert found.peak_memory_mib > 10
            assert found.state is not None  # read there, by a process beside the runs, and judged here
            assert found.state.failure == ""
            assert min(found.state.times_s) <= 0 < found.state.sampled_s <= max(found.state.times_s)
            assert {"processor", "cores"} <= found.state.before.keys() & found.state.after.keys()
            assert all(len(one.values) == len(found.state.times_s) for one in found.state.channels)
        assert parts[0] == 0
        assert parts[-1] == 1
        assert parts == sorted(parts)

    def test_is_not_taken_on_an_emulated_processor(self, tmp_path: Path, exported: list[Artifact], feeds: list[Feeds]) -> None:
        board = Board(tmp_path / "emulated", DTVIT_DEPLOY_EMULATED="a toy")
        asked, task = self.ask(tmp_path, exported[:1], feeds)
        results = perform(board.device(), asked)
        assert RecordedRuntime(asked, results, 0).rung is Rung.EMULATED_PROCESSOR
        with pytest.raises(InputError, match=r"no latency is taken on an emulated processor \(a toy\)"):
            latencies(asked, results, task)


class TestWhatIsMissing:
    def test_python(self, tmp_path: Path, board: Board, asked: Asked) -> None:
        with pytest.raises(MissingError, match="nopython cannot be run"):
            perform(Device(board.transport, python="nopython"), asked)

    def test_a_python_that_is_new_enough(self, tmp_path: Path, board: Board, asked: Asked) -> None:
        (board.folder / "old.py").write_text(
            "import sys\nsys.version_info, sys.version = (3, 8, 10), '3.8.10 (default)'\n"
            "code, sys.argv = sys.argv[2], ['-c', *sys.argv[3:]]\nexec(code)\n"
        )
        old = board.folder / "old"
        old.write_text(board.python.read_text().replace('"$@"', f'{board.folder / "old.py"} "$@"'))
        old.chmod(0o700)
        with pytest.raises(MissingError, match=r"is Python 3\.8\.10, and the agent needs 3\.10"):
            perform(Device(board.transport, python=str(old)), asked)

    @pytest.mark.parametrize("package", ["numpy", "onnxruntime", "openvino"])
    def test_a_package(self, tmp_path: Path, board: Board, exported: list[Artifact], feeds: list[Feeds], package: str) -> None:
        asked = asked_for(tmp_path, exported[:2], feeds)
        (board.folder / "packages" / package).unlink()
        results = perform(board.device(), asked)
        failed = 1 if package == "openvino" else 0
        with pytest.raises(MissingError, match={"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(package, package)):
            list(results.parts(failed))
        if package != "numpy":
            assert len(list(results.parts(1 - failed))) == 6

    def test_a_home(self, board: Board, asked: Asked) -> None:
        board.python.write_text(board.python.read_text().replace("XDG_CACHE_HOME=", "HOME=nowhere XDG_CACHE_HOME=relative OLD="))
        with pytest.raises(MissingError, match="there is no home folder"):
            perform(board.device(), asked)

    def test_room(self, board: Board, asked: Asked) -> None:
        board.python.write_text(board.python.read_text().replace("exec ", "ulimit -f 64\nexec "))  # blocks: less than the agent
        with pytest.raises(MissingError, match="File too large"):
            perform(board.device(), asked)
        assert not list(board.root.rglob("*.zip"))

    def test_a_folder_that_is_nobody_elses(self, board: Board, asked: Asked) -> None:
        perform(board.device(), asked)
        (board.root / "agent").chmod(0o777)
        with pytest.raises(MissingError, match=r"others can write .*, and what they put there would be run"):
            perform(board.device(), asked)

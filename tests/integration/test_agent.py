"""A device with numpy and the runtimes alone does jobs, and answers bit for bit as this machine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.process.machine import MACHINE, WAITING, at_work
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.recorded import RecordedRuntime, latencies
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import BY_FORMAT, open_session
from jobs import answers, asked_for, perform

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

pytest.importorskip("openvino")
HOLDS = """
import sys
from dtvit_deploy.agent.lease import try_lease
print(try_lease('you@there\\x1b[2J'), flush=True)
sys.stdin.read()
"""
"""A program that has a device until its input ends, and calls itself something that clears a terminal."""
QUICK = MeasureOptions(min_samples=8, min_seconds=0.0, warmup_seconds=0.0, max_warmup_seconds=0.1)


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


def test_clean_leaves_nothing(board: Board, asked: Asked) -> None:
    perform(board.device(), asked)
    assert board.device().clean() > 100_000
    assert sorted(path.name for path in board.folder.iterdir()) == ["cache", "packages", "python"]
    assert list((board.folder / "cache").iterdir()) == []


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
            assert found.starts is not None
            assert found.starts.first_load.least_ms > 0
            assert found.starts.warm_load is not None
            assert found.starts.memory == "of each stage"
            assert (found.starts.peak_mib or 0) > 10
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

"""A device's clocks are held still while it measures, and given back however the command, the connection or the agent ends.

The device is this machine behind an ssh server, in a mount namespace in which a tree of files stands for its ``/sys`` and ``/run``, and
stand-ins for its programs: nothing of it ran on hardware.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import clocks
from clocks import change, guards_of, machine, said, seen_by, state_of, until
from commandline import deploy
from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.devices.clocks.guard import RECORD
from dtvit_deploy.errors import MissingError
from dtvit_deploy.harness.latency import MeasureOptions
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.recorded import latencies
from jobs import perform
from project import inventory
from sshd import sshd

if TYPE_CHECKING:
    from dtvit_deploy.formats.job.results import Results

pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (torch.zeros(1, 3, 8, 8),)
"""
LOCKED = "locked at 2400 MHz, no turbo; GPU 0 1095 MHz; GPU 1 2520 MHz"
QUICK = MeasureOptions(min_seconds=0.2, min_samples=8, max_seconds=30, energy_seconds=0)
LONG = MeasureOptions(min_seconds=100, min_samples=8, max_seconds=200, energy_seconds=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network's artefact."""
    clocks.required()
    folder = tmp_path_factory.mktemp("exported")
    (folder / "mine.py").write_text(NETWORK)
    deploy("export", "-m", "mine:make", "-t", "onnx", "-p", "fp32", "-o", "out", cwd=folder)
    return folder


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    tree = machine(tmp_path / "machine")
    seen_by(board, tree.root)
    with killed_later(board):
        yield board
    tree.close()


@pytest.fixture
def root(board: Board) -> Path:
    """The tree that the device takes for itself."""
    return board.folder.parent / "machine"


@pytest.fixture
def artifact(exported: Path) -> Artifact:
    return load_artifact(next((exported / "out").glob("*.onnx")))


def asked_of(folder: Path, artifact: Artifact, options: MeasureOptions, *, locks: bool = True) -> tuple[Asked, int]:
    """A job: the latency of one artefact."""
    blobs = folder / f"blobs-{options.min_seconds}-{locks}"
    blobs.mkdir()
    asking = Asking(blobs)
    given = asking.feeds([{"input": np.zeros((1, 3, 8, 8), np.float32)}])
    task = asking.latency([asking.subject(artifact, "onnxruntime")], [given], options=options, lock_clocks=locks)
    return asking.asked, task


def condition(asked: Asked, results: Results, task: int) -> str | None:
    (found,) = latencies(asked, results, task)
    return found.conditions.get("clocks")


def guards(board: Board) -> list[int]:
    return guards_of(Path("/"), environment=str(board.folder / "lease"))


def given_back(root: Path) -> bool:
    return (root / RECORD).exists() and not (root / RECORD).read_text()


class Began:
    """A job, begun and seen to measure."""

    def __init__(self, board: Board, asked: Asked, root: Path) -> None:
        self.error: BaseException | None = None
        self._measures = threading.Event()
        self._thread = threading.Thread(target=self._perform, args=(board, asked))
        self._thread.start()
        assert self._measures.wait(120), self.error
        assert state_of(root)["cards"][1]["lock"] == 2520

    def _perform(self, board: Board, asked: Asked) -> None:
        try:
            perform(board.device(), asked, to_the_end=False, advanced=self._advanced)
        except BaseException as error:
            self.error = error

    def _advanced(self, task: str, part: float) -> None:
        if part and "latency" in task:
            self._measures.set()

    def ended(self) -> BaseException | None:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.error


@pytest.mark.thorough
def test_a_command_over_ssh_has_the_device_locked_and_its_figures_are_not_those_of_clocks_as_shipped(
    exported: Path, board: Board, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = said(root)
    with sshd(tmp_path / "sshd") as server:
        inventory(exported, bench=f'address = "{server.address}"\npython = "{board.python}"')
        monkeypatch.setenv("DTVIT_DEPLOY_SSH_CONFIG", str(server.config))
        few = ("profile", next((exported / "out").glob("*.onnx")).relative_to(exported), "--device", "bench")
        quick = ("--seconds", "0.2", "--samples", "64", "--energy", "0")
        for name, words in (("shipped", ()), ("locked", ("--lock-clocks",))):
            deploy(*map(str, few), *quick, *words, "-o", name, cwd=exported, code=None)
    assert said(root) == before
    found = {}
    for name in ("shipped", "locked"):
        file = exported / name / "report.json"
        found[name] = [one["latency"] for one in json.loads(file.read_text())["subjects"] if one["latency"]]
        file.write_text(re.sub(r'"status": ?"INVALID"', '"status": "VALID"', file.read_text()))  # whether it was quiet here is no matter
    assert [one["conditions"].get("clocks") for one in found["shipped"]] == [None]
    assert [one["conditions"].get("clocks") for one in found["locked"]] == [LOCKED]
    told = deploy("compare", "shipped", "locked", cwd=exported, code=None)
    assert f"clocks was not recorded and is {LOCKED}" in told.stdout


def test_a_job_holds_them_and_gives_them_back_at_its_end(board: Board, root: Path, artifact: Artifact, tmp_path: Path) -> None:
    before = said(root)
    asked, task = asked_of(tmp_path, artifact, QUICK)
    assert condition(asked, perform(board.device(), asked), task) == LOCKED
    assert said(root) == before
    assert given_back(root)
    shipped, task = asked_of(tmp_path, artifact, QUICK, locks=False)
    assert condition(shipped, perform(board.device(), shipped), task) is None


@pytest.mark.parametrize("by", [pytest.param(signal.SIGTERM, marks=pytest.mark.thorough), signal.SIGKILL])
def test_a_worker_that_is_killed_there_leaves_nothing_locked(
    by: signal.Signals, board: Board, root: Path, artifact: Artifact, tmp_path: Path
) -> None:
    before = said(root)
    began = Began(board, asked_of(tmp_path, artifact, LONG)[0], root)
    board.transport.cut = lambda words, size: -1  # so that nobody begins it again
    (worker,) = board.workers()
    os.kill(worker, by)
    until(lambda: given_back(root))
    assert said(root) == before
    until(lambda: not guards(board))
    board.transport.cut = lambda words, size: None
    board.device().end()
    began.ended()
    until(lambda: given_back(root) and not guards(board))  # of one that was begun again before it was ended
    assert said(root) == before


def test_a_lost_connection_ends_nothing_and_an_ended_job_gives_back(board: Board, root: Path, artifact: Artifact, tmp_path: Path) -> None:
    before = said(root)
    began = Began(board, asked_of(tmp_path, artifact, LONG)[0], root)
    board.transport.cut = lambda words, size: -1
    assert state_of(root)["cards"][1]["lock"] == 2520  # it goes on there, and so does what holds them
    board.transport.cut = lambda words, size: None
    board.device().end()
    began.ended()
    until(lambda: given_back(root) and not guards(board))
    assert said(root) == before


def test_a_guard_that_is_killed_there_fails_the_measurement(board: Board, root: Path, artifact: Artifact, tmp_path: Path) -> None:
    before = said(root)
    asked, _ = asked_of(tmp_path, artifact, MeasureOptions(min_seconds=3, min_samples=8, max_seconds=30, energy_seconds=0))
    began = Began(board, asked, root)
    os.kill(guards(board)[0], signal.SIGKILL)
    error = began.ended()
    assert isinstance(error, MissingError)
    assert "clocks did not stay locked: the process that held them was ended" in str(error)
    until(lambda: given_back(root))
    assert said(root) == before


@pytest.mark.thorough
def test_what_two_killed_ones_left_there_the_next_job_gives_back_whether_it_locks_or_not(
    board: Board, root: Path, artifact: Artifact, tmp_path: Path
) -> None:
    before = said(root)
    began = Began(board, asked_of(tmp_path, artifact, LONG)[0], root)
    board.transport.cut = lambda words, size: -1
    os.kill(guards(board)[0], signal.SIGKILL)
    for worker in board.workers():
        os.killpg(worker, signal.SIGKILL)
    until(lambda: not board.processes())
    assert said(root) != before
    board.transport.cut = lambda words, size: None
    board.device().end()
    began.ended()
    shipped, task = asked_of(tmp_path, artifact, QUICK, locks=False)
    assert condition(shipped, perform(board.device(), shipped), task) is None
    assert said(root) == before
    assert given_back(root)


def test_a_device_that_cannot_says_why_and_what_to_do(board: Board, root: Path, artifact: Artifact, tmp_path: Path) -> None:
    cards = state_of(root)["cards"]
    change(root, cards=[cards[0], cards[1] | {"refuses": True}])
    before = said(root)
    asked, _ = asked_of(tmp_path, artifact, QUICK)
    with pytest.raises(MissingError, match=r"clocks cannot be locked: nvidia-smi -lgc 2520,2520 for GPU 1") as refused:
        perform(board.device(), asked, to_the_end=False)
    assert "without --lock-clocks" in str(refused.value.remedy)
    assert said(root) == before

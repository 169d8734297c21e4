"""How a job on a device ends before it is done: a task fails, somebody interrupts it, with a connection or without, or stops it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from commandline import deploy
from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.devices.transport import Shell
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.commands import Ended
from dtvit_deploy.remote.device import Device
from dtvit_deploy.runtimes.registry import BY_FORMAT

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

pytest.importorskip("openvino")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(*body), (torch.zeros(1, 3, 32, 32),)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A small network as ONNX and as OpenVINO."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "mine.py").write_text(NETWORK)
    deploy("export", "-m", "mine:make", "-t", "onnx", "-t", "openvino", "-p", "fp32", "-o", "out", cwd=folder)
    found = [load_artifact(path.with_suffix("")) for path in sorted((folder / "out").glob("mine*.json"))]
    return sorted(found, key=lambda artifact: artifact.manifest.format)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


@pytest.fixture
def asked(tmp_path: Path, exported: list[Artifact]) -> Asked:
    """Answers of the ONNX artefact, then of the other one."""
    rng = np.random.default_rng(1)
    feeds: Sequence[Feeds] = [{"input": rng.standard_normal((1, 3, 32, 32), np.float32)} for _ in range(6)]
    (tmp_path / "blobs").mkdir()
    asking = Asking(tmp_path / "blobs")
    given = asking.feeds(feeds)
    for artifact in exported:
        asking.answers(asking.subject(artifact, BY_FORMAT[artifact.manifest.format][0]), given)
    return asking.asked


def perform(device: Device, asked: Asked, **options: object) -> Results:
    return device.perform(asked.job, asked.blobs, **options)  # type: ignore[arg-type]


def test_a_task_that_fails_is_raised_with_the_devices_name_before_what_comes_after_it_is_done(board: Board, asked: Asked) -> None:
    package = board.folder / "packages" / "onnxruntime"
    there = package.readlink()
    package.unlink()
    began: list[str] = []
    with pytest.raises(MissingError, match=r"^this machine in .*: .*ONNX Runtime"):
        perform(board.device(), asked, to_the_end=False, advanced=lambda task, part: began.append(task))
    assert not any(asked.job.subjects[1].name in task for task in began)
    assert board.workers() == []
    assert board.device().holder() == ""
    package.symlink_to(there)
    assert len(list(perform(board.device(), asked, to_the_end=False).parts(0))) == 6  # the next request does not find that failure


def test_a_failure_that_could_not_be_taken_back_there_is_not_what_the_next_request_finds(board: Board, asked: Asked) -> None:
    package = board.folder / "packages" / "onnxruntime"
    there = package.readlink()
    package.unlink()
    board.transport.cut = lambda words, size: -1 if words[:1] == ["forget"] else None
    said: list[str] = []
    with pytest.raises(MissingError, match="ONNX Runtime"):
        perform(board.device(), asked, to_the_end=False, say=said.append)
    assert "the job may go on there, and could not be ended" in said[-1]
    board.transport.cut = lambda words, size: None
    board.device().end()
    package.symlink_to(there)
    assert len(list(perform(board.device(), asked, to_the_end=False).parts(0))) == 6


def test_without_a_connection_an_interruption_says_that_the_job_goes_on_and_what_ends_it(board: Board, asked: Asked) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "connection is lost" in text:
            raise KeyboardInterrupt

    def lose(task: str, part: float) -> None:
        if task != "sending":
            board.transport.cut = lambda words, size: -1

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        perform(board.device(), asked, say=say, advanced=lose)
    assert time.monotonic() - began < 60
    assert "there is no connection, and the job goes on there; `dtvit-deploy device stop 'this machine in " in said[-1]
    board.transport.cut = lambda words, size: None
    ended = board.device().end()
    assert {one.job for one in ended} <= {asked.identity}  # it may have come to its end by itself
    assert board.workers() == []


def test_a_device_that_does_not_answer_an_interruption_at_once_is_not_waited_for_in_silence(
    board: Board, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("dtvit_deploy.remote.device._SOON", 0.01)

    def interrupt(task: str, part: float) -> None:
        if task != "sending":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(board.device(), asked, say=said.append, advanced=interrupt)
    assert "the job may go on there; `dtvit-deploy device stop" in said[-1]
    assert board.workers() == []


class TestEnding:
    def test_every_job_of_the_user_ends_and_is_told(self, board: Board, asked: Asked) -> None:
        ended: list[Ended] = []

        def end(task: str, part: float) -> None:
            if task != "sending":
                ended.extend(Device(Shell(board.folder), python=str(board.python)).end())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            perform(board.device(), asked, advanced=end)
        assert [one.job for one in ended] == [asked.identity]
        assert asked.identity[:12] in str(ended[0])
        assert "answers of" in str(ended[0])
        assert board.workers() == []
        assert board.device().end() == ()

    def test_it_is_not_begun_again_by_the_command_that_follows_it_and_is_by_the_next(self, board: Board, asked: Asked) -> None:
        ended: list[Ended] = []

        def end(task: str, part: float) -> None:
            if task != "sending" and not ended:
                ended.extend(Device(Shell(board.folder), python=str(board.python)).end())

        with pytest.raises(InputError, match="somebody has ended the job there"):
            perform(board.device(), asked, advanced=end)
        assert board.workers() == []
        assert perform(board.device(), asked).ended

    def test_where_nothing_is_no_agent_is_brought(self, board: Board) -> None:
        assert board.device().end() == ()
        assert board.device().clean() == 0
        assert board.transport.moved("bring") == 0
        assert not board.root.exists()

    def test_what_another_version_left_is_removed_too(self, board: Board, asked: Asked) -> None:
        perform(board.device(), asked)
        (archive,) = board.root.glob("agent/*.zip")
        archive.rename(archive.with_name("0" * 64 + ".zip"))
        assert board.device().clean() > 100_000
        assert not board.root.exists()

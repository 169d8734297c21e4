"""Jobs for a device that is this machine: a small network's artefacts, what is asked of them, and what ends while they are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from commandline import deploy
from devices import Board
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.formats.job.results import Results
from dtvit_deploy.remote.asking import Asked, Asking
from dtvit_deploy.remote.device import Device
from dtvit_deploy.runtimes.registry import BY_FORMAT

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

_NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.GELU(), nn.Conv2d(8, 96, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4)
    return nn.Sequential(*body), (torch.zeros(1, 3, 32, 32),)
"""


def export_small(folder: Path) -> None:
    """Export a small network as ONNX and OpenVINO in FP32, FP16 and INT8, to ``out`` in a folder that is made."""
    folder.mkdir()
    (folder / "mine.py").write_text(_NETWORK)
    np.savez(folder / "some.npz", input=np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32))
    asked = ("-t", "onnx", "-t", "openvino", "-p", "fp32", "-p", "fp16", "-p", "int8", "--calibration", "some.npz", "--no-search")
    deploy("export", "-m", "mine:make", *asked, "-o", "out", cwd=folder)


def small_feeds(count: int = 6) -> list[Feeds]:
    """Feeds of that network."""
    rng = np.random.default_rng(1)
    return [{"input": rng.standard_normal((1, 3, 32, 32), np.float32)} for _ in range(count)]


def asked_for(folder: Path, artifacts: Sequence[Artifact], feeds: Sequence[Feeds], token: str = "") -> Asked:
    """A job: the answers of artefacts to feeds."""
    (folder / "blobs").mkdir(exist_ok=True)
    asking = Asking(folder / "blobs", token=token)
    given = asking.feeds(feeds)
    for artifact in artifacts:
        asking.answers(asking.subject(artifact, BY_FORMAT[artifact.manifest.format][0]), given)
    return asking.asked


def perform(device: Device, asked: Asked, **options: object) -> Results:
    """Have it done."""
    return device.perform(asked.job, asked.blobs, **options)  # type: ignore[arg-type]


def answers(results: Results) -> list[dict[str, bytes]]:
    """Every array of the results, by its bytes."""
    return [
        {name: array.tobytes() for name, array in part.items()} for task, _ in enumerate(results.job.tasks) for part in results.parts(task)
    ]


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

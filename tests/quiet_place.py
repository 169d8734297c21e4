"""A user whose home and temporary folder are empty, with a network of their own, in which everything that a command leaves can be seen."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commandline import DEPLOY
from tracing import Traced, traced

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, 2), nn.GELU(), nn.Conv2d(8, 96, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 2)
    return nn.Sequential(*body), (torch.zeros(1, 3, 32, 32),)

class Odd(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

def odd():
    return Odd(), (torch.zeros(1, 3, 16, 16),)
"""
SEMAPHORES = Path("/dev/shm")
"""Memory, not a disk; multiprocessing takes a semaphore's name away in the moment in which it has made it."""


@dataclass(frozen=True)
class Place:
    """Folders: ``home`` and ``temporary`` must stay empty; ``work`` is where the user is, ``out`` and ``cache`` are to be written."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def run(self, *arguments: object, at: int = 0, number: signal.Signals | None = None) -> Traced:
        """Trace a command of ours that writes to ``out`` in the user's folder; see `traced`."""
        logs = self.root / "logs"
        logs.mkdir(exist_ok=True)
        env = {
            "PATH": os.defpath,
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "DTVIT_DEPLOY_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # bytecode beside modules is Python's own affair
        }
        log = logs / str(len(list(logs.iterdir())))
        return traced([DEPLOY, *map(str, arguments)], self.work, env, log, at, number)

    def outside(self, found: Traced) -> list[Path]:
        """What was written neither to the output nor to the cache nor to the command's own temporary folder."""
        own = {path for path in found.written if path.parent == self.temporary and path.name.startswith("dtvit-deploy-")}
        named = {path for path in found.written if path.parent == SEMAPHORES and path.name.startswith("sem.")}
        return found.outside(self.work / "out", self.cache, *own, *named)

    def left(self, found: Traced) -> list[Path]:
        """What a command has left: anything at home or among temporary files, unfinished output, half an entry of the cache, semaphores."""
        everywhere = [path for folder in (self.home, self.temporary) for path in folder.rglob("*")]
        unfinished = [path for folder in (self.work, self.cache) for path in folder.rglob(".*") if path.name != ".files"]
        return [*everywhere, *unfinished, *(path for path in found.written if path.parent == SEMAPHORES and path.exists())]


def quiet_place(root: Path) -> Place:
    """Make one, with the modules ``mine`` and pictures in two class folders of ``images``."""
    from PIL import Image

    place = Place(root)
    for folder in (place.home, place.temporary, place.work):
        folder.mkdir(parents=True)
    (place.work / "mine.py").write_text(NETWORK)
    random = np.random.RandomState(0)
    for name in ("images/a", "images/b", "train/a", "train/b"):
        (place.work / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(place.work / name / f"{index}.png")
    return place

"""What bad input stands beside: networks, a checkpoint, images, and an export that works, for each test to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from commandline import deploy
from networks import IMAGES, WEIGHTS

NETWORKS = (
    IMAGES
    + """
class Branches(Net):
    def forward(self, image):
        logits = super().forward(image)
        if logits.sum() > 0:
            return logits
        return -logits

class Rolls(Net):
    def forward(self, image):
        return super().forward(image) + torch.rand(1)

class Large(Net):  # 4 MB
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 3))

def net(): return Net(), image()
def branches(): return Branches(), image()
def rolls(): return Rolls(), image()
def large(): return Large(), image()
def fails(): raise ValueError("not today")
"""
)
COLOURS = """
import torch
from torch import nn

class Colours(nn.Module):
    '''Says what colour the upper left quarter has: it sees a wrong colour, a wrong range and a wrong side up.'''

    def forward(self, image):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        red, green, blue = ((image[:, :, :8, :8].mean((2, 3)) * std + mean)).unbind(1)
        light = (red + green + blue) / 3
        return torch.stack([blue - red - green, 0.25 - light, green - red - blue, red - green - blue, light - 0.75], 1)

def make(): return Colours(), {"image": torch.zeros(1, 3, 16, 16)}
"""


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's modules, a checkpoint, images in class folders, and an export of both networks."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "colours.py").write_text(COLOURS)
    random = np.random.RandomState(0)
    for name in "abc":
        (folder / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(folder / "images" / name / f"{index}.jpg")
    for model, out in (("networks:net", "net"), ("colours:make", "colours")):
        deploy("export", "-m", model, "-o", out, cwd=folder)
    save_file({name: torch.ones(shape) for name, shape in WEIGHTS.items()}, folder / "good.safetensors")
    return folder


@pytest.fixture
def work(given: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to spoil."""
    return Path(shutil.copytree(given, tmp_path / "work"))

"""A user's project in a folder: a network of their own, its recipe, and labelled pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.head = nn.Conv2d(3, {width}, 3, 2), nn.Conv2d({width}, 96, 3), nn.Linear(96, 3)

    def forward(self, image):
        return self.head(self.body(nn.functional.gelu(self.stem(image))).relu().mean((2, 3)))

def make():
    return Net().eval(), {{"image": torch.zeros(1, 3, {side}, {side})}}
"""
RECIPE = """
[model]
name = "watched:make"
[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[data]
evaluation = "images"
"""
"""What every such project says; what a test asks for besides follows."""


def make_project(folder: Path, *, recipe: str, side: int = 32, width: int = 8, pictures: int = 12) -> None:
    """Write it: ``watched.py``, ``dtvit-deploy.toml`` and ``images/CLASS/*.png``.

    Args:
        recipe: what follows `RECIPE`, beginning with more of ``[data]``.
        side: pixels of a picture's side.
        width: channels of the stem.
        pictures: how many there are, of three classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "watched.py").write_text(_NETWORK.format(width=width, side=side))
    (folder / "dtvit-deploy.toml").write_text(RECIPE + recipe)
    random = np.random.RandomState(0)
    for index in range(pictures):
        place = folder / "images" / "abc"[index % 3] / f"{index:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (side, side, 3), np.uint8)).save(place)


def inventory(folder: Path, **devices: str) -> None:
    """Write ``devices.toml``: of each device by name, the lines of its table besides the name."""
    tables = (f'[[device]]\nname = "{name}"\n{lines}\n' for name, lines in devices.items())
    (folder / "devices.toml").write_text("\n".join(tables))

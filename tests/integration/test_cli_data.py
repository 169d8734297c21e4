"""A checkpoint of a training framework and data as a data set has them, from the command line's end to its figures."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commandline import Done, begun, deploy

torch.set_num_threads(1)

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Linear(8, 6)

    def forward(self, image):
        return self.head(self.norm(self.stem(image)).relu().mean((2, 3)))

def build():
    return Net(), {"image": torch.zeros(1, 3, 16, 16)}
"""
NAMES = ("ant", "bee", "cat", "dog", "emu", "fox")
"""The data set's own, which the network does not know."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, a Lightning checkpoint of it, class folders by WordNet id, a CSV by name, and what else lies about."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mine.py").write_text(NETWORK)
    namespace: dict[str, object] = {}
    exec(NETWORK, namespace)
    network = namespace["Net"]()  # type: ignore[operator]
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()} | {"loss.weight": torch.ones(6)}
    state["model.norm.num_batches_tracked"] = torch.tensor(7, dtype=torch.int32)
    torch.save({"state_dict": state, "hyper_parameters": Namespace(lr=0.1), "callbacks": {"best": np.float64(1)}}, folder / "last.ckpt")
    network.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rows = ["class,image"]
    random = np.random.RandomState(0)
    for index in range(12):
        pixels = random.randint(0, 256, (16, 16, 3), dtype=np.uint8)
        image = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(2, 0, 1)[None]
        label = int(network(image).argmax()) if index else 5  # one is wrong
        wordnet = folder / "val" / f"n0000000{label}"
        wordnet.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(wordnet / f"{index}.png")
        rows.append(f'"{NAMES[label]}",n0000000{label}/{index}.png')
    (folder / "val.csv").write_text("\n".join(rows))
    (folder / "map.txt").write_text("".join(f"{label} n0000000{label} {name}\n" for label, name in enumerate(NAMES)))
    for litter in ("val/Thumbs.db", "val/__MACOSX/a.png", "val/n00000005/.DS_Store", "val/n00000005/a.heic", "val/n00000005/b.heic"):
        (folder / litter).parent.mkdir(exist_ok=True)
        (folder / litter).write_bytes(b"x")
    asked = ("--checkpoint", "last.ckpt", "--data", "val", "--class-map", "map.txt")
    deploy("init", "-m", "mine:build", *asked, "-o", "recipe.toml", cwd=folder)
    text = (folder / "recipe.toml").read_text()
    text = text.replace("# resize = 256", "resize = 16").replace("# crop = [224, 224]", "crop = [16, 16]")
    (folder / "recipe.toml").write_text(text.replace("[gates.fp32]\n", "[gates.fp32]\ntop1_drop = 0.0\n"))
    return folder


@pytest.fixture(scope="module")
def ran(work: Path) -> Done:
    """The recipe that `init` wrote, with three lines of it made true."""
    return deploy("run", "recipe.toml", "--no-layers", "-o", "out", cwd=work)


def require_figures(report: dict[str, Any]) -> str:
    """Hold both the reference and the artefact to the share that is right; the notes."""
    assert [one["accuracy"]["top1"] for one in report["subjects"]] == [pytest.approx(11 / 12)] * 2
    notes = " ".join(report["notes"])
    assert "the entry 'state_dict'" in notes
    assert "'model.'" in notes
    assert "loss.weight" in notes
    return notes


def test_a_recipe_that_init_wrote_runs_on_a_lightning_checkpoint_and_classes_that_only_a_map_knows(work: Path, ran: Done) -> None:
    assert "PASS" in ran.stdout
    assert "onnx fp32" in begun(ran.stderr)
    notes = require_figures(json.loads((work / "out" / "report.json").read_text()))
    assert "2 files were skipped, which are no image of a kind that can be read: .heic (2)" in notes


def test_a_table_of_names_gives_the_figures_of_folders_of_ids(work: Path, ran: Done) -> None:
    assert ran.returncode == 0
    command = ("evaluate", "out/mine.build.fp32.onnx", "-m", "mine:build", "-c", "last.ckpt", "--data", "val.csv", "--class-map", "map.txt")
    notes = require_figures(json.loads(deploy(*command, "--json", cwd=work).stdout))
    assert "skipped" not in notes


@pytest.mark.parametrize(("calibration", "evaluation"), [("feeds.npz", "val"), ("val", "feeds.npz"), ("feeds.npz", "feeds.npz")])
def test_a_class_map_is_for_those_data_of_a_recipe_that_are_images(calibration: str, evaluation: str, work: Path) -> None:
    np.savez(work / "feeds.npz", image=np.random.RandomState(0).rand(4, 3, 16, 16).astype(np.float32))
    text = (work / "recipe.toml").read_text().replace("\ntop1_drop = 0.0", "")
    text = text.replace('evaluation = "val"', f'evaluation = "{evaluation}"\ncalibration = "{calibration}"')
    (work / "int8.toml").write_text(text.replace('precisions = ["fp32"]', 'precisions = ["int8"]'))
    done = deploy("run", "int8.toml", "--no-layers", "-o", "int8", cwd=work, code=2)
    said = "no images were given" if calibration == evaluation else "nothing of mine:build would be INT8"  # which only ranges tell
    assert said in done.stderr

"""A recipe with INT8, as `run` runs it: calibrated once, held against the best float artefact, and honest in what it recommends.

Who is faster is nobody's to say here, where latencies are measured for a moment on a machine with other work: only that verdict,
recommendation and exit code say the same.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commandline import deploy
from dtvit_deploy.artifacts.artifact import load_artifact
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.calibration.ranges import RangeTable, load_ranges

pytestmark = pytest.mark.slow
TARGETS = ["onnx", "openvino"] if find_spec("openvino") else ["onnx"]
FLOATS = {"onnx": ["fp32", "fp16"], "openvino": ["fp32", "fp16", "bf16"]}
CLASSES = ("0-red", "1-green", "2-blue")
SAMPLES = 12
NETWORK = """
import torch
from torch import nn

class Colours(nn.Module):
    '''Hands the colours through, beside much that does not matter: what is right, is right by far.'''

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 64, 3, 1, 1)  # 2.4 million products in the second
        self.linear, self.head = nn.Linear(64, 128), nn.Linear(128, 3)  # 2.1 million in the first
        for layer in (self.stem, self.conv, self.linear, self.head):
            made = nn.init.dirac_ if layer.weight.ndim == 4 else nn.init.eye_
            layer.weight = nn.Parameter(made(torch.empty_like(layer.weight)) + 0.02 * layer.weight)

    def forward(self, image):
        tokens = self.conv(self.stem(image).relu()).relu().flatten(2).transpose(1, 2)
        return self.head(self.linear(tokens).relu().mean(1))

def make(): return Colours(), {"image": torch.zeros(1, 3, 32, 32)}
"""
RECIPE = """
[model]
name = "colours:make"
[data]
calibration = "{calibration}"
evaluation = "held-out"
[export]
targets = {targets}
precisions = {precisions}
[int8]
samples = {samples}
allow_leak = {allow_leak}
[profile]
seconds = 0.1
"""


def images(folder: Path, seed: int, each: int) -> None:
    """Noise over one colour for each class."""
    random = np.random.RandomState(seed)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = random.randint(0, 90, (32, 32, 3))
            pixels[..., label] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


def recipe(work: Path, name: str, calibration: str, *, allow_leak: bool = False) -> str:
    precisions = ["fp32", "fp16", *(["bf16"] if "openvino" in TARGETS else []), "int8"]
    asked = {"calibration": calibration, "targets": TARGETS, "precisions": precisions, "samples": SAMPLES}
    (work / name).write_text(RECIPE.format(**asked, allow_leak=str(allow_leak).lower()))
    return name


class Ran:
    """A run that came to a verdict: its exit code, its words, its report and what it left."""

    def __init__(self, work: Path, name: str, out: str) -> None:
        done = deploy("run", name, "-o", out, "--no-layers", "--json", cwd=work, code=None)
        assert done.returncode in (0, 1), done.stderr
        self.code, self.said, self.folder = done.returncode, done.stderr, work / out
        self.report: dict[str, Any] = json.loads(done.stdout)

    @property
    def table(self) -> RangeTable:
        return load_ranges(self.folder / "ranges.json")

    @property
    def int8(self) -> list[Path]:
        return [self.folder / f"colours.make.int8.{target}" for target in TARGETS]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder: a network, images to calibrate on, others to judge by, and a third kind in which the two meet."""
    folder = tmp_path_factory.mktemp("run-int8")
    (folder / "colours.py").write_text(NETWORK)
    images(folder / "train", 0, 6)
    images(folder / "held-out", 1, 4)
    shutil.copytree(folder / "train", folder / "mixed")
    for index in range(6):  # all of one class, since which of them are drawn is not this test's affair
        shutil.copyfile(folder / "held-out" / CLASSES[1] / f"{index % 4}.png", folder / "mixed" / CLASSES[1] / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def first(work: Path) -> Ran:
    return Ran(work, recipe(work, "int8.toml", "train"), "first")


@pytest.fixture(scope="module")
def second(work: Path, first: Ran) -> Ran:
    return Ran(work, "int8.toml", "second")


def test_everything_asked_for_is_built_and_something_in_it_is_int8(first: Ran) -> None:
    expected = {f"colours.make.{precision}.{target}" for target in TARGETS for precision in [*FLOATS[target], "int8"]}
    assert {one["file"] for one in first.report["subjects"]} == expected | {""}
    for path in first.int8:
        artifact = load_artifact(path)
        link = artifact.manifest.parent("int8")
        assert link is not None
        assert link.options["products"] >= 1
        assert artifact.manifest.rung is Rung.BUILT


def test_the_table_is_shipped_beside_the_artefacts_that_name_it(first: Ran) -> None:
    assert len(first.table.samples) == SAMPLES
    assert (first.table.synthetic, first.table.leaked) == (False, 0)
    for path in first.int8:
        link = load_artifact(path).manifest.parent("int8")
        assert link is not None
        assert link.options["ranges"] == first.table.sha256


def test_the_report_says_what_was_calibrated_on(first: Ran) -> None:
    found = first.report["calibration"]
    assert found["ranges"] == first.table.sha256
    assert (found["source"], found["samples"], found["synthetic"]) == ("the images in train", SAMPLES, False)
    assert found["conclusion"] == first.table.conclusion()
    assert found["convergence"][-1]["images"] == SAMPLES
    assert not [note for note in first.report["notes"] if "CALIBRATED" in note]
    assert found["conclusion"] in (first.folder / "report.md").read_text()


def test_the_search_looks_only_at_images_that_the_calibration_observed(first: Ran) -> None:
    """Those alone were held against the evaluation images."""
    found = [one["search"]["samples"] for one in first.report["subjects"] if one["precision"] == "int8"]
    assert found == [SAMPLES] * len(TARGETS)


def test_it_answers_right_and_its_top1_is_held_to_its_floats(first: Ran) -> None:
    for one in first.report["subjects"]:
        assert (one["accuracy"]["top1"], one["accuracy"]["samples"]) == (1.0, 12)
    assert all("top-1" in one["reason"] or "nothing in it is INT8" in one["reason"] for one in first.report["recommendations"])


def require_agreement(ran: Ran) -> None:
    """Verdict, recommendation and exit code are three words for one finding."""
    verdict = ran.report["verdict"]
    assert verdict["passed"] == all(gate["passed"] for gate in verdict["gates"])
    assert ran.code == (0 if verdict["passed"] else 1)
    assert [one["runtime"] for one in ran.report["recommendations"]] == TARGETS
    for one, path in zip(ran.report["recommendations"], ran.int8, strict=True):
        (earns,) = (gate for gate in verdict["gates"] if gate["name"] == f"{path.name}: INT8 earns its place")
        assert (one["file"] == path.name) == earns["passed"]
        assert earns["reason"] in one["reason"]
        assert one["file"] in {"", path.name, *(f"colours.make.{precision}.{one['runtime']}" for precision in FLOATS[one["runtime"]])}
        assert one["reason"] in (ran.folder / "report.md").read_text().replace("\\", "")
        assert path.exists()  # kept, whatever is recommended


def test_verdict_recommendation_and_exit_code_agree(first: Ran, second: Ran) -> None:
    require_agreement(first)
    require_agreement(second)


def test_a_second_run_does_not_calibrate_again_and_ends_with_the_same(first: Ran, second: Ran) -> None:
    assert ": reading the samples" in first.said
    assert ": a trial with" in first.said
    assert ": reading the samples" not in second.said
    assert ": a trial with" not in second.said
    assert (second.folder / "ranges.json").read_bytes() == (first.folder / "ranges.json").read_bytes()
    assert second.report["calibration"] == first.report["calibration"]
    told = [[(one["file"], one["sha256"], one["accuracy"]["top1"]) for one in ran.report["subjects"]] for ran in (first, second)]
    assert told[0] == told[1]


class TestAnEvaluationImageAmongThoseOfTheCalibration:
    def test_is_refused_with_its_name_and_nothing_is_built(self, work: Path, first: Ran) -> None:
        del first  # what is built there is in the cache, which may not tempt anybody
        done = deploy("run", recipe(work, "leak.toml", "mixed"), "-o", "leak", cwd=work, code=2)
        assert "of the 12 evaluation images in held-out are calibration images too: 1-green/" in done.stderr
        assert "`allow_leak = true` of a recipe's [int8]" in done.stderr
        assert ": building" not in done.stderr
        assert not (work / "leak").exists()

    @pytest.mark.thorough
    def test_is_let_through_where_the_recipe_says_so_and_every_page_says_it_loudly(self, work: Path) -> None:
        ran = Ran(work, recipe(work, "allowed.toml", "mixed", allow_leak=True), "allowed")
        require_agreement(ran)
        leaked = ran.table.leaked
        assert leaked
        for path in ran.int8:
            said = f"{path.name}: CALIBRATED ON {leaked} EVALUATION IMAGES"
            assert [note for note in ran.report["notes"] if note.startswith(said)]
            assert "CALIBRATED ON" in (ran.folder / "report.html").read_text()

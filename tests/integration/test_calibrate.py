"""Calibration of real networks: the ranges are what torch computes, and what makes no sense is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.calibration.method import Method
from dtvit_deploy.calibration.ranges import RangeTable, load_ranges
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.calibrate import calibrate
from dtvit_deploy.pipeline.material import preprocessing_of
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.recipe.reading import validated
from dtvit_deploy.recipe.tables import Data, Int8, PreprocessingChanges, Recipe
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import open_session, runtime_for

NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, image):
        value, gate = self.norm(self.stem(image)).split(3, 1)
        both = torch.cat([value * gate.sigmoid(), gate.relu()], 1).flatten(2).transpose(1, 2)
        return self.head(torch.cat([self.token.expand(len(both), -1, -1), both], 1).mean(1))

class Logs(Net):
    def forward(self, image):
        return super().forward(image) + torch.log(image.mean((2, 3)) + 1)

class Masks(Net):
    def forward(self, image):
        tokens = self.stem(image).flatten(2)[:, :, :6]
        hidden = (tokens @ tokens.transpose(1, 2)).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
        return self.head(hidden.softmax(-1).mean(1))

class Two(Net):
    def forward(self, image, scale, index):
        return super().forward(image * scale) + self.token[0, 0, index]

def image(): return {"image": torch.zeros(1, 3, 16, 16)}
def net(): return Net(), image()
def logs(): return Logs(), image()
def masks(): return Masks(), image()
def two(): return Two(), image() | {"scale": torch.ones(1), "index": torch.zeros(3, dtype=torch.int64)}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's module, and images in class folders."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "calibrated.py").write_text(NETWORKS)
    random = np.random.RandomState(0)
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(random.randint(0, 256, (20, 20, 3), np.uint8)).save(folder / "images" / name / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def module(given: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(given)
    yield
    sys.modules.pop("calibrated", None)


def options(name: str, data: Path | None, *, changes: PreprocessingChanges | None = None, **more: Any) -> Recipe:
    asked = {"random_data": data is None, "samples": 20} | more
    evaluation = asked.pop("evaluation", None)
    return Recipe(
        model=Model(name=f"calibrated:{name}"),
        data=Data(calibration=data, evaluation=evaluation),
        preprocessing=changes or PreprocessingChanges(),
        int8=Int8(**asked),
    )


def calibrated(asked: Recipe, out: Path) -> RangeTable:
    table = calibrate(asked, out, Cache.default(), Silent())
    assert load_ranges(out) == table
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return table


def refused(asked: Recipe, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        calibrate(asked, folder / "ranges.json", Cache.default(), Silent())
    assert caught.value.remedy
    assert not list(folder.iterdir())
    return str(caught.value)


def tensors_of(program: ProgramEntry) -> tuple[str, ...]:
    """Its inner tensors; when a program is read, torch adds some that hold nothing."""
    return tuple(name for name in runtime_for(program.artifact).tensors(program.artifact) if program.nodes.get(name))


def feeds(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


class TestRanges:
    @pytest.fixture
    def program(self) -> ProgramEntry:
        return program_stage(Model(name="calibrated:net"), Cache.default())

    def test_every_tensor_of_the_program_has_one_and_it_is_what_torch_computes(
        self, given: Path, program: ProgramEntry, tmp_path: Path
    ) -> None:
        images = np.random.RandomState(0).standard_normal((20, 3, 16, 16)).astype(np.float32)
        table = calibrated(options("net", feeds(given / "feeds.npz", image=images)), tmp_path / "ranges.json")
        found = table.lookup(program.nodes, Method.MINMAX)
        taps = tensors_of(program)
        assert found.keys() >= {*taps, "image", "output"}
        with open_session(program.artifact, SessionOptions(taps=taps)) as session:
            answers = [session.run({"image": image[None]}) for image in images]
        for name in (*taps, "output"):
            values = np.stack([answer[name] for answer in answers])
            low, high = found[name]
            if name in table.tensors:
                assert (low, high) == pytest.approx((values.min(), values.max()), rel=1e-5, abs=1e-6)
            else:  # a view of a part
                assert low <= values.min() + 1e-6
                assert high >= values.max() - 1e-6
        assert found["image"] == (float(str(images.min())), float(str(images.max())))

    def test_a_network_of_several_inputs_of_which_one_counts(self, tmp_path: Path) -> None:
        random = np.random.RandomState(0)
        data = feeds(
            tmp_path / "feeds.npz",
            image=random.rand(9, 3, 16, 16).astype(np.float32),
            scale=random.rand(9, 1).astype(np.float32),
            index=random.randint(0, 6, (9, 3)),
        )
        table = calibrated(options("two", data), tmp_path / "out" / "ranges.json")
        assert {"image", "scale"} <= table.tensors.keys()
        assert "index" not in table.tensors
        assert table.inputs == ("image", "scale", "index")

    def test_a_tensor_that_reaches_infinity_has_none_and_the_others_have(self, given: Path, tmp_path: Path) -> None:
        table = calibrated(options("masks", given / "images"), tmp_path / "ranges.json")
        assert len(table.unbounded) == 1
        softmax = next(one for name, one in table.tensors.items() if "softmax" in name)
        assert 0 <= softmax.minmax.low <= softmax.minmax.high <= 1
        program = program_stage(Model(name="calibrated:masks"), Cache.default())
        assert table.unbounded[0] not in table.lookup(program.nodes, Method.MSE)

    def test_the_table_says_what_it_was_made_from(self, given: Path, program: ProgramEntry, tmp_path: Path) -> None:
        table = calibrated(options("net", given / "images", samples=12, evaluation=None), tmp_path / "ranges.json")
        assert (table.model, table.program) == ("calibrated:net", program.artifact.manifest.sha256)
        assert table.preprocessing == preprocessing_of(program.artifact.manifest)
        assert sorted(one.name[0] for one in table.samples) == ["a"] * 6 + ["b"] * 6
        assert [point.images for point in table.convergence] == [8, 12]
        assert not table.synthetic
        table.require(program.artifact.manifest, table.preprocessing)
        text = (tmp_path / "ranges.json").read_text()
        assert str(given) not in text
        assert str(tmp_path) not in text

    def test_random_numbers_leave_their_stain(self, tmp_path: Path) -> None:
        table = calibrated(options("net", None), tmp_path / "ranges.json")
        assert table.synthetic
        assert any(note.startswith("CALIBRATED ON RANDOM NUMBERS") for note in table.notes)

    def test_another_preprocessing_gives_other_ranges_that_are_refused_for_the_first(
        self, given: Path, program: ProgramEntry, tmp_path: Path
    ) -> None:
        changes = PreprocessingChanges(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        table = calibrated(options("net", given / "images", changes=changes), tmp_path / "ranges.json")
        assert table.tensors["image"].minmax.low >= 0
        assert table.tensors["image"].minmax.high <= 1
        with pytest.raises(InputError, match="another preprocessing"):
            table.require(program.artifact.manifest, preprocessing_of(program.artifact.manifest))

    def test_the_digits_have_a_range_for_every_tensor_of_the_network(self, digits: Path, checkpoint: Path, tmp_path: Path) -> None:
        reference = Model(checkpoint=checkpoint)
        data = Data(calibration=digits / "train", evaluation=digits / "held-out")
        asked = Recipe(model=reference, data=data, int8=Int8(samples=16))
        table = calibrated(asked, tmp_path / "ranges.json")
        program = program_stage(reference, Cache.default())
        tensors = tensors_of(program)
        for method in Method:
            assert table.lookup(program.nodes, method).keys() >= {*tensors, "image", "logits"}
        assert len(tensors) > 500
        assert table.leaked == 0
        assert table.unbounded == ()


class TestRefused:
    def test_nan_inside_the_network_by_tensor_module_and_sample(self, given: Path, tmp_path: Path) -> None:
        images = np.random.RandomState(0).rand(6, 3, 16, 16).astype(np.float32)
        images[4] -= 5
        told = refused(options("logs", feeds(given / "nan.npz", image=images)), tmp_path)
        assert told.startswith("log (aten.log.default in the network itself) holds NaN on nan.npz[4]")

    def test_images_of_a_single_colour(self, given: Path, tmp_path: Path) -> None:
        black = given / "black"
        black.mkdir()
        for index, colour in enumerate(("black", "white", "red")):
            Image.new("RGB", (20, 20), colour).save(black / f"{index}.png")
        assert refused(options("net", black), tmp_path).startswith("each of the 3 samples is of a single colour")
        Image.open(given / "images" / "a" / "0.png").save(black / "3.png")
        table = calibrated(options("net", black), tmp_path / "ranges.json")
        assert "3 of the 4 samples are of a single colour" in table.notes

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ({"samples": 1}, r"int8\.samples: expected a whole number of at least 2"),
            ({"percentile": 12.0}, r"int8\.percentile: expected a number of at least 50"),
        ],
    )
    def test_options_that_make_no_sense(self, more: dict[str, Any], told: str) -> None:
        with pytest.raises(InputError, match=told):
            validated(options("net", None, **more))

    def test_a_percentile_that_is_no_number(self) -> None:
        with pytest.raises(ValueError, match="Expected a number for `percentile`, got nan"):
            options("net", None, percentile=float("nan"))

    def test_nothing_to_observe_and_two_things(self, given: Path, tmp_path: Path) -> None:
        assert "none were given" in refused(options("net", None, random_data=False), tmp_path)
        assert refused(options("net", given / "images", random_data=True), tmp_path).startswith("images and random numbers")

    def test_an_image_that_cannot_be_read_leaves_nothing_behind(self, given: Path, tmp_path: Path) -> None:
        broken = given / "broken"
        broken.mkdir()
        for path in (given / "images").rglob("*.png"):
            (broken / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
        (broken / "a3.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
        assert "a3.png is not an image" in refused(options("net", broken), tmp_path)

    def test_a_folder_in_the_way_before_anything_is_computed(self, given: Path, tmp_path: Path) -> None:
        (tmp_path / "ranges.json").mkdir()
        with pytest.raises(InputError, match="is a folder"):
            calibrate(options("nothing", given / "images"), tmp_path / "ranges.json", Cache.default(), Silent())

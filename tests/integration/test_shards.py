"""Calibration and evaluation of a real network over shards: the same table and the same figures as in one pass, to the last byte."""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy, Tally
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline import observation
from dtvit_deploy.pipeline.calibrate import calibrate, chosen_of
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set
from dtvit_deploy.pipeline.material import Material, open_material, with_preprocessing
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.observation import CalibrationShard, Observation, observe
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.scoring import Scored, ScoringShard, accuracy, score
from dtvit_deploy.pipeline.shards import cut
from dtvit_deploy.recipe.tables import Data, Int8, Recipe, Run
from dtvit_deploy.runtimes.fake import FakeRuntime
from dtvit_deploy.runtimes.pairing import Pairing, pairings

CLASSES = "abcdefgh"
NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.head = nn.Conv2d(3, 6, 3, stride=4), nn.Linear(6, 8)

    def forward(self, image):
        return self.head(self.stem(image).relu().flatten(2).amax(2))

class Logs(Net):
    def forward(self, image):
        return super().forward(image) + torch.log(image.mean((2, 3)) + 0.05)[:, :1]

def image(): return {"image": torch.zeros(1, 3, 16, 16)}
def net(): return Net(), image()
def logs(): return Logs(), image()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's module, and 35 images in eight class folders: two are each of a single colour."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "sharded.py").write_text(NETWORK)
    random = np.random.RandomState(0)
    for index in range(35):
        path = folder / "images" / CLASSES[index % 8] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(np.full_like(pixels, index * 7) if index in (9, 30) else pixels).save(path)
    return folder


@pytest.fixture(autouse=True)
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop("sharded", None)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes that start from nothing, and know neither the user's module nor what this one has changed."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def program() -> ProgramEntry:
    return program_stage(Model(name="sharded:net"), Cache.default())


def options(folder: Path, name: str = "net", *, threads: int = 1, **more: Any) -> Recipe:
    given = {"data": folder / "images", "samples": 35, "percentile": 99.0} | more
    data = Data(calibration=given.pop("data"))
    return Recipe(model=Model(name=f"sharded:{name}"), data=data, int8=Int8(**given), run=Run(threads=threads))


Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def table(asked: Recipe, out: Path, many: int = 0, through: Map = map) -> bytes:
    """What is calibrated, in one pass or in so many stretches that are observed apart."""
    counted = None
    if many:
        program = with_preprocessing(program_stage(asked.model, Cache.default()), asked.preprocessing)
        chosen = chosen_of(asked, program.artifact.manifest, None)
        shards = [CalibrationShard(program, chosen, asked.run.threads, *one) for one in cut(0, len(chosen.samples), many)]
        counted = through(observe, shards)
    calibrate(asked, out, Cache.default(), Silent(), counted_apart=counted)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return out.read_bytes()


class TestCalibration:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_two_processes_write_the_same_bytes_as_one(self, threads: int, folder: Path, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
        asked = options(folder, threads=threads)
        alone = table(asked, tmp_path / "ranges.json")
        assert table(asked, tmp_path / "ranges.json", 3, pool.map) == alone
        assert b"2 of the 35 samples are of a single colour" in alone

    @pytest.mark.parametrize("kind", ["ready feeds", "random numbers", "a list without labels"])
    def test_whatever_is_observed(self, kind: str, folder: Path, tmp_path: Path) -> None:
        np.savez(folder / "feeds.npz", image=np.random.RandomState(1).standard_normal((19, 3, 16, 16)).astype(np.float32))
        (folder / "images.txt").write_text("".join(f"{path}\n" for path in sorted((folder / "images").rglob("*.png"))))
        given = {
            "ready feeds": {"data": folder / "feeds.npz"},
            "random numbers": {"data": None, "random_data": True},
            "a list without labels": {"data": folder / "images.txt"},
        }[kind]
        asked = options(folder, **given)
        assert table(asked, tmp_path / "ranges.json", 4) == table(asked, tmp_path / "ranges.json")

    @given(cuts=st.lists(st.integers(0, 20), max_size=4).map(sorted))
    @settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_cut_gives_the_ranges_of_one_pass(self, cuts: list[int], program: ProgramEntry, tmp_path: Path) -> None:
        chosen = random_set(program.artifact.manifest.signature, 20, 0)
        whole, found = observed(program, chosen), observed(program, chosen)
        whole.run(tmp_path / "unfinished", Silent())
        shards = zip([0, *cuts], [*cuts, 20], strict=True)  # some are empty
        found.take(observe(CalibrationShard(program, chosen, 1, *one)) for one in shards)
        assert found.curve.tobytes() == whole.curve.tobytes()
        for name, array in whole.counts.histograms.arrays().items():
            assert found.counts.histograms.arrays()[name].tobytes() == array.tobytes()

    def test_nan_is_told_as_one_process_tells_it(self, folder: Path, pool: ProcessPoolExecutor, tmp_path: Path) -> None:
        values = np.full((20, 3, 16, 16), 0.5, np.float32) + np.arange(20, dtype=np.float32)[:, None, None, None]
        values[[11, 17]] = -1  # the logarithm of less than nothing
        np.savez(folder / "negative.npz", image=values)
        said = []
        asked = options(folder, "logs", data=folder / "negative.npz")
        ways: list[tuple[int, Map]] = [(0, map), (5, map), (2, pool.map)]
        for many, through in ways:
            with pytest.raises(InputError) as caught:
                table(asked, tmp_path / "ranges.json", many, through)
            said.append((str(caught.value), caught.value.remedy))
            assert not list(tmp_path.iterdir())
        assert "holds NaN on negative.npz[1" in said[0][0]
        assert len(set(said)) == 1

    def test_a_shard_that_was_observed_with_other_versions_is_refused(self, program: ProgramEntry, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = random_set(program.artifact.manifest.signature, 12, 0)
        first = observe(CalibrationShard(program, chosen, 1, 0, 6))
        monkeypatch.setattr(observation, "versions", lambda *names: dict.fromkeys(names, "0.1"))
        second = observe(CalibrationShard(program, chosen, 1, 6, 12))
        with pytest.raises(InputError, match="samples 6 to 7 were observed otherwise"):
            observed(program, chosen).take([first, second])


def observed(program: ProgramEntry, chosen: CalibrationSet) -> Observation:
    return Observation(program, chosen, percentile=99.9, threads=1)


def apart(given: Bench, many: int, through: Map = map) -> list[Accuracy]:
    """What is scored in so many stretches."""
    return accuracy(given, through(score, [ScoringShard.of(given, *one) for one in cut(0, len(given.material), many)]))


def bench(program: ProgramEntry, material: Material) -> Bench:
    """An ONNX artefact in ONNX Runtime, and in a runtime that answers otherwise to most samples."""
    artifact = onnx_stage(program, open_material(None, program.artifact.manifest).guard(), Cache.default())
    return Bench(program, (*pairings((artifact,)), Pairing(artifact, FakeRuntime(), asked=True)), material, 1, Silent())


class TestEvaluation:
    @pytest.fixture
    def images(self, folder: Path, program: ProgramEntry) -> Material:
        return open_material(folder / "images", program.artifact.manifest)

    @pytest.fixture
    def unlabelled(self, images: Material) -> Material:
        """One of the images is of no class, so that nothing is said of any."""
        assert images.images is not None
        some = [LabelledImage(image.path, None if index == 20 else image.label) for index, image in enumerate(images.images.images)]
        return dataclasses.replace(images, images=ImageSet(tuple(some)))

    def test_two_processes_find_what_one_finds(self, program: ProgramEntry, images: Material, pool: ProcessPoolExecutor) -> None:
        alone, shared = bench(program, images), bench(program, images)
        found = accuracy(alone)
        assert apart(shared, 3, pool.map) == found
        assert shared.said == alone.said
        assert found[0].top5 is not None
        assert not found[1].flips
        assert len(found[2].flips) > 10
        assert sum(bool(flip.picture) for flip in found[2].flips) == 10

    def test_where_one_sample_has_no_label_none_counts_in_any_shard(self, program: ProgramEntry, unlabelled: Material) -> None:
        found = apart(bench(program, unlabelled), 7)
        assert found == accuracy(bench(program, unlabelled))
        assert {one.top1 for one in found} == {None}
        assert {flip.label for flip in found[2].flips} == {None}

    def test_ready_feeds_keep_their_numbers(self, program: ProgramEntry, folder: Path, pool: ProcessPoolExecutor) -> None:
        np.savez(folder / "scored.npz", image=np.random.RandomState(2).standard_normal((37, 3, 16, 16)).astype(np.float32))
        given = bench(program, open_material(folder / "scored.npz", program.artifact.manifest))
        found = accuracy(given)
        assert apart(given, 4, pool.map) == found
        assert int(found[2].flips[-1].image.removeprefix("feed ")) > 27

    @given(cuts=st.lists(st.integers(0, 35), max_size=4).map(sorted))
    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_cut_gives_the_tallies_of_one_pass(self, cuts: list[int], program: ProgramEntry, images: Material) -> None:
        given = bench(program, images)
        whole = score(ScoringShard.of(given, 0, 35)).tallies
        merged = [Tally() for _ in whole]
        for one in zip([0, *cuts], [*cuts, 35], strict=True):  # some are empty
            sent = msgspec.msgpack.encode(score(ScoringShard.of(given, *one)))
            for tally, more in zip(merged, msgspec.msgpack.decode(sent, type=Scored).tallies, strict=True):
                tally.merge(more)
        assert [tally.result() for tally in merged] == [tally.result() for tally in whole]

    def test_a_broken_image_in_the_last_shard_is_named(
        self, program: ProgramEntry, images: Material, pool: ProcessPoolExecutor, tmp_path: Path
    ) -> None:
        assert images.images is not None
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        some = (*images.images.images, LabelledImage(tmp_path / "broken.png", 0))
        given = bench(program, dataclasses.replace(images, images=ImageSet(some)))
        said = []
        for whole in (True, False):
            with pytest.raises(InputError, match=r"broken\.png") as caught:
                accuracy(given) if whole else apart(given, 2, pool.map)
            said.append((str(caught.value), caught.value.remedy))
        assert len(set(said)) == 1

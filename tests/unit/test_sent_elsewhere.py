"""What a shard takes to another process, and what comes back from there, is itself when it arrives."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.calibration.lazy import Lazy
from dtvit_deploy.calibration.npz import load_feeds
from dtvit_deploy.errors import DeployError, InputError, MissingError
from dtvit_deploy.formats.engine.header import NotAnEngineError
from dtvit_deploy.pipeline.calibration_set import random_set
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.runtimes.base import MissingOperatorError
from dtvit_deploy.runtimes.registry import RUNTIMES

SIGNATURE = Signature((TensorSpec("image", (1, 3, 4, 4)),), (TensorSpec("logits", (1, 3)),))


@pytest.mark.parametrize(
    "error",
    [
        InputError("asked", remedy="do"),
        MissingError("not here"),
        NotAnEngineError("cut off", size=7, cut=True, remedy="build it"),
        MissingOperatorError("iOS18", {"conv": "stem"}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_kind_its_message_and_all_that_it_says(error: DeployError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.exit_code, vars(again)) == (str(error), error.exit_code, vars(error))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_is_the_same_one_there(name: str) -> None:
    try:
        runtime = RUNTIMES[name]()
    except MissingError as error:
        pytest.skip(str(error))
    again = pickle.loads(pickle.dumps(runtime))
    assert type(again) is type(runtime)
    assert again.name == name == runtime.name


class TestReadyFeeds:
    @pytest.fixture(params=["stored", "compressed", "in Fortran's order"])
    def path(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        values = np.arange(6 * 48, dtype=np.float32).reshape(6, 3, 4, 4)
        write = np.savez_compressed if request.param == "compressed" else np.savez
        write(tmp_path / "feeds.npz", image=np.asfortranarray(values) if request.param.startswith("in") else values)
        return tmp_path / "feeds.npz"

    def test_a_slice_is_read_again_from_the_same_file_wherever_the_other_process_stands(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        sent = pickle.dumps(load_feeds(Path(path.name), SIGNATURE)[2:5])
        assert len(sent) < 2000  # no values
        monkeypatch.chdir("/")
        assert [feed["image"].flat[0] for feed in pickle.loads(sent)] == [96, 144, 192]
        again = pickle.loads(pickle.dumps(pickle.loads(sent)[1:]))
        assert [feed["image"].flat[0] for feed in again] == [144, 192]

    def test_a_file_that_was_changed_meanwhile_is_refused(self, path: Path) -> None:
        sent = pickle.dumps(load_feeds(path, SIGNATURE))
        np.savez(path, image=np.ones((6, 3, 4, 4), np.float32))
        with pytest.raises(InputError, match="changed"):
            pickle.loads(sent)

    def test_a_file_that_is_not_there_is_named(self, path: Path) -> None:
        sent = pickle.dumps(load_feeds(path, SIGNATURE))
        path.unlink()
        with pytest.raises(InputError, match=r"feeds\.npz: does not exist"):
            pickle.loads(sent)


def test_a_part_of_the_images_takes_nothing_of_the_others_along() -> None:
    images = ImageSet(tuple(LabelledImage(f"{index:04}.png", index % 3) for index in range(1000)), ("a", "b", "c"))
    part = Material(SIGNATURE, images, None, (), "images", real=True).part(990, 1000)
    assert len(pickle.dumps(part)) < 2000
    again = pickle.loads(pickle.dumps(part))
    assert again.images is not None
    assert again.images.images == images.images[990:]
    assert again.images.classes == images.classes


def test_random_samples_are_the_same_numbers_there() -> None:
    found = random_set(SIGNATURE, 5, 3)
    again = pickle.loads(pickle.dumps(found))
    assert [feed["image"].tobytes() for feed in again.feeds(1, 4)] == [feed["image"].tobytes() for feed in found.feeds(0)][1:4]


def test_what_is_made_on_demand_is_a_sequence_like_any_other() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    squares = Lazy(make, range(3, 9))
    part = squares[1:-1]
    assert not made
    assert (len(part), list(part), part[-1], squares[2]) == (4, [16, 25, 36, 49], 49, 25)
    with pytest.raises(IndexError):
        squares[6]

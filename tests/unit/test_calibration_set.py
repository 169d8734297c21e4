"""Which samples a calibration observes, in what order, and which it refuses. No picture is decoded: content is only bytes."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.class_map import read_class_map
from dtvit_deploy.calibration.images import open_images, sample
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.calibration_set import SYNTHETIC, CalibrationSet, random_set, real_set, require_held_out

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

SIGNATURE = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 3)),))
MANIFEST = Manifest(
    model="tiny",
    format="program",
    precision=Precision.FP32,
    sha256="a" * 64,
    signature=SIGNATURE,
    lineage=(Link(kind="program", sha256="a" * 64),),
)
CLASSES = "abc"
EACH = 20


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Files whose content is their own name, twenty in each of three classes."""
    for name in CLASSES:
        for index in range(EACH):
            path = tmp_path / "images" / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {index}")
    return tmp_path / "images"


def chosen(data: Path, count: int = 12, seed: int = 0, **options: Any) -> CalibrationSet:
    return real_set(data, MANIFEST, count, seed, **options)


def names(found: CalibrationSet) -> list[str]:
    return [one.name for one in found.samples]


def refused(data: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        chosen(data, **options)
    assert caught.value.remedy
    return str(caught.value)


class TestImages:
    def test_as_many_of_each_class_as_of_any_other(self, images: Path) -> None:
        assert set(Counter(name[0] for name in names(chosen(images, 12))).values()) == {4}

    def test_classes_are_balanced_by_what_a_map_says_they_are(self, images: Path, tmp_path: Path) -> None:
        (tmp_path / "map.csv").write_text("b,0\na,0\nc,1\n")
        mapped = read_class_map(tmp_path / "map.csv")
        assert Counter(name[0] == "c" for name in names(chosen(images, 12, class_map=mapped))) == {True: 6, False: 6}
        np.savez(tmp_path / "feeds.npz", image=np.ones((3, 3, 8, 8), np.float32))
        assert "a class map says what images call the classes" in refused(tmp_path / "feeds.npz", class_map=mapped)

    def test_what_was_skipped_is_noted(self, images: Path) -> None:
        (images / "a" / "one.heic").write_bytes(b"x")
        (note,) = chosen(images, 12).notes
        assert ".heic (1)" in note

    def test_the_first_ones_are_of_all_classes(self, images: Path) -> None:
        """The convergence curve is read at growing numbers of images; those of one class would tell nothing of the others."""
        assert {name[0] for name in names(chosen(images, 60))[:12]} == set(CLASSES)

    def test_the_seed_decides_which_and_in_what_order_and_the_place_does_not(self, images: Path, tmp_path: Path) -> None:
        moved = tmp_path / "elsewhere" / "images"
        shutil.copytree(images, moved)
        assert chosen(images).samples == chosen(moved).samples
        assert set(names(chosen(images))) != set(names(chosen(images, seed=1)))
        everything = [names(chosen(images, 60, seed)) for seed in (0, 1)]
        assert sorted(everything[0]) == sorted(everything[1])
        assert everything[0] != everything[1]

    def test_names_are_below_the_folder_and_tell_nothing_of_the_machine(self, images: Path) -> None:
        assert all(len(Path(name).parts) == 2 for name in names(chosen(images)))

    def test_a_list_elsewhere_names_its_images_by_their_file(self, images: Path, tmp_path: Path) -> None:
        listed = tmp_path / "lists" / "some.txt"
        listed.parent.mkdir()
        listed.write_text("".join(f"{path}\n" for path in sorted(images.rglob("*.png"))[:2]))
        assert sorted(names(chosen(listed))) == ["00.png", "01.png"]

    def test_fewer_than_were_asked_for_are_noted(self, images: Path) -> None:
        assert chosen(images, 60).notes == ()
        assert chosen(images, 61).notes == ("61 samples were asked for, and images has 60",)

    def test_classes_that_have_none_are_noted(self, images: Path) -> None:
        shutil.rmtree(images / "b")
        known = Manifest(**{name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__} | {"classes": tuple(CLASSES)})
        assert real_set(images, known, 12, 0).notes == ("1 of the 3 classes have no calibration image: b",)


class TestRefused:
    def test_images_of_one_class(self, images: Path) -> None:
        shutil.rmtree(images / "b")
        shutil.rmtree(images / "c")
        assert "all 20 images in" in (told := refused(images))
        assert "are of one class, 'a'" in told

    def test_but_not_images_of_which_nobody_said_a_class(self, images: Path) -> None:
        assert len(chosen(images / "a").samples) == 12

    def test_a_single_image(self, images: Path) -> None:
        for path in sorted((images / "a").glob("*.png"))[1:]:
            path.unlink()
        assert refused(images / "a") == "the images in a are a single one; ranges of that would fit no other"

    def test_copies_of_a_single_image(self, images: Path) -> None:
        for path in images.rglob("*.png"):
            path.write_text("the same")
        assert refused(images) == "the images in images are 12 samples of one content; ranges of that would fit no other"

    def test_no_image(self, tmp_path: Path) -> None:
        assert "holds no files" in refused(tmp_path)
        assert "does not exist" in refused(tmp_path / "nowhere")


class TestLeak:
    @pytest.fixture
    def held_out(self, images: Path, tmp_path: Path) -> Path:
        """Three images, two of which are training images under another name."""
        folder = tmp_path / "held-out"
        for name, content in (("a", "a 0"), ("b", "b 7"), ("c", "unseen")):
            (folder / name).mkdir(parents=True)
            (folder / name / "x.png").write_text(content)
        return folder

    def test_evaluation_images_are_found_by_their_content_and_named(self, images: Path, held_out: Path) -> None:
        told = refused(images, count=60, evaluation=held_out)
        assert told == "2 of the 3 evaluation images in held-out are calibration images too: a/x.png, b/x.png"

    def test_they_may_be_allowed_and_are_noted(self, images: Path, held_out: Path) -> None:
        found = chosen(images, 60, evaluation=held_out, allow_leak=True)
        assert found.leaked == 2
        assert found.notes == ("2 of the 3 evaluation images in held-out are calibration images too (--allow-leak)",)

    def test_only_those_that_are_observed_count(self, images: Path, held_out: Path) -> None:
        drawn = {(images / name).read_text() for name in names(chosen(images, 2, seed=1))}
        assert not drawn & {"a 0", "b 7"}, "another seed is needed for this test"
        assert chosen(images, 2, seed=1, evaluation=held_out).leaked == 0

    def test_where_none_is_shared_that_is_known_and_where_nobody_looked_it_is_not(self, images: Path, held_out: Path) -> None:
        shutil.rmtree(held_out / "a")
        shutil.rmtree(held_out / "b")
        assert chosen(images, evaluation=held_out).leaked == 0
        assert chosen(images).leaked is None

    def test_ready_feeds_cannot_be_compared_with_images(self, held_out: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "feeds.npz", image=np.random.RandomState(0).rand(4, 3, 8, 8).astype(np.float32))
        assert "cannot be compared" in refused(tmp_path / "feeds.npz", evaluation=held_out)

    def test_images_that_nobody_calibrates_on_are_held_against_them_too(self, images: Path, held_out: Path) -> None:
        given = open_images(images)
        with pytest.raises(InputError) as caught:
            require_held_out(given, "those of the search", held_out, MANIFEST)
        assert str(caught.value) == "2 of the 3 evaluation images in held-out are among those of the search: a/x.png, b/x.png"
        assert caught.value.remedy == "take them out of one of the two"
        require_held_out(sample(given, 2, seed=1), "those of the search", held_out, MANIFEST)  # neither of these two


class TestFeeds:
    @staticmethod
    def first(feeds: Iterator[Feeds]) -> list[float]:
        return [float(feed["image"].flat[0]) for feed in feeds]

    @pytest.fixture
    def ready(self, tmp_path: Path) -> Path:
        values = np.arange(10, dtype=np.float32).repeat(3 * 8 * 8).reshape(10, 3, 8, 8)
        np.savez(tmp_path / "feeds.npz", image=values)
        return tmp_path / "feeds.npz"

    def test_ready_feeds_come_in_the_order_of_their_names(self, ready: Path) -> None:
        found = chosen(ready, 6)
        assert names(found) == [f"feeds.npz[{value:.0f}]" for value in self.first(found.feeds(0))]
        assert len(set(names(found))) == 6

    @pytest.mark.parametrize("start", [0, 1, 5, 6])
    def test_going_on_in_the_middle_gives_the_rest(self, ready: Path, start: int) -> None:
        for found in (chosen(ready, 6), random_set(SIGNATURE, 6, 3)):
            assert self.first(found.feeds(start)) == self.first(found.feeds(0))[start:]

    def test_random_numbers_are_all_different_carry_the_stain_and_are_those_of_their_seed(self) -> None:
        found = random_set(SIGNATURE, 5, 3)
        assert found.notes == (SYNTHETIC,)
        assert len({one.sha256 for one in found.samples}) == 5
        assert found.samples == random_set(SIGNATURE, 5, 3).samples
        assert found.samples[1:] == random_set(SIGNATURE, 4, 4).samples

"""What a class map calls the classes are a classifier's labels where the checkpoint names none; where it does, that is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.calibration.class_map import ClassMap, read_class_map
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.pipeline.coreml_interface import interface_of, with_labels
from dtvit_deploy.pipeline.material import class_map_of
from dtvit_deploy.recipe.tables import Data, Export, Recipe

Written = Callable[[str, str], ClassMap]
CLASSIFIER = CoreMlOptions(classifier=True)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(name: str, text: str) -> ClassMap:
        (tmp_path / name).write_text(text)
        return read_class_map(tmp_path / name)

    return write


def manifest(*classes: str, scores: int = 3, outputs: tuple[TensorSpec, ...] = ()) -> Manifest:
    signature = Signature((TensorSpec("image", (1, 3, 8, 8)),), outputs or (TensorSpec("logits", (1, scores)),))
    link = Link(kind="seeded", sha256="0" * 64)
    return Manifest(
        model="net", format="program", precision=Precision.FP32, sha256="0" * 64, signature=signature, lineage=(link,), classes=classes
    )


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("names.txt", "cat\ndog\nowl\n", ("cat", "dog", "owl")),
        ("numbered.csv", "name,number\nowl,2\ncat,0\ndog,1\n", ("cat", "dog", "owl")),
        ("ids.txt", "n02123045 cat\nn02084071 dog, hound\nn01514668 owl\n", ("cat", "dog, hound", "owl")),
        ("twice.txt", "n02012849 crane\nn03126707 crane\nn01514668 owl\n", ("n02012849", "n03126707", "owl")),
        ("map.json", '{"cat": 0, "dog": 1, "hound": 1, "owl": 2}', ("cat", "dog", "owl")),
    ],
)
def test_the_names_of_a_map_become_the_labels(name: str, text: str, labels: tuple[str, ...], written: Written) -> None:
    named, notes = with_labels(manifest(), CLASSIFIER, written(name, text))
    assert (named.classes, notes) == (labels, ())
    assert interface_of(named, CLASSIFIER).classes == labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,number\ncat,0\nowl,2\n", "numbers 2 classes, and none of them 1: which score is which is unknown"),
        ("cat\ncat\nowl\n", "has no name for class 0 that no other class has"),
    ],
)
def test_a_map_that_leaves_a_label_open_is_refused(text: str, said: str, written: Written) -> None:
    with pytest.raises(InputError, match=said):
        with_labels(manifest(), CLASSIFIER, written("map.csv", text))


def test_a_map_of_another_number_of_classes_is_refused(written: Written) -> None:
    named, _ = with_labels(manifest(), CLASSIFIER, written("names.txt", "cat\ndog\n"))
    with pytest.raises(InputError, match="cannot be a classifier: it has 2 class names for the 3 scores of 'logits'"):
        interface_of(named, CLASSIFIER)


def test_names_of_the_checkpoint_stay_and_what_the_map_calls_otherwise_is_said(written: Written) -> None:
    own = manifest("0", "1", "2")
    named, (note,) = with_labels(own, CLASSIFIER, written("words.txt", "zero\none\ntwo\n"))
    assert named == own
    assert note == (
        "the class labels are the checkpoint's names and not those of words.txt, which says what images call them: '0' for what it calls"
        " 'zero', '1' for what it calls 'one', '2' for what it calls 'two'"
    )


def test_of_names_that_both_have_there_is_nothing_to_say(written: Written) -> None:
    own = manifest("n02123045", "n02084071", "n01514668")
    assert with_labels(own, CLASSIFIER, written("ids.txt", "n02123045 cat\nn02084071 dog\nn01514668 owl\n")) == (own, ())


def test_without_a_classifier_nothing_is_named(written: Written) -> None:
    assert with_labels(manifest(), CoreMlOptions(), written("names.txt", "cat\ndog\nowl\n")) == (manifest(), ())


def test_the_labels_are_those_of_class_scores_and_of_no_other_row() -> None:
    outputs = (TensorSpec("embedding", (1, 3)), TensorSpec("logits", (1, 3)))
    assert interface_of(manifest("cat", "dog", "owl", outputs=outputs), CLASSIFIER).scores == "logits"
    with pytest.raises(InputError, match="and no output that is one row of class scores"):
        interface_of(manifest("cat", "dog", "owl", outputs=outputs[:1]), CLASSIFIER)


def test_a_map_for_labels_needs_no_images_and_one_for_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    data = Data(class_map=tmp_path / "names.txt")
    assert class_map_of(Recipe(data=data, coreml=CLASSIFIER, export=Export(targets=(Target.COREML,)))) is not None
    with pytest.raises(InputError, match="no images were given"):
        class_map_of(Recipe(data=data))
    with pytest.raises(InputError, match="no images were given"):
        class_map_of(Recipe(data=data, coreml=CLASSIFIER))

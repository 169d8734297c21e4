"""Pixels are counted by class, each once; what nobody labelled is left out, and a class that never occurs spoils no mean."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest

from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.segmentation import Confusion, Segmented

X = 255


def counted(classes: int, *images: tuple[Any, Any]) -> Confusion:
    confusion = Confusion(classes)
    for predicted, labels in images:
        confusion.add(np.atleast_2d(predicted).astype(np.int64), np.atleast_2d(labels).astype(np.uint8))
    return confusion


def test_figures_are_what_follows_on_paper() -> None:
    result = counted(3, ([[0, 0, 1, 1, 2, 2]], [[0, 0, 0, 1, 1, X]])).result()
    assert result.pixels == 5
    assert result.accuracy == 3 / 5
    assert result.by_class == (2 / 3, 1 / 3, 0)  # class 2 is predicted once, and nowhere in the labels
    assert result.miou == (2 / 3 + 1 / 3) / 2


def test_figures_are_those_of_a_loop_over_pixels() -> None:
    stream = np.random.RandomState(0)
    predicted, labels = stream.randint(0, 9, (2, 40, 50))
    labels[stream.rand(40, 50) < 0.2] = X
    kept = labels != X
    expected = []
    for one in range(9):
        both, either = ((predicted == one) & (labels == one))[kept].sum(), ((predicted == one) | (labels == one))[kept].sum()
        expected.append(both / either)
    result = counted(9, (predicted, labels)).result()
    assert result.by_class == tuple(expected)
    assert result.miou == pytest.approx(np.mean(expected), abs=1e-15)
    assert result.accuracy == (predicted == labels)[kept].mean()


def test_a_class_that_never_occurs_has_no_figure() -> None:
    result = counted(4, ([[0, 1]], [[0, 1]])).result()
    assert result == Segmented(pixels=2, accuracy=1, miou=1, by_class=(1, 1, None, None))


def test_a_stray_pixel_of_another_class_changes_no_other_class() -> None:
    labels = np.zeros((100, 100))
    stray = labels.copy()
    stray[0, 0] = 1
    assert counted(2, (stray, labels)).result().miou == 9999 / 10000


@pytest.mark.parametrize("labels", [np.full((2, 2), X), np.zeros((2, 0))], ids=["all ignored", "no pixels"])
def test_without_a_labelled_pixel_there_is_no_figure(labels: Any) -> None:
    assert counted(2, (np.zeros(labels.shape), labels)).result() == Segmented(pixels=0, accuracy=None, miou=None, by_class=(None, None))


def test_no_class_is_wrong_and_agrees_with_nothing() -> None:
    assert counted(2, ([[-1, 0]], [[0, 0]])).result() == Segmented(pixels=2, accuracy=0.5, miou=0.5, by_class=(0.5, None))
    both = Confusion(2)
    both.add(np.asarray([[-1, 1]]), np.asarray([[-1, 1]]))
    assert both.result() == Segmented(pixels=2, accuracy=0.5, miou=1, by_class=(None, 1))


def test_two_predictions_agree_as_one_does_with_labels_whichever_is_which() -> None:
    one, other = np.random.RandomState(1).randint(0, 5, (2, 30, 30))
    there, back = counted(5, (one, other)).result(), counted(5, (other, one)).result()
    assert (there.accuracy, there.by_class) == (back.accuracy, back.by_class)
    assert counted(5, (one, one)).result().miou == 1


def test_images_are_put_together_in_any_order() -> None:
    stream = np.random.RandomState(2)
    images = [tuple(stream.randint(0, 4, (2, 7, 5))) for _ in range(3)]
    whole = counted(4, *images).result()
    for order in itertools.permutations(images):
        total = Confusion(4)
        for image in order:
            total.merge(msgspec.msgpack.decode(msgspec.msgpack.encode(counted(4, image)), type=Confusion))
        assert total.result() == whole


def test_counts_go_beyond_32_bits() -> None:
    confusion = counted(1, (np.zeros((1000, 1000)), np.zeros((1000, 1000))))
    for _ in range(13):
        confusion.merge(confusion)
    assert confusion.result().pixels == 8192 * 10**6
    assert confusion.result().miou == 1


def test_as_many_classes_as_labels_have_numbers() -> None:
    labels = np.arange(255)[None]
    assert counted(255, (labels, labels)).result().miou == 1
    with pytest.raises(ValueError, match="255 means no label"):
        Confusion(256)


WRONG: dict[str, tuple[Any, Any, str]] = {
    "another size": (np.zeros((2, 3), np.int64), np.zeros((3, 2), np.int64), r"\(2, 3\).*\(3, 2\)"),
    "scores": (np.zeros((2, 2)), np.zeros((2, 2), np.int64), "integers"),
    "a batch": (np.zeros((1, 2, 2), np.int64), np.zeros((1, 2, 2), np.int64), "integers"),
    "a label that is no class": (np.zeros((1, 3), np.int64), np.asarray([[0, 7, 254]]), "labels say 7, 254"),
    "a prediction that is no class": (np.asarray([[0, 3]]), np.zeros((1, 2), np.int64), "predictions say 3"),
    "255 as a prediction": (np.asarray([[0, 255]]), np.zeros((1, 2), np.int64), "predictions say 255"),
    "a number below": (np.asarray([[0, -2]]), np.zeros((1, 2), np.int64), "predictions say -2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_counted_is_refused_and_counts_nothing(name: str) -> None:
    predicted, labels, told = WRONG[name]
    confusion = Confusion(3)
    with pytest.raises(InputError, match=told):
        confusion.add(predicted, labels)
    assert confusion.result().pixels == 0


@pytest.mark.parametrize("counts", [bytes(8), b"\xff" * 72, bytes(73)], ids=["too few", "negative", "no whole numbers"])
def test_counts_that_contradict_themselves_are_refused(counts: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"classes": 2, "counts": counts}), type=Confusion)


def test_other_classes_have_no_common_matrix() -> None:
    with pytest.raises(ValueError, match="no common matrix"):
        Confusion(2).merge(Confusion(3))

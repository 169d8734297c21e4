"""Average precision is pycocotools's own, in small cases what follows on paper; a reference agrees with itself, whatever it finds."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from typing import Any

import msgspec
import numpy as np
import pytest

from detected import Box, filled_boxes, found, scenes, truth
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.harness.coco_eval import Precision, average_precision
from dtvit_deploy.harness.detection import Detected, DetectionTally
from dtvit_deploy.harness.detections import Detections, Truth
from dtvit_deploy.harness.run_lengths import Masks

pytest.importorskip("pycocotools", reason="average precision is counted by pycocotools")

A: Box = (10, 10, 50, 50)
B: Box = (100, 100, 160, 160)
FAR: Box = (200, 10, 230, 40)


def counted(*images: tuple[Detections, Truth]) -> Precision:
    tally = DetectionTally()
    for answer, right in images:
        tally.add(answer, right)
    boxes = tally.result().boxes
    assert boxes is not None
    return boxes


CASES = {
    "found": ([(found((A, 0.9)), truth(A))], 1.0),
    "not found": ([(found(), truth(A))], 0.0),
    # Precision 1 up to half the objects: 51 of the 101 recalls that are looked at.
    "half found": ([(found((A, 0.9)), truth(A, B))], 51 / 101),
    "something surer that is not there": ([(found((A, 0.5), (FAR, 0.9)), truth(A))], 0.5),
    "something less sure that is not there": ([(found((A, 0.9), (FAR, 0.5)), truth(A))], 1.0),
    "found twice, the second less sure": ([(found((A, 0.9), (A, 0.8)), truth(A))], 1.0),
    "in another class": ([(found((A, 0.9, 1)), truth(A))], 0.0),
    # IoU 1600 / 2560 = 0.625: right at 0.50, 0.55 and 0.60.
    "somewhere near": ([(found(((10, 10, 50, 74), 0.9)), truth(A))], 0.3),
    "an image without objects, and something found there": ([(found((A, 0.5)), truth(A)), (found((A, 0.9)), truth())], 0.5),
    "an image without objects, and nothing found": ([(found((A, 0.5)), truth(A)), (found(), truth())], 1.0),
    "in a crowd": ([(found((A, 0.5), ((105, 105, 120, 120), 0.9), ((130, 130, 150, 150), 0.8)), truth(A, B, crowd=[0, 1]))], 1.0),
    "a box that is not finite": ([(found((A, 0.5), ((np.nan, 10, 50, 50), 0.9)), truth(A))], 0.5),
    "a box without end": ([(found((A, 0.5), ((0, 0, np.inf, np.inf), 0.9)), truth(A))], 0.5),
    "a box inside out": ([(found((A, 0.5), ((50, 50, 10, 10), 0.9)), truth(A))], 0.5),
    "a score that is no number": ([(found((A, np.nan), (B, 0.9)), truth(A, B))], 1.0),
    "a score that is no number comes last": ([(found((FAR, np.nan), (A, 0.1)), truth(A))], 1.0),
    "an object without an area": ([(found(((10, 10, 10, 50), 0.9)), truth((10, 10, 10, 50)))], 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_precision_is_what_follows_on_paper(name: str) -> None:
    images, expected = CASES[name]
    assert counted(*images).ap == pytest.approx(expected, abs=1e-9)


def test_thresholds_and_sizes_are_told_apart() -> None:
    small, medium, large = (0, 0, 20, 20), (0, 0, 60, 60), (0, 0, 200, 200)
    near = (0, 0, 60, 96)  # IoU 0.625
    figures = counted((found((small, 0.9), (near, 0.8)), truth(small, medium)), (found(), truth(large)))
    assert figures.small == pytest.approx(1)
    assert figures.medium == pytest.approx(0.3)
    assert figures.large == 0
    assert figures.ap50 == pytest.approx(67 / 101)
    assert figures.ap75 == pytest.approx(34 / 101)


def test_each_class_has_its_precision_and_their_mean_is_all_of_it() -> None:
    figures = counted((found((A, 0.9, 3), (FAR, 0.9, 7)), truth(A, B, labels=[3, 7])))
    assert figures.by_class == ((3, pytest.approx(1)), (7, 0))
    assert figures.ap == pytest.approx(0.5)


def test_without_any_object_there_is_no_precision() -> None:
    assert counted((found((A, 0.9)), truth())) == Precision()
    assert counted((found((A, 0.9)), truth(A, crowd=[1]))).ap is None


def published(images: list[tuple[Truth, Detections]], kind: str) -> list[float]:
    """What COCO's own tools print, called as their users call them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def boxed(boxes: Any) -> Any:
        return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]

    def segment(masks: Masks | None, place: int) -> Any:
        assert masks is not None
        return {"size": [masks.height, masks.width], "counts": masks.runs[place]}

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (right, answer) in enumerate(images, 1):
        for place, bbox in enumerate(boxed(right.boxes)):
            said = {"area": float(right.areas[place]), "iscrowd": int(right.crowd[place]), "segmentation": segment(right.masks, place)}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(right.labels[place]), "bbox": bbox, **said}
            )
        for place, bbox in enumerate(boxed(answer.boxes)):
            one: dict[str, Any] = {"image_id": image, "category_id": int(answer.labels[place]), "score": float(answer.scores[place])}
            results.append({**one, "bbox": bbox} if kind == "bbox" else {**one, "segmentation": segment(answer.masks, place)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        size = {"height": 240, "width": 320}
        coco.dataset = {
            "images": [{"id": image, **size} for image in range(1, len(images) + 1)],
            "categories": [{"id": label, "name": str(label)} for label in range(6)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats[:6]]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_that_cocos_tools_print(kind: Any, seed: int) -> None:
    images = scenes(25, seed)
    figures = average_precision(images, kind)
    ours = [figures.ap, figures.ap50, figures.ap75, figures.small, figures.medium, figures.large]
    assert ours == pytest.approx(published(images, kind), abs=1e-12)
    assert figures.ap is not None
    assert 0.1 < figures.ap < 0.9  # or nothing would have been compared


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    counted((found((A, 0.9)), truth(A)))
    assert capsys.readouterr() == ("", "")


def tallied(images: list[tuple[Truth, Detections]]) -> DetectionTally:
    tally = DetectionTally()
    for right, answer in images:
        tally.add(answer, right, answer)
    return tally


@pytest.mark.parametrize("cuts", [(), (1,), (5, 6, 19)])
def test_stretches_that_were_sent_elsewhere_make_the_same_figures(cuts: tuple[int, ...]) -> None:
    images = scenes(20, 9)
    ends = [0, *cuts, len(images)]
    whole = DetectionTally()
    for start, stop in itertools.pairwise(ends):
        sent = msgspec.msgpack.encode(tallied(images[start:stop]))
        whole.merge(msgspec.msgpack.decode(sent, type=DetectionTally))
    assert whole.result() == tallied(images).result()


def test_a_reference_agrees_with_itself_whatever_it_finds() -> None:
    stream = np.random.RandomState(3)
    corners = stream.rand(300, 2) * 900
    boxes = np.concatenate([corners, corners + 1 + stream.rand(300, 2) * 60], 1).astype(np.float32)
    boxes[::17, 2] = boxes[::17, 0]  # without an area
    boxes[5] = np.nan
    answer = Detections(boxes, stream.rand(300).astype(np.float32), stream.randint(0, 2, 300))
    tally = DetectionTally()
    tally.add(answer, None, answer)
    tally.add(Detections.none(), None, Detections.none())
    result = tally.result()
    assert result.box_agreement is not None
    assert (result.box_agreement.ap, result.box_agreement.ap75) == (1, 1)
    assert (result.boxes, result.masks, result.mask_agreement, result.objects) == (None, None, None, None)
    assert (result.images, result.detections) == (2, 300)


def test_masks_agree_apart_from_boxes() -> None:
    whole = filled_boxes([A], 200, 240)
    half = whole & (np.arange(240) < 30)
    reference, answer = found((A, 0.9), masks=whole), found((A, 0.9), masks=half)
    tally = DetectionTally()
    tally.add(answer, truth(A, masks=whole), reference)
    result = tally.result()
    assert [each and each.ap for each in (result.boxes, result.masks)] == [1, pytest.approx(0.1)]  # IoU 0.5
    assert [each and each.ap for each in (result.box_agreement, result.mask_agreement)] == [1, pytest.approx(0.1)]


def test_an_empty_mask_agrees_as_far_as_its_box_does() -> None:
    answer = found((A, 0.9), (B, 0.8), masks=filled_boxes([A, (0, 0, 0, 0)], 200, 240))
    tally = DetectionTally()
    tally.add(answer, None, answer)
    result = tally.result()
    assert [each and each.ap for each in (result.box_agreement, result.mask_agreement)] == [1, 1]


def test_a_network_with_masks_that_finds_nothing_has_found_none() -> None:
    tally = DetectionTally()
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), Masks(200, 240))
    tally.add(nothing, truth(A, masks=filled_boxes([A], 200, 240)))
    result = tally.result()
    assert result.masks is not None
    assert result.masks.ap == 0


def test_crowds_are_no_objects_to_be_counted() -> None:
    tally = DetectionTally()
    tally.add(found(), truth(A, B, crowd=[0, 1]))
    assert tally.result().objects == 1


def test_a_result_goes_through_a_report() -> None:
    result = tallied(scenes(6, 1)).result()
    assert msgspec.json.decode(msgspec.json.encode(result), type=Detected) == result


def test_ten_thousand_boxes_in_an_image_are_counted() -> None:
    corners = np.stack(np.meshgrid(np.arange(100) * 10, np.arange(100) * 10), -1).reshape(-1, 2).astype(np.float32)
    boxes = np.concatenate([corners, corners + 8], 1)
    labels = np.arange(10_000) % 80  # as a detector has classes
    tally = DetectionTally()
    tally.add(
        Detections(boxes, np.linspace(1, 0, 10_000, dtype=np.float32), labels), truth(*map(tuple, boxes[:200]), labels=list(labels[:200]))
    )
    result = tally.result()
    assert result.boxes is not None
    assert result.boxes.ap == 1
    assert result.detections == 10_000


WRONG: dict[str, tuple[Any, ...]] = {
    "boxes without scores": (np.zeros((2, 4)), np.zeros(1), np.zeros(2, np.int64)),
    "three coordinates": (np.zeros((2, 3)), np.zeros(2), np.zeros(2, np.int64)),
    "a batch": (np.zeros((1, 2, 4)), np.zeros((1, 2)), np.zeros((1, 2), np.int64)),
    "labels that are no integers": (np.zeros((2, 4)), np.zeros(2), np.zeros(2)),
    "a class below zero": (np.zeros((1, 4)), np.zeros(1), np.asarray([-1])),
    "words": (np.asarray([["a"] * 4]), np.zeros(1), np.zeros(1, np.int64)),
    "fewer masks": (np.zeros((1, 4)), np.zeros(1), np.zeros(1, np.int64), Masks(4, 4)),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_are_no_detections_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="of an image have"):
        Detections(*WRONG[name])


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="240×200 pixels, and those they are held against 240×100"):
        DetectionTally().add(found((A, 1), masks=filled_boxes([A], 200, 240)), truth(A, masks=filled_boxes([A], 100, 240)))


def test_a_truth_for_some_images_is_refused() -> None:
    tally, other = DetectionTally(), DetectionTally()
    tally.add(found((A, 1)), truth(A))
    with pytest.raises(InputError, match="some have none"):
        tally.add(found((A, 1)))
    other.add(found((A, 1)))
    with pytest.raises(ValueError, match="no common tally"):
        tally.merge(other)
    both = msgspec.to_builtins(tally)["scenes"] + msgspec.to_builtins(other)["scenes"]
    with pytest.raises(msgspec.ValidationError, match="some have none"):
        msgspec.convert({"scenes": both}, DetectionTally)


def test_rows_that_were_cut_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"reshape|buffer size"):
        msgspec.convert({"scenes": [{"found": {"rows": bytes(49), "masks": None}, "truth": None, "reference": None}]}, DetectionTally)


def test_without_pycocotools_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycocotools", "pycocotools.cocoeval", "pycocotools.coco", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match="pycocotools") as raised:
        counted((found((A, 0.9)), truth(A)))
    assert raised.value.remedy == "pip install 'dtvit-deploy[coco]'"

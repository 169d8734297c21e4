"""COCO's annotations come from elsewhere: what is right is read as COCO's tools read it, what cannot be right is refused by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtvit_deploy.calibration import annotations as module
from dtvit_deploy.calibration.annotations import AnnotatedImages, read_annotations
from dtvit_deploy.calibration.class_map import read_class_map
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.run_lengths import compressed, runs_of

IMAGES = [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": 3, "file_name": "b.jpg", "width": 20, "height": 10}]
CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 2, "name": "cat"}]
SQUARE = [[2, 2, 2, 8, 8, 8, 8, 2]]


def box(image: Any = 7, category: Any = 2, bbox: Any = (1, 2, 10, 20), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def written(folder: Path, objects: Any, *, images: Any = None, categories: Any = None, **more: Any) -> Path:
    listed = IMAGES if images is None else images
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode())
    file = folder / "val.json"
    content = {"images": listed, "categories": CATEGORIES if categories is None else categories, "annotations": objects, **more}
    file.write_text(json.dumps(content))
    return file


def read(folder: Path, *objects: dict[str, Any], **options: Any) -> AnnotatedImages:
    return read_annotations(written(folder, list(objects)), **options)


def test_objects_are_those_of_their_image_in_pixels_from_corner_to_corner(tmp_path: Path) -> None:
    found = read(tmp_path, box(3, 90, area=17.5), box(bbox=(1, 2, 10.5, 20)), box(3, 2, iscrowd=1))
    assert [image.path.name for image in found.images.images] == ["a.jpg", "b.jpg"]
    assert found.images.classes == ("cat", "dog")  # by their ids
    first, second = found.truths
    assert first.boxes.tolist() == [[1, 2, 11.5, 22]]
    assert (first.labels.tolist(), first.areas.tolist(), first.crowd.tolist()) == ([0], [210], [False])
    assert (second.labels.tolist(), second.areas.tolist(), second.crowd.tolist()) == ([1, 0], [17.5, 200], [False, True])
    assert first.masks is None
    assert found.sizes == ((30, 40), (10, 20))
    assert found.images.notes == ()


def test_an_image_without_objects_is_an_image(tmp_path: Path) -> None:
    found = read(tmp_path, masks=True)
    assert [len(truth) for truth in found.truths] == [0, 0]
    assert found.truths[0].boxes.shape == (0, 4)


def test_classes_are_those_of_the_network_by_name(tmp_path: Path) -> None:
    found = read(tmp_path, box(category=2), box(category=90), classes=("emu", "dog", "cat"))
    assert found.truths[0].labels.tolist() == [2, 1]
    assert found.images.classes == ("emu", "dog", "cat")


def test_a_class_map_says_what_the_file_calls_them(tmp_path: Path) -> None:
    named = tmp_path / "names.csv"
    named.write_text("name,number\ndog,0\ncat,5\n")
    found = read(tmp_path, box(category=2), box(category=90), class_map=read_class_map(named))
    assert found.truths[0].labels.tolist() == [5, 0]


def test_a_category_that_nothing_is_of_need_not_be_known(tmp_path: Path) -> None:
    assert read(tmp_path, box(category=2), classes=("cat",)).truths[0].labels.tolist() == [0]


def test_ids_may_be_words(tmp_path: Path) -> None:
    images = [{"id": "x", "file_name": "a.jpg"}]
    file = written(tmp_path, [box("x", "b"), box("x", "a")], images=images, categories=[{"id": "b", "name": "B"}, {"id": "a", "name": "A"}])
    found = read_annotations(file)
    assert (found.truths[0].labels.tolist(), found.images.classes, found.sizes) == ([1, 0], ("A", "B"), (None,))


def test_masks_are_read_in_every_form_as_cocos_tools_read_them(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="polygons are drawn by pycocotools")
    mask = np.zeros((30, 40), np.bool_)
    mask[3:9, 4:30] = True
    runs = runs_of(mask)
    polygons = [[1.5, 2, 30, 4.25, 20, 28], [30, 20, 39, 20, 39, 29, 30, 29]]
    forms = [polygons, {"size": [30, 40], "counts": compressed(runs).decode()}, {"size": [30, 40], "counts": runs.tolist()}]
    found = read(tmp_path, *(box(segmentation=form) for form in forms), masks=True)
    masks = found.truths[0].masks
    assert masks is not None
    drawn, *others = list(masks)
    assert masks.runs[0] == coco.merge(coco.frPyObjects(polygons, 30, 40))["counts"]
    assert all((other == mask).all() for other in others)
    assert found.truths[0].areas.tolist() == [drawn.sum(), 156, 156]


def test_masks_are_not_looked_at_where_boxes_are_enough(tmp_path: Path) -> None:
    assert read(tmp_path, box(segmentation={"counts": "\x00"}), box(segmentation=[[1]])).truths[0].masks is None


def test_what_might_be_a_mistake_is_kept_as_coco_keeps_it_and_noted(tmp_path: Path) -> None:
    found = read(tmp_path, box(), box(), box(bbox=(1, 1, 0, 5)), box(image=99), box(image=99, bbox=(1, 1, 0, 5)))
    assert len(found.truths[0]) == 3
    assert found.images.notes == (
        "2 annotations of images that the file does not list passed over",
        "1 object annotated by a box without an area, which nobody can find",
        "1 annotation said once more: the same class and box in the same image, each counted as an object",
    )


def test_a_box_may_reach_beyond_its_image(tmp_path: Path) -> None:
    assert read(tmp_path, box(bbox=(-0.5, -3, 100, 100))).truths[0].boxes.tolist() == [[-0.5, -3, 99.5, 97]]


def test_ten_thousand_boxes_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, *(box(id=number, bbox=(number, 1, 2, 3)) for number in range(10_000)))
    assert found.truths[0].boxes[-1].tolist() == [9999, 1, 10001, 4]


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a category that is not listed": ([box(category=5)], r"categories that it does not list: 5; it lists 90, 2"),
    "a category by another type": ([box(category="2")], r"does not list: '2'"),
    "no image that is listed": ([box(image="7"), box(image="3")], r"none of the 2 annotations .* say image '7', the images are 7, 3"),
    "a negative width": ([box(bbox=(1, 1, -5, 5), id=8)], r"annotation 8 of .* has the box 1, 1, -5, 5, which is none"),
    "a negative area": ([box(), box(area=-1)], r"annotation number 2 of .* area -1, which is none"),
    "a coordinate beyond any image": ([box(bbox=(1e9, 1, 5, 5))], "which is none"),
    "NaN": ([box(bbox=(float("nan"), 1, 5, 5))], "it holds NaN, which is no number of JSON"),
    "infinity": ([box(bbox=(1, 1, float("inf"), 5))], "it holds Infinity"),
    "three numbers": ([box(bbox=(1, 1, 5))], r"length 4 - at `\$\.annotations\[0\]\.bbox`"),
    "words for numbers": ([box(bbox=("1", 1, 5, 5))], r"got `str` - at `\$\.annotations\[0\]\.bbox"),
    "no box": ([{"image_id": 7, "category_id": 2}], "missing required field `bbox`"),
    "null for a box": ([{**box(), "bbox": None}], "got `null`"),
    "a crowd of two": ([box(iscrowd=2)], "iscrowd"),
    "an image that is a list": ([box(image=[7])], "image_id"),
    "one id twice": ([box(id=4), box(id=4), box(id=5)], r"several annotations of .* have the same id: 4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_annotation_is_refused(tmp_path: Path, name: str) -> None:
    objects, told = REFUSED[name]
    with pytest.raises(InputError, match=told) as raised:
        read(tmp_path, *objects)
    assert raised.value.remedy


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "an image id twice": ({"images": [IMAGES[0], {**IMAGES[1], "id": 7}]}, "several images of .* have the same id: 7"),
    "a category id twice": ({"categories": [CATEGORIES[0], {"id": 90, "name": "x"}]}, "several categories of .* same id: 90"),
    "a category's name twice": ({"categories": [*CATEGORIES, {"id": 1, "name": "dog"}]}, "several categories of .* are called dog"),
    "no images": ({"images": []}, "images"),
    "no categories": ({"categories": []}, "it lists none"),
    "an image that is not there": ({"images": [{"id": 7, "file_name": "z.jpg"}]}, "do not exist"),
    "a name with a NUL": ({"images": [{"id": 7, "file_name": "a\0.jpg"}]}, "do not exist"),
    "a size of nothing": ({"images": [{**IMAGES[0], "width": 0}]}, "width"),
    "a size beyond any": ({"images": [{**IMAGES[0], "width": 1 << 40}]}, "width"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_contradict_themselves_are_refused(tmp_path: Path, name: str) -> None:
    tables, told = TABLES[name]
    with pytest.raises(InputError, match=told):
        read_annotations(written(tmp_path, [box()], **tables))


FILES = {
    "no JSON": b"images:",
    "nothing": b"",
    "a list": b"[1, 2]",
    "bytes that are no text": b'{"images": "\xff\xfe"}',
    "cut off": b'{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [',
    "nested without end": b'{"images": ' + b"[" * 100_000,
    "what is passed over, nested without end": b'{"info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no annotations": json.dumps({"images": IMAGES, "categories": CATEGORIES}).encode(),
    "captions": json.dumps({"images": IMAGES, "categories": [], "annotations": [{"image_id": 7, "caption": "a dog"}]}).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_annotations_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "val.json"
    file.write_bytes(FILES[name])
    with pytest.raises(InputError, match="cannot be read as annotations") as raised:
        read_annotations(file)
    assert "category_id" in str(raised.value.remedy)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_annotations(tmp_path / "val.json")
    with pytest.raises(InputError, match="is no file"):
        read_annotations(tmp_path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = written(tmp_path, [box()])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_annotations(file).truths[0]) == 1


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, [box()] * 3)
    monkeypatch.setattr(module, "MOST_OBJECTS", 2)
    with pytest.raises(InputError, match=r"a\.jpg has 3 objects"):
        read_annotations(file)
    monkeypatch.setattr(module, "MOST_ENTRIES", 7)
    with pytest.raises(InputError, match="has 8 entries; annotations have at most 7"):
        read_annotations(file)
    monkeypatch.setattr(module, "LARGEST_ANNOTATIONS", 10)
    with pytest.raises(InputError, match="at most 10"):
        read_annotations(file)


MASKS: dict[str, tuple[Any, str]] = {
    "none": (None, "neither polygons nor run lengths"),
    "no polygon": ([], "neither polygons nor run lengths"),
    "two points": ([[1, 2, 3, 4]], "neither polygons nor run lengths"),
    "half a point": ([[1, 2, 3, 4, 5, 6, 7]], "7 numbers"),
    "a polygon far away": ([[1, 2, 3, 4, 5, 1e7]], "farther than"),
    "a polygon that goes to and fro": ([[-9e4, 0, 9e4, 0] * 60], "pixels long"),
    "words": ([["a"] * 6], "neither polygons nor run lengths"),
    "runs of another size": ({"size": [10, 20], "counts": [200]}, "its mask is 20×10 pixels, and its image 40×30"),
    "sides exchanged": ({"size": [40, 30], "counts": [1200]}, "its mask is 30×40 pixels, and its image 40×30"),
    "too few pixels": ({"size": [30, 40], "counts": [5, 7]}, "12 pixels"),
    "too many pixels": ({"size": [30, 40], "counts": [0, 1200, 1]}, "1,201 pixels"),
    "a run below zero": ({"size": [30, 40], "counts": [1205, -5]}, "impossible"),
    "a run beyond 64 bits": ({"size": [30, 40], "counts": [1 << 70]}, "impossible"),
    "more than any outline": ([[1.0] * (6 << 20)], "bytes; at most"),
    "text that is cut off": ({"size": [30, 40], "counts": "PP"}, "cut off"),
    "text that is none": ({"size": [30, 40], "counts": "\u00e4\u00f6"}, "characters"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    mask, told = MASKS[name]
    with pytest.raises(InputError, match=rf"annotation 6 of a\.jpg .* has no mask that can be read: .*{told}"):
        read(tmp_path, box(id=6, segmentation=mask), masks=True)


def test_an_object_without_a_mask_is_refused_where_masks_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no `segmentation`"):
        read(tmp_path, box(), masks=True)


def test_masks_need_the_size_of_their_image(tmp_path: Path) -> None:
    file = written(tmp_path, [box(segmentation=SQUARE)], images=[{"id": 7, "file_name": "a.jpg"}])
    with pytest.raises(InputError, match="has no size"):
        read_annotations(file, masks=True)


def test_categories_that_the_network_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not know: dog; it knows cat, emu"):
        read(tmp_path, box(category=90), box(category=2), classes=("cat", "emu"))
    with pytest.raises(InputError, match="lists 2 categories, and the network has 80 classes"):
        read(tmp_path, box(), number=80)
    with pytest.raises(InputError, match="several classes of one name: cat"):
        read(tmp_path, box(), classes=("cat", "cat"))


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    found = read(tmp_path, box())
    found.require_size(0, 30, 40)
    with pytest.raises(InputError, match=r"a\.jpg is 30×40 pixels, and its annotations are of 40×30"):
        found.require_size(0, 40, 30)


def test_the_digest_is_of_what_is_said_and_not_of_where_it_lies(tmp_path: Path) -> None:
    def digest(name: str, *objects: dict[str, Any], **more: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        return read_annotations(written(folder, list(objects), **more)).digest

    one = digest("one", box(), box(3))
    assert digest("other", box(), box(3), images=IMAGES[::-1], info={"year": 2020}) == one
    assert digest("moved", box(bbox=(1, 2, 10, 21)), box(3)) != one
    assert digest("named", box(), box(3), categories=[CATEGORIES[0], {"id": 2, "name": "emu"}]) != one
    assert digest("crowd", box(iscrowd=1), box(3)) != one

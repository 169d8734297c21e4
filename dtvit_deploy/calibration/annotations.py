"""COCO's annotations: images and what is in them, from a file of others. What cannot be right is refused, and by its number."""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from dtvit_deploy.calibration.annotated_masks import runs_of_annotation
from dtvit_deploy.calibration.decode import LARGEST_PIXELS
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.calibration.listing import LARGEST_ANNOTATIONS, image_paths
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.detections import Truth
from dtvit_deploy.harness.run_lengths import Masks
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap

MOST_ENTRIES = 4_000_000
"""Images, annotations and categories of a file together; COCO's own have a million. A gigabyte of small ones would fill the memory."""
MOST_OBJECTS = 20_000
"""Of one image: matching them with detections is work for each pair."""
FARTHEST = 1e6
"""Pixels: no coordinate of an image is greater."""
_COCO = "write them as COCO does: images, categories, and annotations with image_id, category_id and bbox"

_Id = int | Annotated[str, msgspec.Meta(max_length=256)]


class _Image(msgspec.Struct):
    id: _Id
    file_name: Annotated[str, msgspec.Meta(max_length=4096)]
    width: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PIXELS)] | None = None
    height: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_PIXELS)] | None = None


class _Category(msgspec.Struct):
    id: _Id
    name: Annotated[str, msgspec.Meta(max_length=1024)]


class _Annotation(msgspec.Struct):
    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    id: _Id | None = None
    area: float | None = None
    iscrowd: bool | Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    segmentation: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct):
    images: Annotated[list[_Image], msgspec.Meta(min_length=1)]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class AnnotatedImages:
    """Images, and what annotations say of each.

    Attributes:
        images: in the order of the file, without labels; its classes are those of the network, or, where that names none, the file's in
            the order of their ids.
        truths: what is in each image, nothing in some.
        sizes: height and width that the file gives each; None where it gives none.
    """

    images: ImageSet
    truths: tuple[Truth, ...]
    sizes: tuple[tuple[int, int] | None, ...]

    def require_size(self, place: int, height: int, width: int) -> None:
        """Refuse an image that has another size, once it is read, than its boxes were drawn on.

        Raises:
            InputError: it has.
        """
        if (size := self.sizes[place]) is not None and size != (height, width):
            raise InputError(
                f"{self.images.images[place].path} is {width}×{height} pixels, and its annotations are of {size[1]}×{size[0]}",
                remedy="give the images that were annotated: as large, and turned upright by their EXIF data if they were turned then",
            )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what the images contain and of what is said of them.

        Raises:
            InputError: a file cannot be read.
        """
        found = hashlib.sha256(json.dumps(self.images.classes).encode())
        for content, truth in sorted(zip(self.images.hashes, map(_bytes, self.truths), strict=True)):
            found.update(content.encode() + hashlib.sha256(truth).digest())
        return found.hexdigest()


def read_annotations(
    file: Path, *, classes: tuple[str, ...] = (), number: int | None = None, class_map: ClassMap | None = None, masks: bool = False
) -> AnnotatedImages:
    """Images with their objects from a JSON file of COCO's form.

    A crowd is kept as one. A box without an area is an object that nobody can find, and counts as COCO counts it; a note says so. What is
    said of images that the file does not list is passed over, with a note.

    Args:
        file: the annotations. Images lie beside it, or in a folder of its name, or of the usual names.
        classes: names of the classes in the order of the network's scores; without them, categories count in the order of their ids.
        number: of the network's classes, where that is known.
        class_map: what the file calls the classes.
        masks: whether masks of the objects are read, which each must have then.

    Raises:
        InputError: the file cannot be read or is too large, an image is not there, or an annotation is none: unknown category, a box
            that is not a box, a mask of another size.
        MissingError: there are polygons among the masks, and pycocotools is not here.
    """
    read = _read(file)
    _require_once([image.id for image in read.images], "images", file)
    _require_once([one.id for one in read.annotations if one.id is not None], "annotations", file)
    index, names = _classes(read, file, classes, number, class_map)
    of_image: dict[_Id, list[_Annotation]] = {image.id: [] for image in read.images}
    strangers = [one for one in read.annotations if one.image_id not in of_image]
    for place, one in enumerate(read.annotations):
        _require_box(one, place, file)
        of_image.get(one.image_id, []).append(one)
    if strangers and len(strangers) == len(read.annotations):
        raise InputError(
            f"none of the {counted(len(strangers), 'annotation')} of {file} is of an image that it lists: they say image"
            f" {strangers[0].image_id!r}, the images are {some(repr(image.id) for image in read.images)}",
            remedy="give the images the ids that the annotations have",
        )
    truths = [_truth(image, of_image[image.id], index, file, masks) for image in read.images]
    paths = image_paths([image.file_name for image in read.images], file)
    images = ImageSet(tuple(LabelledImage(path, None) for path in paths), names, _notes(read, strangers, of_image))
    sizes = tuple(None if image.height is None or image.width is None else (image.height, image.width) for image in read.images)
    return AnnotatedImages(images, tuple(truths), sizes)


def _read(file: Path) -> _File:
    try:
        if not file.is_file():
            raise InputError(f"{file} {'is no file' if file.exists() else 'does not exist'}; annotations are a JSON file", remedy=_COCO)
        if (size := file.stat().st_size) > LARGEST_ANNOTATIONS:
            raise InputError(f"{file} has {size:,} bytes; annotations have at most {LARGEST_ANNOTATIONS:,}", remedy="split them")
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}", remedy="check its permissions") from error
    if (entries := content.count(b"{")) > MOST_ENTRIES:
        raise InputError(f"{file} has {entries:,} entries; annotations have at most {MOST_ENTRIES:,}", remedy="split them")
    try:
        start = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        return msgspec.json.decode(memoryview(content)[start:], type=_File)
    except RecursionError as error:
        raise InputError(f"{file} cannot be read as annotations: it is nested too deep", remedy=_COCO) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Python writes these words, which JSON does not have.
        words = [word for word in (b"NaN", b"Infinity") if word in content]
        why = f" (it holds {words[0].decode()}, which is no number of JSON)" if words else ""
        raise InputError(f"{file} cannot be read as annotations: {error}{why}", remedy=_COCO) from error


def _require_once(ids: Sequence[_Id], what: str, file: Path) -> None:
    if len(set(ids)) < len(ids):
        twice = [repr(one) for one, count in Counter(ids).items() if count > 1]
        raise InputError(f"several {what} of {file} have the same id: {some(twice)}", remedy="give each an id of its own")


def _classes(
    read: _File, file: Path, classes: tuple[str, ...], number: int | None, class_map: ClassMap | None
) -> tuple[dict[_Id, int], tuple[str, ...]]:
    """The network's class of each category that annotations use, and the names of the classes."""
    _require_once([category.id for category in read.categories], "categories", file)
    names = {category.id: category.name for category in read.categories}
    used = {one.category_id for one in read.annotations}
    if unknown := sorted(map(repr, used - set(names))):
        raise InputError(
            f"annotations of {file} have categories that it does not list: {some(unknown)}; it lists {some(map(repr, names)) or 'none'}",
            remedy="add them to `categories`, or leave those annotations out",
        )
    if class_map is not None:
        labels = class_map.labels((names[one] for one in used), classes, file)
        return {one: labels[names[one]] for one in used}, classes
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise InputError(f"several categories of {file} are called {some(twice)}", remedy="give each a name of its own")
    if not classes:
        if number is not None and number != len(names):
            raise InputError(
                f"{file} lists {len(names)} categories, and the network has {number} classes, none of which it names:"
                " which is which is unknown",
                remedy="list all of them in `categories`, or say which is which by --class-map (in a recipe, `data.class_map`)",
            )
        ordered = sorted(names, key=lambda one: (isinstance(one, str), one if isinstance(one, int) else 0, str(one)))
        return {one: place for place, one in enumerate(ordered)}, tuple(names[one] for one in ordered)
    if strange := sorted({names[one] for one in used} - set(classes)):
        raise InputError(
            f"{file} has categories that the network does not know: {some(strange)}; it knows {some(classes)}",
            remedy="say which is which by --class-map (in a recipe, `data.class_map`), or rename them",
        )
    if several := [names[one] for one in used if classes.count(names[one]) > 1]:
        raise InputError(f"the network has several classes of one name: {some(several)}", remedy="give the classes distinct names")
    return {one: classes.index(names[one]) for one in used}, classes


def _require_box(one: _Annotation, place: int, file: Path) -> None:
    x, y, width, height = one.bbox
    area = 0.0 if one.area is None else one.area
    if min(width, height, area) < 0 or not max(map(abs, one.bbox)) <= FARTHEST or area > FARTHEST**2:
        told = f" and area {one.area:g}" if one.area is not None else ""
        raise InputError(
            f"{_called(one, place)} of {file} has the box {x:g}, {y:g}, {width:g}, {height:g}{told}, which is none",
            remedy=f"bbox is x, y, width and height in pixels, none above {FARTHEST:,.0f} and no side negative",
        )


def _called(one: _Annotation, place: int) -> str:
    return f"annotation {one.id!r}" if one.id is not None else f"annotation number {place + 1}"


def _truth(image: _Image, objects: list[_Annotation], index: dict[_Id, int], file: Path, masked: bool) -> Truth:
    import numpy as np

    if len(objects) > MOST_OBJECTS:
        raise InputError(
            f"{image.file_name} has {len(objects):,} objects in {file}; at most {MOST_OBJECTS:,} of an image are looked at",
            remedy="take it out, or cut it into several",
        )
    masks = _masks(image, objects, file) if masked else None
    corners = np.asarray([one.bbox for one in objects], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    areas = [one.area for one in objects if one.area is not None]
    if len(areas) < len(objects):
        usual = (corners[:, 2:] - corners[:, :2]).prod(1) if masks is None else masks.areas()
        areas = [float(usual[place]) if one.area is None else one.area for place, one in enumerate(objects)]
    labels = np.asarray([index[one.category_id] for one in objects], np.int64)
    return Truth(corners, labels, np.asarray(areas, np.float64), np.asarray([bool(one.iscrowd) for one in objects], np.bool_), masks)


def _masks(image: _Image, objects: list[_Annotation], file: Path) -> Masks:
    if image.height is None or image.width is None or image.height * image.width > LARGEST_PIXELS:
        raise InputError(
            f"{image.file_name} has no size in {file} that an image can have, and masks are of the image's size",
            remedy="give each image its width and height",
        )
    size = image.height, image.width
    return Masks(*size, tuple(_mask(one, place, size, f"{image.file_name} in {file}") for place, one in enumerate(objects)))


def _mask(one: _Annotation, place: int, size: tuple[int, int], source: str) -> bytes:
    try:
        return runs_of_annotation(one.segmentation, *size)
    except ValueError as error:
        raise InputError(
            f"{_called(one, place)} of {source} has no mask that can be read: {error}",
            remedy="write it as polygons, or as run lengths of the image's size",
        ) from error


def _notes(read: _File, strangers: list[_Annotation], of_image: dict[_Id, list[_Annotation]]) -> tuple[str, ...]:
    """What is kept or left as COCO's tools do, and might be a mistake."""
    notes = []
    if strangers:
        notes.append(f"{counted(len(strangers), 'annotation')} of images that the file does not list passed over")
    known = [one for one in read.annotations if one.image_id in of_image]
    if empty := sum(not (one.bbox[2] and one.bbox[3]) for one in known):
        notes.append(f"{counted(empty, 'object')} annotated by a box without an area, which nobody can find")
    same: defaultdict[object, int] = defaultdict(int)
    for one in known:
        same[one.image_id, one.category_id, one.bbox, bytes(one.segmentation)] += 1
    if again := sum(count - 1 for count in same.values()):
        notes.append(f"{counted(again, 'annotation')} said once more: the same class and box in the same image, each counted as an object")
    return tuple(notes)


def _bytes(truth: Truth) -> bytes:
    """All that is said of an image, in a fixed form."""
    arrays = (truth.boxes, truth.labels, truth.areas, truth.crowd)
    runs = () if truth.masks is None else truth.masks.runs
    return b"".join(array.tobytes() for array in arrays) + b"\n".join(runs)

"""Average precision as pycocotools counts it, which is the arithmetic that published figures are made with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dtvit_deploy.artifacts.bounds import Count, Share
from dtvit_deploy.errors import MissingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dtvit_deploy.harness.detections import Detections, Truth

MOST = 100
"""Detections of an image and a class that count, the surest first, as on COCO's own table."""
_SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels, both ends among them."""
_DIGITS = 12
"""After the point."""


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Average precision, as shares; a hundred of them are the points that papers print. None where there is no such object.

    Attributes:
        ap: mean over ten thresholds of intersection over union, 0.50 to 0.95.
        ap50, ap75: at one of them.
        small, medium, large: ``ap`` of objects below 32² pixels, up to 96², and above.
        by_class: ``ap`` of each class that occurs, by its index.
    """

    ap: Share | None = None
    ap50: Share | None = None
    ap75: Share | None = None
    small: Share | None = None
    medium: Share | None = None
    large: Share | None = None
    by_class: tuple[tuple[Count, Share], ...] = ()


def average_precision(scenes: Sequence[tuple[Truth, Detections]], kind: Literal["bbox", "segm"], most: int = MOST) -> Precision:
    """Of what was found in some images, in their order, against what is in them: pycocotools's own figures.

    A box that is not finite, or inside out, is one without an inside: it costs precision and matches nothing (pycocotools by itself passes
    over one of negative area). A detection whose score is no number comes after all others. Equal scores rank by image, and in an image
    as they are given.

    Args:
        scenes: what is in each image, and what was found there.
        kind: by boxes, or by masks, which all of them must have.
        most: detections of an image and a class that count, the surest first.

    Raises:
        MissingError: pycocotools is not here.
    """
    import numpy as np

    # A class without an object has no precision. Their number is a factor of the time, and COCO has 80.
    classes = sorted({int(label) for truth, _ in scenes for label in truth.labels})
    if not classes:
        return Precision()
    known = set(classes)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, (truth, detections) in enumerate(scenes, 1):
        masks = truth.masks if kind == "segm" else None
        images.append({"id": number, "height": masks.height if masks else 1, "width": masks.width if masks else 1})
        # Numbers from 1: pycocotools takes a match with the object 0 for none.
        objects += [{**one, "id": len(objects) + place} for place, one in enumerate(_objects(truth, number, kind), 1)]
        found += [one for one in _found(detections, number, kind) if one["category_id"] in known]
    for place, one in enumerate(found, 1):
        one["id"] = place
    tables = {"images": images, "categories": [{"id": label, "name": str(label)} for label in classes]}
    with _quiet():
        evaluation = _evaluation(tables, objects, found, kind)
        evaluation.params.maxDets = [most]
        evaluation.params.areaRng = [list(ends) for ends in _SIZES.values()]
        evaluation.params.areaRngLbl = list(_SIZES)
        evaluation.evaluate()
        evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][..., -1]  # thresholds, recalls, classes, sizes
    everything = precision[..., 0]
    shares = [(label, _mean(everything[:, :, place])) for place, label in enumerate(classes)]
    return Precision(
        ap=_mean(everything),
        ap50=_mean(everything[0]),
        ap75=_mean(everything[5]),
        small=_mean(precision[..., 1]),
        medium=_mean(precision[..., 2]),
        large=_mean(precision[..., 3]),
        by_class=tuple((label, share) for label, share in shares if share is not None),
    )


def require_pycocotools() -> None:
    """Find out before any work whether average precision can be counted here, and polygons drawn.

    Raises:
        MissingError: pycocotools is not here, or does not import.
    """
    try:
        import pycocotools.cocoeval
        import pycocotools.mask  # noqa: F401 the part of it that is compiled
    except ImportError as error:
        raise MissingError(
            f"detections are counted, and polygons of annotations drawn, by pycocotools, which cannot be imported: {error}",
            remedy="pip install 'dtvit-deploy[coco]'",
        ) from error


def _evaluation(tables: dict[str, Any], objects: list[dict[str, Any]], found: list[dict[str, Any]], kind: str) -> Any:
    require_pycocotools()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = []
    for listed in (objects, found):  # not by loadRes, which fails where nothing was found
        side = COCO()
        side.dataset = {**tables, "annotations": listed}
        side.createIndex()
        sides.append(side)
    return COCOeval(*sides, kind)


def _objects(truth: Truth, number: int, kind: str) -> Iterator[dict[str, Any]]:
    for place, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
        one = {
            "image_id": number,
            "category_id": int(truth.labels[place]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(truth.areas[place]),
            "iscrowd": int(truth.crowd[place]),
        }
        if kind == "segm" and truth.masks is not None:
            one["segmentation"] = {"size": [truth.masks.height, truth.masks.width], "counts": truth.masks.runs[place]}
        yield one


def _found(found: Detections, number: int, kind: str) -> Iterator[dict[str, Any]]:
    import numpy as np

    inside = found.whole()
    boxes = np.where(inside[:, None], found.boxes, 0).astype(np.float64)
    most = float(np.finfo(np.float64).max)
    scores = np.nan_to_num(np.asarray(found.scores, np.float64), nan=-most, posinf=most, neginf=-most)
    areas = found.masks.areas() if kind == "segm" and found.masks is not None else (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for place, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        one = {
            "image_id": number,
            "category_id": int(found.labels[place]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": float(areas[place]),
            "iscrowd": 0,
            "score": float(scores[place]),
        }
        if kind == "segm" and found.masks is not None:
            one["segmentation"] = {"size": [found.masks.height, found.masks.width], "counts": found.masks.runs[place]}
        yield one


def _mean(precision: NDArray[Any]) -> float | None:
    """Of what is defined: pycocotools puts -1 where a class has no object, and 1 - 2e-16 where all is right, which no gate should meet."""
    defined = precision[precision > -1]
    return round(float(defined.mean()), _DIGITS) if defined.size else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what pycocotools prints, which would be in the middle of our own output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

"""Masks of objects in COCO's annotations, polygons or run lengths, to run lengths of the image's size; nothing in them is believed."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from dtvit_deploy.harness.coco_eval import require_pycocotools
from dtvit_deploy.harness.run_lengths import compressed, expanded, require_runs

LARGEST_TEXT = 16 << 20
"""Bytes of one object's mask."""
LARGEST_OUTLINE = 1e7
"""Pixels along the polygons of one object: the usual rasteriser holds several numbers for each."""
_FARTHEST = 1e5
"""Pixels from the image's corner; whole numbers are made of them."""
_POINTS = 6
"""Numbers of a triangle; four numbers would be taken for a box."""

_Polygon = Annotated[list[float], msgspec.Meta(min_length=_POINTS, max_length=1 << 20)]


class _Runs(msgspec.Struct):
    size: tuple[int, int]
    counts: list[int] | str


_DECODER = msgspec.json.Decoder(_Runs | Annotated[list[_Polygon], msgspec.Meta(min_length=1)])


def runs_of_annotation(text: msgspec.Raw, height: int, width: int) -> bytes:
    """The runs of one annotation's ``segmentation``, compressed.

    Raises:
        ValueError: it is neither polygons nor run lengths of an image of that size.
        MissingError: it is polygons, and pycocotools, which draws them as COCO's tools do, is not here.
    """
    import numpy as np

    if not (size := memoryview(text).nbytes):
        raise ValueError("it has no `segmentation`")
    if size > LARGEST_TEXT:
        raise ValueError(f"its `segmentation` has {size:,} bytes; at most {LARGEST_TEXT:,} are read")
    try:
        found = _DECODER.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"its `segmentation` is neither polygons nor run lengths: {error}") from error
    if isinstance(found, list):
        return _drawn(found, height, width)
    if found.size != (height, width):
        raise ValueError(f"its mask is {found.size[1]}×{found.size[0]} pixels, and its image {width}×{height}")
    if isinstance(found.counts, list):
        if any(not 0 <= count <= height * width for count in found.counts):
            raise ValueError("its runs have a run of impossible length")
        runs = np.asarray(found.counts, np.int64)
    else:
        runs = expanded(found.counts.encode())
    require_runs(runs, height, width)
    return compressed(runs) if isinstance(found.counts, list) else found.counts.encode()


def _drawn(polygons: list[list[float]], height: int, width: int) -> bytes:
    outline = 0.0
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError(f"a polygon of it has {len(polygon)} numbers; each point has two")
        if any(not -_FARTHEST <= number <= _FARTHEST for number in polygon):
            raise ValueError(f"a polygon of it goes farther than {_FARTHEST:,.0f} pixels from the image")
        points = list(zip(polygon[::2], polygon[1::2], strict=True))
        outline += sum(max(abs(a - c), abs(b - d)) + 1 for (a, b), (c, d) in zip(points, points[1:] + points[:1], strict=True))
    if not math.isfinite(outline) or outline > LARGEST_OUTLINE:
        raise ValueError(f"its polygons are {outline:,.0f} pixels long; at most {LARGEST_OUTLINE:,.0f} are drawn")
    require_pycocotools()
    from pycocotools import mask

    drawn = mask.merge(mask.frPyObjects(polygons, height, width))
    return bytes(drawn["counts"])

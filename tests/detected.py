"""Objects in images, found and annotated, for tests of what is counted of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dtvit_deploy.harness.detections import Detections, Truth
from dtvit_deploy.harness.run_lengths import Masks

Box = tuple[float, float, float, float]


def found(*objects: tuple[Box, float] | tuple[Box, float, int], masks: Any = None) -> Detections:
    """Boxes with their scores, and their classes where these are not all 0."""
    boxes = np.asarray([one[0] for one in objects], np.float32).reshape(-1, 4)
    labels = np.asarray([one[2] if len(one) > 2 else 0 for one in objects], np.int64)
    return Detections(boxes, np.asarray([one[1] for one in objects], np.float32), labels, None if masks is None else Masks.of(masks))


def truth(*objects: Box, labels: Sequence[int] = (), crowd: Sequence[int] = (), masks: Any = None) -> Truth:
    """Boxes, of class 0 and no crowd where nothing else is said."""
    boxes = np.asarray(objects, np.float64).reshape(-1, 4)
    count = len(boxes)
    runs = None if masks is None else Masks.of(masks)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if runs is None else runs.areas().astype(np.float64)
    return Truth(boxes, np.asarray(labels or [0] * count, np.int64), areas, np.asarray(crowd or [0] * count, np.bool_), runs)


def filled_boxes(boxes: Any, height: int, width: int) -> Any:
    """A mask for each box: the pixels in it."""
    masks = np.zeros((len(boxes), height, width), np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, np.asarray(boxes).round().astype(int), strict=True):
        mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return masks


def scenes(count: int, seed: int, *, height: int = 240, width: int = 320, classes: int = 4) -> list[tuple[Truth, Detections]]:
    """Images with objects of all sizes, some of them crowds, some found nearly, some not, and some found that are not there."""
    stream = np.random.RandomState(seed)
    every = []
    for _ in range(count):
        number = stream.randint(0, 9)
        corners = np.stack([stream.randint(0, width - 8, number), stream.randint(0, height - 8, number)], 1)
        sides = np.stack([stream.randint(1, 200, number), stream.randint(1, 200, number)], 1)
        boxes = np.concatenate([corners, np.minimum(corners + sides, [width, height])], 1).astype(np.float64)
        labels = stream.randint(0, classes, number)
        kept = stream.rand(number) < 0.8
        near = np.clip(boxes[kept] + stream.randint(-6, 7, (kept.sum(), 4)), 0, [width, height] * 2)
        near = np.sort(near.reshape(-1, 2, 2), 1).reshape(-1, 4)
        wrong = np.sort(stream.randint(0, 200, (stream.randint(0, 4), 2, 2)), 1).reshape(-1, 4).astype(np.float64)
        guesses = np.concatenate([near, wrong])
        scores = stream.randint(0, 20, len(guesses)) / 20  # with many ties
        answers = np.concatenate([labels[kept], stream.randint(0, classes + 1, len(wrong))])
        masks, guessed = filled_boxes(boxes, height, width), filled_boxes(guesses, height, width)
        every.append(
            (
                truth(*map(tuple, boxes), labels=list(labels), crowd=list(stream.rand(number) < 0.15), masks=masks),
                Detections(guesses, scores, answers, Masks.of(guessed)),
            )
        )
    return every

"""Scores and masks come back to the original image as torch's own interpolation brings them there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dtvit_deploy.harness.pasting import pasted
from dtvit_deploy.harness.placement import Placement


@pytest.mark.parametrize("size", [(512, 512), (480, 640)])
def test_classes_are_those_of_torchs_interpolation(size: tuple[int, int]) -> None:
    logits = np.random.RandomState(0).standard_normal((19, 16, 16)).astype(np.float32)
    placement = Placement(original=size, resized=(512, 512), size=(512, 512))
    scores = F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0]
    best = scores.topk(2, dim=0)
    clear = (best.values[0] - best.values[1] > 1e-5).numpy()
    assert clear.mean() > 0.99
    assert (placement.classes_out(logits) == best.indices[0].numpy())[clear].all()


def test_small_masks_are_those_of_torchs_grid_sample() -> None:
    stream = np.random.RandomState(1)
    shares = stream.rand(20, 28, 28).astype(np.float32)
    corners = stream.rand(20, 2) * 80 - 20
    boxes = np.concatenate([corners, corners + 5 + stream.rand(20, 2) * 90], 1)
    height, width = 70, 90
    rows = (np.arange(height) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    columns = (np.arange(width) + 0.5 - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    grid = np.stack(np.broadcast_arrays(columns[:, None, :], rows[:, :, None]), -1).astype(np.float32)
    expected = F.grid_sample(torch.from_numpy(shares)[:, None], torch.from_numpy(grid), align_corners=False)[:, 0].numpy()
    # Beyond its box by less than half a small pixel, the sample is not 0 yet; a mask ends with its box, on whole pixels.
    inside = np.zeros_like(expected, np.bool_)
    for place, (x1, y1, x2, y2) in enumerate(boxes):
        inside[place, max(int(np.floor(y1)), 0) : int(np.ceil(y2)), max(int(np.floor(x1)), 0) : int(np.ceil(x2))] = True
    clear = np.abs(expected - 0.5) > 1e-4
    found = np.stack(list(pasted(shares, boxes, (height, width))))
    assert found.any()
    assert (found == ((expected >= 0.5) & inside))[clear].all()

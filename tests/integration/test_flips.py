"""The images whose decision flipped are shown, those that the reference was surest of first, and no others."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.scoring import PICTURED, _pictured
from scored import score

SIGNATURE = Signature((TensorSpec("image", (1, 3, 16, 16)),), (TensorSpec("logits", (1, 2)),))


def test_the_most_decided_flips_have_their_pictures(tmp_path: Path) -> None:
    count = PICTURED + 5
    images = []
    for index in range(count):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (300, 150), (index * 10, 0, 0)).save(path)
        images.append(LabelledImage(path, 0))
    reference = np.stack([np.array([float(index), 0.0]) for index in range(1, count + 1)])  # surer and surer
    scored = score(-reference, None, reference, [str(image.path) for image in images])
    material = Material(SIGNATURE, ImageSet(tuple(images)), None, (), "images", real=True)
    flips = _pictured(scored, material).flips
    assert [bool(flip.picture) for flip in flips] == [False] * 5 + [True] * PICTURED
    shown = Image.open(io.BytesIO(base64.b64decode(flips[-1].picture)))
    assert (shown.format, shown.size) == ("PNG", (96, 48))
    assert shown.convert("RGB").getpixel((5, 5)) == ((count - 1) * 10, 0, 0)


def test_where_nothing_flipped_nothing_is_shown() -> None:
    logits = np.eye(2)
    scored = score(logits, None, logits, ["a", "b"])
    assert _pictured(scored, Material(SIGNATURE, None, None, (), "feeds", real=True)) is scored

"""The digits: 1,797 real 8×8 scans that come inside scikit-learn, split once and for all.

    python examples/digits/data.py OUT

writes OUT/train/0 … OUT/train/9 (1,297 images) and OUT/held-out/0 … (500), PNG files of 8×8 grey pixels: exactly the scans.
The up-sampling to 224×224 is the preprocessing that the checkpoint carries, so it happens in one place.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

HELD_OUT = 500
SPLIT_SEED = 0


class Split(NamedTuple):
    images: NDArray[np.uint8]
    """(N, 8, 8) grey values."""
    labels: NDArray[np.int64]
    """(N,) digits."""


def load() -> tuple[Split, Split]:
    """The training and the held-out images; the same split on every machine."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    labels = digits.target.astype(np.int64)
    return Split(images[train], labels[train]), Split(images[held_out], labels[held_out])


def write(folder: Path) -> None:
    """Write both splits as class-folder trees."""
    for name, split in zip(("train", "held-out"), load(), strict=True):
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = folder / name / str(label) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the digits as class-folder trees.")
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)

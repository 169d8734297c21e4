"""The digits: 1,797 real 8×8 scans that come inside scikit-learn, split once and for all.

    python examples/digits/data.py OUT

writes OUT/train/0 … OUT/train/9 (1,297 images) and OUT/held-out/0 … (500), PNG files of 8×8 grey pixels: exactly the scans. OUT/hard/0 …
has the 500 once more, each blurred, noisy, faint or partly covered, in equal numbers: on the scans themselves every precision is right, and
a gate on accuracy has nothing to hold on to.
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
HARD_SEED = 1
NOISE, FAINT, COVER = 85, 60, 3
"""Of the hard ones: grey values that noise adds at most, per cent of the contrast that is left, and pixels of the square that covers."""


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


def hard(split: Split) -> Split:
    """Each image made harder in one of four ways, by turns; the same on every machine.

    Random numbers are drawn as integers and everything is exact arithmetic on small ones, so that no library's rounding shows.
    """
    rng = np.random.RandomState(HARD_SEED)
    ways = (_blurred, _noisy, _faint, _covered)
    images = [ways[index % len(ways)](image.astype(np.int64), rng) for index, image in enumerate(split.images)]
    return Split(np.clip(np.stack(images), 0, 255).astype(np.uint8), split.labels)


def _blurred(image: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    """Along a direction: the image, and half of itself moved by one pixel on either side."""
    axis = rng.randint(2)
    return (2 * image + np.roll(image, 1, axis) + np.roll(image, -1, axis)) // 4


def _noisy(image: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    return image + rng.randint(-NOISE, NOISE + 1, image.shape)


def _faint(image: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    """Less contrast around a grey of its own, and some noise."""
    return image * FAINT // 100 + rng.randint(256 - 256 * FAINT // 100) + rng.randint(-NOISE // 8, NOISE // 8 + 1, image.shape)


def _covered(image: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    """A square of one grey over a part of it."""
    covered, (row, column) = image.copy(), rng.randint(8 - COVER + 1, size=2)
    covered[row : row + COVER, column : column + COVER] = rng.randint(256)
    return covered


def write(folder: Path) -> None:
    """Write the splits as class-folder trees."""
    train, held_out = load()
    for name, split in (("train", train), ("held-out", held_out), ("hard", hard(held_out))):
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = folder / name / str(label) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the digits as class-folder trees.")
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)

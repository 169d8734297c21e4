"""Attention maps as arrays: from a tapped softmax to one map over the image for each token, which tokens are strongest, and drift.

Everywhere below ``maps`` is (heads, tokens, rows, columns): what passes between a token and a part of the image, in each head.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from dtvit_deploy.artifacts.attention import AttentionMap
from dtvit_deploy.artifacts.bounds import Cosine, Count, Magnitude, Share, unit
from dtvit_deploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Maps = NDArray[np.float64]

STRONGEST = 8
"""Tokens that are looked at one by one, as in the paper's pictures."""


class MapDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far an artefact's attention is from torch's, over some images.

    Attributes:
        map: which.
        images: that both looked at.
        correlation: Pearson's, of all weights of a map with torch's, the mean over images; None where no image has one.
        least: that of the image where it is lowest.
        undefined: images without, since one of the two maps is the same everywhere, or not finite.
        max_abs: greatest |Δ| of one weight, where all of a query's weights add up to 1.
        same_key: share of the images on which both have the same key token.
        shared: share of torch's strongest tokens that are among the artefact's, the mean over images.
    """

    map: str
    images: Count
    correlation: Cosine | None
    least: Cosine | None
    undefined: Count
    max_abs: Annotated[Magnitude, unit("1")]
    same_key: Share
    shared: Share


def token_maps(weights: NDArray[Any], asked: AttentionMap) -> Maps:
    """A softmax of (1, heads, queries, keys), in any floating type, as (heads, tokens, rows, columns).

    Raises:
        InputError: it has another shape.
    """
    if weights.shape != (1, *asked.shape):
        found, wanted = ("×".join(map(str, shape)) for shape in (weights.shape, (1, *asked.shape)))
        raise InputError(
            f"the {asked.name} map has shape {found}, and that of such a network is {wanted}",
            remedy="give artefacts of a network of the registry, exported by this version",
        )
    values = weights[0].astype(np.float64)
    if asked.asker == "image":
        values = values.swapaxes(1, 2)
    (rows, columns), side = asked.grid, asked.window
    values = values[:, asked.first_token : asked.first_token + asked.tokens, asked.first_part : asked.first_part + rows * columns]
    if side:
        values = values.reshape(*values.shape[:2], rows // side, columns // side, side, side).swapaxes(3, 4)
    maps: Maps = values.reshape(*values.shape[:2], rows, columns)
    return maps


def strengths(maps: Maps, asked: AttentionMap) -> NDArray[np.float64]:
    """How strong each token is, (tokens,), over the mean of the heads.

    Where the image looks at tokens, it is the share of all the image's attention that a token gets. Where tokens look at the image, each
    gives as much as any other, and it is the greatest share that it gives to one part. What is no number counts as nothing.
    """
    mean = maps.mean(0)
    found: NDArray[np.float64] = np.nan_to_num(mean.mean((1, 2)) if asked.asker == "image" else mean.max((1, 2)), nan=0.0)
    return found


def strongest(maps: Maps, asked: AttentionMap, count: int = STRONGEST) -> tuple[int, ...]:
    """The ``count`` strongest tokens, the key token first; of equal ones the first."""
    return tuple(map(int, np.argsort(-strengths(maps, asked), kind="stable")[:count]))


def strongest_heads(maps: Maps, token: int, count: int = STRONGEST) -> tuple[int, ...]:
    """Heads in which a token's map reaches furthest: the ``count`` with its greatest weights, in the order of the heads."""
    reached = np.nan_to_num(maps[:, token].max((1, 2)), nan=0.0)
    return tuple(sorted(map(int, np.argsort(-reached, kind="stable")[:count])))


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Pearson's correlation of two arrays of one shape; None where one of them is the same everywhere, or holds what is no number."""
    a, b = (values.astype(np.float64).ravel() for values in (one, other))
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or (a == a[:1]).all() or (b == b[:1]).all():
        return None
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))  # one root, so that of equal arrays it is the product itself
    return max(-1.0, min(1.0, float(a @ b) / size)) if size else None


class DriftSums:
    """Drift of one map, image by image; no map is kept."""

    def __init__(self, asked: AttentionMap) -> None:
        self._asked = asked
        self._correlations: list[float] = []
        self._images = self._same = 0
        self._shared = self._max = 0.0

    def add(self, reference: Maps, maps: Maps) -> None:
        """Torch's maps of an image, and the artefact's."""
        self._images += 1
        found = correlation(reference, maps)
        if found is not None:
            self._correlations.append(found)
        apart = float(np.abs(maps - reference).max(initial=0.0))
        self._max = max(self._max, apart if math.isfinite(apart) else math.inf)
        theirs, ours = strongest(reference, self._asked), strongest(maps, self._asked)
        self._same += theirs[0] == ours[0]
        self._shared += len(set(theirs) & set(ours)) / len(theirs)

    def result(self) -> MapDrift:
        known = self._correlations
        return MapDrift(
            map=self._asked.name,
            images=self._images,
            correlation=math.fsum(known) / len(known) if known else None,
            least=min(known, default=None),
            undefined=self._images - len(known),
            max_abs=self._max,
            same_key=self._same / self._images if self._images else 0.0,
            shared=min(1.0, self._shared / self._images) if self._images else 0.0,
        )

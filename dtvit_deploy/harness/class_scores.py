"""Which outputs are class scores, so that their greatest entry is a decision: of an embedding, a box or an angle it is none.

The user's word counts before everything (``parity.class_scores``, ``--class-scores``). Without it an output is taken for class scores
where it is one row of at least two floating values, its name does not say that it is something else, and

* its name says so (``logits``, ``class_probs``), or it has as many entries as there are known classes: names in the checkpoint, or folders
  that the images lie in;
* or, where that is so of no output, it is the network's only floating one: a classifier whose author named nothing must not lose its gate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError

_SAYS_SO = frozenset(
    re.findall(r"\w+", "category class classes classification classifier cls logit logits prob probabilities probability probs")
)
_SAYS_OTHERWISE = frozenset(
    re.findall(
        r"\w+",
        """
        embedding embeddings embed embeds emb feature features feat feats descriptor descriptors representation latent latents hidden pooled
        pooler token tokens pre vector vectors
        box boxes bbox bboxes rect rects anchor anchors corner corners center centers centre centres xywh xyxy width height size sizes
        keypoint keypoints kpt kpts landmark landmarks joint joints point points coord coords coordinate coordinates location locations
        position positions offset offsets delta deltas
        pose poses gaze direction directions angle angles rotation quaternion translation velocity flow normal normals
        age depth disparity distance distances heatmap mask masks regression reg
        mean mu std sigma var variance logvar uncertainty
        """,
    )
)
"""A row that is called one of these may be wrong by little in its greatest entry, and decides nothing."""


def class_scores(outputs: Sequence[TensorSpec], classes: int = 0, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the outputs that are class scores, in the network's order.

    Args:
        outputs: all of the network's.
        classes: how many classes are known by name; 0 where none is.
        asked: what the user says; None says nothing, and no name that there is none.
    """
    if asked is not None:
        return tuple(spec.name for spec in outputs if spec.name in asked)
    rows = _rows(outputs)
    told = tuple(spec.name for spec in rows if called_so(spec.name) or spec.shape[-1] == classes)
    alone = sum(spec.dtype.startswith("float") for spec in outputs) == 1  # beside the index of its best, say
    return told or tuple(spec.name for spec in rows if alone)


def scored_output(outputs: Sequence[TensorSpec], classes: int = 0, asked: Sequence[str] | None = None) -> TensorSpec | None:
    """The output that accuracy is taken of where somebody wants it: the first of class scores, else one that could be.

    Args:
        outputs, classes, asked: as of `class_scores`.
    """
    found = class_scores(outputs, classes, asked)
    able = [spec for spec in outputs if spec.name in found] or (_rows(outputs) if asked is None else [])
    return next(iter(able), None)


def require_rows(outputs: Sequence[TensorSpec], asked: Sequence[str] | None) -> None:
    """Refuse what a user calls class scores and what cannot be.

    Raises:
        InputError: it is no output, or not one row of at least two floating values.
    """
    rows = [spec.name for spec in outputs if is_row(spec)]
    if wrong := [name for name in asked or () if name not in rows]:
        raise InputError(
            f"{', '.join(map(repr, wrong))} cannot be class scores, which are one row of at least two floating values; the outputs are"
            f" {', '.join(map(str, outputs))}",
            remedy=f"give {' or '.join(rows)}, or `none`" if rows else "give `none` (in a recipe: parity.class_scores = [])",
        )


def called_so(name: str) -> bool:
    """Whether an output's name alone says that it is class scores."""
    return bool(_words(name) & _SAYS_SO) and not _words(name) & _SAYS_OTHERWISE


def is_row(spec: TensorSpec) -> bool:
    """Whether an output is one row of at least two floating values: 1×K, whatever the number of axes."""
    return spec.dtype.startswith("float") and bool(spec.shape) and spec.shape[-1] >= 2 and math.prod(spec.shape) == spec.shape[-1]


def _rows(outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return [spec for spec in outputs if is_row(spec) and not _words(spec.name) & _SAYS_OTHERWISE]


def _words(name: str) -> frozenset[str]:
    """``predBoxes_0`` → pred, boxes."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name))

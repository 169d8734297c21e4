"""How often several artefacts answer rightly, and as the reference does: over all the material, a few samples in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, overload

import msgspec
import numpy as np

from dtvit_deploy.calibration.decode import thumbnail
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy, Tally, printable
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.measure import Bench, check_feeds
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Signature, TensorSpec

TURN = 16
"""Samples that one session answers before the next has its turn: the threads of two runtimes wait actively, at each other's cost."""
PICTURED = 10
"""Flips of one artefact that are shown."""


def accuracy(bench: Bench) -> list[Accuracy]:
    """Top-1, top-5 and agreement of the reference and of every artefact, over all the material, a few samples in memory at a time.

    Raises:
        InputError: no output is a row of scores.
    """
    signature = bench.material.signature
    scores = scores_of(signature)
    if scores is None:
        raise InputError(
            f"accuracy needs an output of shape 1×classes; the outputs are {', '.join(map(str, signature.outputs))}",
            remedy="use `verify` to compare other outputs",
        )
    _require_known_classes(bench, scores.shape[1])
    names, labels = _names(bench.material), _labels(bench.material)
    tallies = [Tally() for _ in bench.everything]
    with ExitStack() as stack:
        sessions = [stack.enter_context(bench.open(pairing)) for pairing in bench.everything]
        feeds = iter(bench.progress.track(bench.material.feeds(), "evaluating", len(bench.material)))
        done = 0
        while some := list(islice(feeds, TURN)):
            turn = slice(done, done + len(some))
            reference = None
            for tally, session in zip(tallies, sessions, strict=True):
                rows = np.stack([check_feeds(session, feed)[scores.name][0] for feed in some])
                tally.add(rows, None if labels is None else labels[turn], reference, names[turn])
                reference = rows if reference is None else reference
            done = turn.stop
    return [_pictured(tally.result(), bench.material) for tally in tallies]


def _pictured(scored: Accuracy, material: Material) -> Accuracy:
    """The flips that a report lists, those that the reference was surest of, with their pictures."""
    if material.images is None or not scored.flips:
        return scored
    shown = {flip.image for flip in sorted(scored.flips, key=lambda flip: -flip.margin)[:PICTURED]}
    paths = {name: image.path for image in material.images.images if (name := printable(str(image.path))) in shown}
    flips = tuple(
        msgspec.structs.replace(flip, picture=thumbnail(paths[flip.image])) if flip.image in shown else flip for flip in scored.flips
    )
    return msgspec.structs.replace(scored, flips=flips)


def scores_of(signature: Signature) -> TensorSpec | None:
    """The output that accuracy is taken of, 1×classes; None where no output is a row of scores."""
    return next((spec for spec in signature.outputs if len(spec.shape) == 2 and spec.shape[0] == 1 and spec.shape[1] > 1), None)


def _require_known_classes(bench: Bench, scores: int) -> None:
    """Folder names stand for the logits in their order only where there is one for each; a guess would be a wrong figure."""
    images = bench.material.images
    if images is not None and images.classes and not bench.program.artifact.manifest.classes and len(images.classes) != scores:
        held = counted(len(images.classes), "class folder")
        raise InputError(
            f"the images lie in {held} and the network has {counted(scores, 'score')}, so which is which is unknown",
            remedy="say which is which by --class-map (in a recipe, `data.class_map`), name the classes in the checkpoint's metadata (key"
            " `classes`), or give images of every class",
        )


class _Names(Sequence[str]):
    """Names of the samples, made when they are asked for."""

    def __init__(self, material: Material, places: range) -> None:
        self._material, self._places = material, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> _Names: ...
    def __getitem__(self, index: int | slice) -> str | _Names:
        if isinstance(index, slice):
            return _Names(self._material, self._places[index])
        place = self._places[index]
        return f"feed {place}" if self._material.images is None else str(self._material.images.images[place].path)


def _names(material: Material) -> _Names:
    return _Names(material, range(len(material)))


def _labels(material: Material) -> np.ndarray | None:
    """(N,) labels; None where not every sample has one."""
    if material.images is None or any(image.label is None for image in material.images.images):
        return None
    return np.fromiter((-1 if image.label is None else image.label for image in material.images.images), np.int64, len(material))

"""How often several artefacts answer rightly, and as the reference does: over all the material, a few samples in memory at a time."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from dtvit_deploy.calibration.decode import thumbnail
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.accuracy import Accuracy, Tally, printable
from dtvit_deploy.pipeline.material import Material
from dtvit_deploy.pipeline.measure import Bench, check_feeds
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plural import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtvit_deploy.artifacts.signature import TensorSpec

TURN = 16
"""Samples that one session answers before the next has its turn: the threads of two runtimes wait actively, at each other's cost."""
PICTURED = 10
"""Flips of one artefact that are shown."""


@dataclass(frozen=True)
class ScoringShard:
    """Some consecutive samples of an evaluation, and all that another process needs to score them: it can be pickled.

    Attributes:
        bench: the reference and the artefacts, with those samples alone as material.
        start: number of the first of them among all.
        labelled: whether every sample of the evaluation has a label; where one has none, none counts.
    """

    bench: Bench
    start: int
    labelled: bool

    @classmethod
    def of(cls, bench: Bench, start: int, stop: int) -> ScoringShard:
        """Samples [start, stop) of a bench's material, to be scored in silence."""
        part = dataclasses.replace(bench, material=bench.material.part(start, stop), progress=Silent())
        return cls(part, start, _labelled(bench.material))


class Scored(msgspec.Struct, frozen=True):
    """What came of a shard, for the reference first and then for the artefacts.

    Attributes:
        tallies: one for each.
        conditions: what each session says of itself.
    """

    tallies: tuple[Tally, ...]
    conditions: tuple[dict[str, str], ...]


def accuracy(bench: Bench, scored_apart: Iterable[Scored] | None = None) -> list[Accuracy]:
    """Top-1, top-5 and agreement of the reference and of every artefact, over all the material, a few samples in memory at a time.

    The figures are the same where stretches were ``scored_apart``, which make up all the material in order.

    Raises:
        InputError: no output is a row of scores, or a sample cannot be read.
        ValueError: shards were answered by networks with different numbers of classes.
    """
    require_scores(bench)
    tallies = [Tally() for _ in bench.everything]
    for one in [score(ScoringShard(bench, 0, _labelled(bench.material)))] if scored_apart is None else scored_apart:
        for tally, more in zip(tallies, one.tallies, strict=True):
            tally.merge(more)
        bench.said.update(zip((pairing.key for pairing in bench.everything), one.conditions, strict=True))
    return [_pictured(tally.result(), bench.material) for tally in tallies]


def require_scores(bench: Bench) -> None:
    """Refuse material or a network of which no accuracy can be taken, before anything is fed.

    Raises:
        InputError: no output is a row of scores, or which folder is which class is unknown.
    """
    _require_known_classes(bench, _scores(bench).shape[1])


def score(shard: ScoringShard) -> Scored:
    """Count the answers of the reference and of every artefact to the samples of a shard.

    Raises:
        InputError: no output is a row of scores, a sample cannot be read, or a label is none of the classes.
        MissingError: a runtime cannot be used here.
    """
    bench, material = shard.bench, shard.bench.material
    scores = _scores(bench).name
    labels = _labels(material) if shard.labelled else None
    tallies = tuple(Tally() for _ in bench.everything)
    with ExitStack() as stack:
        sessions = [stack.enter_context(bench.open(pairing)) for pairing in bench.everything]
        feeds = iter(bench.progress.track(material.feeds(), "evaluating", len(material)))
        done = 0
        while some := list(islice(feeds, TURN)):
            turn = slice(done, done + len(some))
            names, reference = _names(shard, turn), None
            for tally, session in zip(tallies, sessions, strict=True):
                rows = np.stack([check_feeds(session, feed)[scores][0] for feed in some])
                tally.add(rows, None if labels is None else labels[turn], reference, names)
                reference = rows if reference is None else reference
            done = turn.stop
    return Scored(tallies, tuple(bench.said[pairing.key] for pairing in bench.everything))


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


def _scores(bench: Bench) -> TensorSpec:
    if bench.scored is None:
        raise InputError(
            f"accuracy needs an output of class scores; the outputs are {', '.join(map(str, bench.material.signature.outputs))}",
            remedy="say which is by --class-scores NAME (in a recipe: parity.class_scores), or use `verify` to compare other outputs",
        )
    return bench.scored


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


def _names(shard: ScoringShard, turn: slice) -> list[str]:
    """Names of some of a shard's samples: those that they have in the whole."""
    images = shard.bench.material.images
    if images is not None:
        return [str(image.path) for image in images.images[turn]]
    return [f"feed {shard.start + index}" for index in range(turn.start, turn.stop)]


def _labelled(material: Material) -> bool:
    return material.images is not None and material.images.labelled


def _labels(material: Material) -> np.ndarray:
    """(N,) labels of images that all have one."""
    assert material.images is not None
    return np.array([image.label for image in material.images.images], np.int64)

"""Where artefacts look: attention maps of images, tapped from each artefact in a runtime and from torch, and how far they are apart."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dtvit_deploy.artifacts.artifact import NAMES, Artifact, load_artifact, manifest_path
from dtvit_deploy.artifacts.attention import AttentionMap, tensor_of
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.given import artifacts_in, named_artifacts
from dtvit_deploy.calibration.feeds import image_feeds
from dtvit_deploy.calibration.images import ImageSet, LabelledImage
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.attention import correlation, strongest
from dtvit_deploy.models.registry import attention_maps
from dtvit_deploy.pipeline.looking import Looker
from dtvit_deploy.pipeline.material import Material, assumed, class_map_of, open_material, preprocessing_of
from dtvit_deploy.pipeline.origin import reference_of
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.trust import with_trust
from dtvit_deploy.recipe.tables import Recipe
from dtvit_deploy.report.attention import Attention, AttentionReport, Picture, Sight
from dtvit_deploy.runtimes.pairing import pairings

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.harness.attention import Maps
    from dtvit_deploy.runtimes.base import Session

    Found = dict[str, Maps]
    """One looker's maps of one image, by name."""

MOST_DRAWN = 12
"""Images that are drawn: each is in a page dozens of times."""


class Asked(NamedTuple):
    """Paths of a command, by what they are."""

    images: tuple[Path, ...]
    artefacts: tuple[Path, ...]


def told_apart(paths: Sequence[Path]) -> Asked:
    """Images and artefacts among paths: an artefact has a manifest, or a name like one, or is an export's folder.

    Raises:
        InputError: there are none of one kind, more images than are drawn, or a folder without artefacts.
    """
    images: list[Path] = []
    artefacts: list[Path] = []
    for path in paths:
        named = path.suffix == ".json" or path.suffix[1:] in NAMES or (bool(path.name) and manifest_path(path).is_file())
        if path.is_dir() and not named and not artifacts_in(path):
            raise InputError(
                f"no artefact is in the folder {path}",
                remedy="give images that are to be drawn as files, and a folder of images, of which only drift is taken, by --data",
            )
        (artefacts if named or path.is_dir() else images).append(path)
    if not images:
        raise InputError("no image was given", remedy="give image files to draw attention over, before or after the artefacts")
    if not artefacts:
        raise InputError(f"no artefact was given beside {images[0]}", remedy="give what `dtvit-deploy export` wrote")
    if len(images) > MOST_DRAWN:
        raise InputError(
            f"{len(images)} images were given; at most {MOST_DRAWN} are drawn", remedy="give fewer, and the folder of all of them by --data"
        )
    return Asked(tuple(images), tuple(artefacts))


class _Tally:
    """Drift of everybody, and what torch's maps of one image have in common with those of the next."""

    def __init__(self, lookers: Sequence[Looker], kinds: Sequence[AttentionMap]) -> None:
        self._lookers = lookers
        self._alike: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        self._last: Found = {}

    def add(self, found: Sequence[Found]) -> None:
        """What each looker, torch first, found in one image."""
        reference = found[0]
        for one, maps in zip(self._lookers, found, strict=True):
            for name, sums in one.drift.items():
                sums.add(reference[name], maps[name])
        for name, before in self._last.items():
            alike = correlation(before, reference[name])
            self._alike[name] += [] if alike is None else [alike]
        self._last = reference

    @property
    def between_images(self) -> dict[str, float | None]:
        return {name: sum(found) / len(found) if found else None for name, found in self._alike.items()}


def look(asked: Asked, recipe: Recipe, cache: Cache, progress: Progress, *, trust: bool = False) -> Attention:
    """Attention of artefacts of one export on images, and its drift from torch's: on ``recipe.data.evaluation``, or else on those images.

    Raises:
        InputError: an image or an artefact cannot be used, the network has no maps that are known, the artefacts are not of one network, or
            none of them gives a map.
        MissingError: a runtime is not usable here.
    """
    loaded = [with_trust(load_artifact(path), cache, trust=trust) for path in named_artifacts(asked.artefacts)]
    manifest = loaded[0].manifest
    kinds = _maps_of(loaded)
    preprocessing = preprocessing_of(manifest)
    drawn = ImageSet(tuple(LabelledImage(path, None) for path in asked.images))
    feeds = list(image_feeds(drawn, preprocessing, manifest.signature))
    material = _material(recipe, manifest)
    program = reference_of(loaded, cache, recipe.model)
    maps = {tensor_of(kind, program.nodes): kind for kind in kinds}
    torch = Looker(pairings((program.artifact,))[0], maps, program.nodes, reference=True)
    lookers = [torch, *(Looker(pairing, maps, program.nodes) for pairing in pairings(loaded, recipe.run.runtimes))]
    looking = [one for one in lookers if one.maps]
    if looking == [torch]:
        reasons = dict.fromkeys(why for one in lookers for why in one.lacking.values())
        raise InputError(
            f"no artefact gives an attention map: {'; '.join(reasons)}",
            remedy="give another artefact of the same export: those of ONNX Runtime and OpenVINO show their inner tensors",
        )
    tally = _Tally(looking, kinds)
    with _sessions(looking, recipe.run.threads) as sessions:

        def seen(feed: Feeds) -> list[Found]:
            return [one.look(session, feed) for one, session in zip(looking, sessions, strict=True)]

        every = [seen(feed) for feed in progress.track(feeds, "attention of the images", len(feeds))]
        if material is None:
            for found in every:
                tally.add(found)
        else:
            for feed in progress.track(material.feeds(), "attention drift", len(material)):
                tally.add(seen(feed))
    pictures = tuple(
        Picture(
            str(image.path),
            preprocessing.pixels(next(iter(feed.values()))[0]),
            tuple(found[looking.index(one)] if one in looking else {} for one in lookers),
        )
        for image, feed, found in zip(drawn.images, feeds, every, strict=True)
    )
    shown = {"source": "those that are drawn", "samples": str(len(feeds))}
    notes = [note for link in program.artifact.manifest.lineage for note in link.notes]
    report = AttentionReport(
        model=manifest.model,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        maps={kind.name: f"{kind.what} ({node}, the softmax of {kind.module})" for node, kind in maps.items()},
        data=shown if material is None else material.facts(),
        between_images=tally.between_images,
        subjects=tuple(one.subject() for one in lookers),
        sights=tuple(_sights(pictures, kinds)),
        notes=tuple(dict.fromkeys([*notes, *assumed(manifest), *(() if material is None else material.notes)])),
    )
    return Attention(report, kinds, pictures)


def _maps_of(artifacts: Sequence[Artifact]) -> tuple[AttentionMap, ...]:
    """The maps of the network that the artefacts say they are of."""
    manifest = artifacts[0].manifest
    shapes = [spec.shape for spec in manifest.signature.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        attention_maps(manifest.model, (0, 0))  # of another's network nothing is known; say so first
        raise InputError(f"{artifacts[0].name} does not take an image, as {manifest.model} does", remedy="export it again")
    return attention_maps(manifest.model, (shapes[0][2], shapes[0][3]))


def _material(recipe: Recipe, manifest: Manifest) -> Material | None:
    """What drift is taken on besides the images that are drawn."""
    if recipe.data.evaluation is None:
        return None
    return open_material(recipe.data.evaluation, manifest, class_map_of(recipe)).subset(recipe.data.samples)


@contextlib.contextmanager
def _sessions(lookers: Sequence[Looker], threads: int) -> Iterator[list[Session]]:
    """One of each, side by side: an image is read once, and no map is kept that is not drawn."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(one.open(threads)) for one in lookers]


def _sights(pictures: Sequence[Picture], kinds: Sequence[AttentionMap]) -> Iterator[Sight]:
    for picture in pictures:
        reference = picture.maps[0]
        for kind in kinds:
            for number, maps in enumerate(picture.maps):
                if kind.name in maps:
                    yield Sight(
                        image=picture.name,
                        map=kind.name,
                        subject=number,
                        strongest=strongest(maps[kind.name], kind),
                        correlation=correlation(reference[kind.name], maps[kind.name]) if number else None,
                    )

"""What sessions are fed: images of a folder, ready feeds of an ``.npz``, or, where there is nothing real, noise that says so."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.calibration.feeds import adversarial_feeds, image_feeds, random_feeds
from dtvit_deploy.calibration.images import ImageSet, open_images, sample
from dtvit_deploy.calibration.npz import load_feeds
from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError
from dtvit_deploy.harness.class_scores import class_scores
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.stages import GuardFeeds
from dtvit_deploy.recipe.tables import PreprocessingChanges, Recipe

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.artifacts.signature import Feeds, Signature
    from dtvit_deploy.calibration.class_map import ClassMap

NOISE_SAMPLES = 8
GUARD_SAMPLES = 4
"""Samples that a converter checks itself with, besides the adversarial feeds; every later comparison uses many more."""
NOT_REAL = "fed with seeded noise, not with real images: these figures say nothing about real input (give --data)"


@dataclass(frozen=True)
class Material:
    """Real input, or its honest absence.

    Attributes:
        signature: of the network that is fed.
        images: the images, labelled or not; None for ready feeds or noise.
        preprocessing: how images become feeds.
        ready: feeds of an ``.npz``, or noise.
        source: what it is, for reports.
        real: whether a user gave it.
        assumed: what nobody said of the preprocessing, and was assumed.
    """

    signature: Signature
    images: ImageSet | None
    preprocessing: Preprocessing | None
    ready: Sequence[Feeds]
    source: str
    real: bool
    assumed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images.images) if self.images else len(self.ready)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the images."""
        return (*self.assumed, *self.images.notes) if self.images is not None else ()

    def feeds(self) -> Iterator[Feeds]:
        """One feed for each sample, made when it is asked for."""
        if self.images is None or self.preprocessing is None:
            yield from self.ready
        else:
            yield from image_feeds(self.images, self.preprocessing, self.signature)

    def part(self, start: int, stop: int) -> Material:
        """Samples [start, stop) alone, in their order."""
        if self.images is None:
            return dataclasses.replace(self, ready=self.ready[start:stop])
        return dataclasses.replace(self, images=dataclasses.replace(self.images, images=self.images.images[start:stop]))

    def subset(self, count: int, seed: int = 0) -> Material:
        """At most ``count`` samples, balanced over the classes where there are any."""
        if self.images is None:
            return dataclasses.replace(self, ready=self.ready[:count])
        return dataclasses.replace(self, images=sample(self.images, count, seed=seed))

    def adversarial(self) -> dict[str, Feeds]:
        """Feeds by name that the real ones do not cover. Integers are the user's own where there are any: nobody can guess an index."""
        known = {name: array for name, array in self.ready[0].items() if array.dtype.kind in "iu"} if self.real and self.ready else {}
        return {kind: {**feed, **known} for kind, feed in adversarial_feeds(self.signature).items()}

    def guard(self, count: int = GUARD_SAMPLES) -> GuardFeeds:
        """Feeds for a converter to check itself with: a few of these, and the adversarial ones."""
        few = self.subset(count)
        feeds = [*few.feeds(), *self.adversarial().values()]
        return GuardFeeds(f"{len(few)} of {self.source}, and adversarial feeds", digest_of(feeds), feeds, len(few))

    def known_classes(self, manifest: Manifest) -> int:
        """How many classes are known by name, to the checkpoint or by the folders of the images; 0 where none is."""
        return len(manifest.classes) or len(self.images.classes if self.images is not None else ())

    def class_scores(self, manifest: Manifest, asked: Sequence[str] | None) -> tuple[str, ...]:
        """Names of the network's outputs that are class scores, as the user says, or else as names and numbers do."""
        return class_scores(manifest.signature.outputs, self.known_classes(manifest), asked)

    def facts(self) -> dict[str, str]:
        """What a report says about it."""
        facts = {"source": self.source, "samples": str(len(self))}
        if self.images is not None:
            facts["digest"] = self.images.digest
        if self.preprocessing is not None:
            facts["preprocessing"] = msgspec.json.encode(self.preprocessing, order="sorted").decode()
        return facts


def open_material(data: Path | None, manifest: Manifest, class_map: ClassMap | None = None) -> Material:
    """What the user gave with ``--data``: a folder or a list of images, or an ``.npz`` of feeds; noise when nothing was given.

    Args:
        data: the folder or file.
        manifest: of the network that is fed.
        class_map: what images call the classes; feeds have none, and other data of the same command may be images.

    Raises:
        InputError: it cannot be read, or does not fit the network's inputs.
    """
    signature = manifest.signature
    if data is None:
        return Material(signature, None, None, tuple(random_feeds(signature, NOISE_SAMPLES, 0)), "seeded noise", real=False)
    if not are_images(data):
        feeds = load_feeds(data, signature)
        return Material(signature, None, None, feeds, f"the feeds in {data.name}", real=True)
    preprocessing = preprocessing_of(manifest)
    images = open_images(data, classes=manifest.classes, class_map=class_map)
    return Material(signature, images, preprocessing, (), f"the images in {data.name}", real=True, assumed=assumed(manifest))


def class_map_of(recipe: Recipe) -> ClassMap | None:
    """What the request's images call the classes, where it says so.

    Raises:
        InputError: the map cannot be read, or there are no images that it could be of.
    """
    from dtvit_deploy.calibration.class_map import read_class_map

    found = None if recipe.data.class_map is None else read_class_map(recipe.data.class_map)
    if not (recipe.coreml.classifier and Target.COREML in recipe.export.targets):  # whose labels may be the map's
        require_images(found, recipe.data.evaluation, recipe.data.calibration, recipe.data.checks)
    return found


def with_preprocessing(program: ProgramEntry, changes: PreprocessingChanges) -> ProgramEntry:
    """The user's changes go into the manifest, which every artefact inherits: it is fed as its manifest says from then on."""
    if changes == PreprocessingChanges():
        return program
    manifest = program.artifact.manifest
    changed = msgspec.to_builtins(changes.of(preprocessing_of(manifest)))
    for name in _unsaid(manifest):  # what is assumed stays unsaid, so that it is still told: the default is the same
        if getattr(changes, name) is None:
            del changed[name]
    artifact = msgspec.structs.replace(program.artifact, manifest=msgspec.structs.replace(manifest, preprocessing=changed))
    return dataclasses.replace(program, artifact=artifact)


def are_images(data: Path) -> bool:
    """Whether data are a folder or a list of images, and not ready feeds, which say nothing of images or classes."""
    return data.suffix != ".npz"


def require_images(class_map: ClassMap | None, *given: Path | None) -> None:
    """Refuse a class map that nothing of what was given could need.

    Raises:
        InputError: there are no images.
    """
    if class_map is not None and not any(are_images(data) for data in given if data is not None):
        raise InputError("a class map says what images call the classes, and no images were given", remedy="give images, or leave it out")


def preprocessing_of(manifest: Manifest) -> Preprocessing:
    """The checkpoint's own preprocessing, else ImageNet's for the network's input size."""
    if manifest.preprocessing:
        try:
            return msgspec.convert(manifest.preprocessing, Preprocessing)
        except msgspec.ValidationError as error:
            raise InputError(
                f"the preprocessing of {manifest.model} cannot be understood: {error}", remedy="correct it in the checkpoint's metadata"
            ) from error
    inputs = manifest.signature.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[:2] != (1, 3):
        raise InputError(
            f"{manifest.model} takes {', '.join(map(str, inputs))}, which images cannot be turned into",
            remedy="give --data an .npz file with one array for each input",
        )
    return Preprocessing.for_input(*inputs[0].shape[2:])


def assumed(manifest: Manifest) -> tuple[str, ...]:
    """What is to be said where nothing says by which mean and deviation images are normalised, so that ImageNet's are taken."""
    unsaid = _unsaid(manifest)
    if not unsaid:
        return ()
    source = "nothing in the checkpoint says so" if manifest.parent("checkpoint") is not None else "there is no checkpoint that says so"
    told = f"preprocessing: ImageNet's {' and '.join(unsaid)} {'were' if unsaid[1:] else 'was'} assumed; {source}"
    keys = " and ".join(f"preprocessing.{name}" for name in unsaid)
    return (f"{told} (where others are right, export with {' and '.join(f'--{name}' for name in unsaid)}; in a recipe: {keys})",)


def _unsaid(manifest: Manifest) -> tuple[str, ...]:
    return tuple(name for name in ("mean", "std") if name not in manifest.preprocessing)


def digest_of(feeds: list[Feeds]) -> str:
    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in feed.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

"""What a calibration observes: images chosen evenly from all classes, in a drawn order, known by their content."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.calibration.feeds import random_feeds
from dtvit_deploy.calibration.images import ImageSet, leak, open_images, sample
from dtvit_deploy.calibration.lazy import Lazy
from dtvit_deploy.calibration.ranges import Sample
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.material import Material, digest_of, open_material, require_images
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.artifact import Manifest
    from dtvit_deploy.artifacts.signature import Feeds, Signature
    from dtvit_deploy.calibration.class_map import ClassMap
    from dtvit_deploy.calibration.preprocessing import Preprocessing

SYNTHETIC = "CALIBRATED ON RANDOM NUMBERS, not on images: the ranges, and whatever is made from them, are good for trying things out only"


@dataclass(frozen=True)
class CalibrationSet:
    """Samples in the order in which they are observed; it can be sent to another process.

    Attributes:
        samples: names and content hashes.
        material: the samples themselves, in that order.
        images: the same images in the order of the data; None where they are no images.
        leaked: how many are evaluation images too; None where that was not checked.
        notes: what the table must say of them.
    """

    samples: tuple[Sample, ...]
    material: Material
    images: ImageSet | None = None
    leaked: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What they are."""
        return self.material.source

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become feeds; None where they are no images."""
        return self.material.preprocessing

    def feeds(self, start: int, stop: int | None = None) -> Iterator[Feeds]:
        """Makes one after the other, from the sample of that number on, up to that before ``stop``."""
        return self.material.part(start, len(self.samples) if stop is None else stop).feeds()


def random_set(signature: Signature, count: int, seed: int) -> CalibrationSet:
    """So many feeds of random numbers, made when they are asked for."""
    feeds = Lazy(partial(_random_feed, signature), range(seed, seed + count))
    samples = tuple(Sample(f"random {seed + number}", digest_of([feed])) for number, feed in enumerate(feeds))
    material = Material(signature, None, None, feeds, "random numbers", real=False)
    return CalibrationSet(samples, material, notes=(SYNTHETIC,))


def _random_feed(signature: Signature, seed: int) -> Feeds:
    return random_feeds(signature, 1, seed)[0]


def real_set(
    data: Path,
    manifest: Manifest,
    count: int,
    seed: int,
    *,
    evaluation: Path | None = None,
    allow_leak: bool = False,
    class_map: ClassMap | None = None,
) -> CalibrationSet:
    """At most ``count`` samples of what the user gave.

    Args:
        data: a folder or a list of images, or an ``.npz`` of feeds.
        manifest: of the program that is fed; it says how images become feeds, and the names of the classes.
        count: how many to choose.
        seed: of the choice and the order.
        evaluation: images that none of them may be.
        allow_leak: note such images, instead of refusing them.
        class_map: what both call the classes.

    Raises:
        InputError: they cannot be read, do not fit the network, are fewer than two different ones, all of one class, or among
            the evaluation images.
    """
    require_images(class_map, data, evaluation)
    material = open_material(data, manifest, class_map)
    found = _of_images(material, data, count, seed) if material.images is not None else _of_ready(material, data, count, seed)
    if len({one.sha256 for one in found.samples}) < 2:
        many = f"{counted(len(found.samples), 'sample')} of one content" if len(found.samples) > 1 else "a single one"
        raise InputError(f"{found.source} are {many}; ranges of that would fit no other", remedy="give some hundred different images")
    _require_classes(material, manifest, data)
    if len(found.samples) < count:
        note = f"{counted(count, 'sample')} were asked for, and {data.name} has {len(found.samples)}"
        found = dataclasses.replace(found, notes=(*found.notes, note))
    return found if evaluation is None else _checked(found, evaluation, manifest, allow_leak, class_map)


def _of_images(material: Material, data: Path, count: int, seed: int) -> CalibrationSet:
    assert material.images is not None
    images = sample(material.images, count, seed=seed)
    base = data if data.is_dir() else data.parent
    named = [Sample(_name(image.path, base), content) for image, content in zip(images.images, images.hashes, strict=True)]
    # Drawn, since images come class by class, and the first of them would then be all of one.
    drawn = [hashlib.sha256(repr((seed, one.sha256, one.name)).encode()).digest() for one in named]
    order = sorted(range(len(named)), key=lambda index: drawn[index])
    in_order = dataclasses.replace(material, images=ImageSet(tuple(images.images[index] for index in order), images.classes))
    present = {image.label for image in images.images}
    absent = [name for label, name in enumerate(images.classes) if label not in present] if None not in present else []
    notes = (f"{len(absent)} of the {len(images.classes)} classes have no calibration image: {some(absent)}",) if absent else ()
    samples = tuple(named[index] for index in order)
    return CalibrationSet(samples, in_order, images, notes=(*images.notes, *notes))


def _of_ready(material: Material, data: Path, count: int, seed: int) -> CalibrationSet:
    drawn = [hashlib.sha256(repr((seed, index)).encode()).digest() for index in range(len(material.ready))]
    order = sorted(range(len(drawn)), key=lambda index: drawn[index])[:count]
    samples = tuple(Sample(f"{data.name}[{index}]", digest_of([material.ready[index]])) for index in order)
    return CalibrationSet(samples, dataclasses.replace(material, ready=Lazy(material.ready.__getitem__, order)))


def _require_classes(material: Material, manifest: Manifest, data: Path) -> None:
    """Refuse images of a single class, where somebody has said which they have."""
    images = material.images
    labels = {image.label for image in images.images} if images else {None}
    if images is None or len(labels) > 1 or len(manifest.classes) == 1:
        return
    (label,) = labels
    if label is not None:
        name = images.classes[label] if images.classes else str(label)
        raise InputError(
            f"all {len(images)} images in {data} are of one class, {name!r}; other classes reach other ranges",
            remedy="give images of all classes; if these folders are no classes, a .txt list of the images without any",
        )


def _checked(found: CalibrationSet, evaluation: Path, manifest: Manifest, allow_leak: bool, class_map: ClassMap | None) -> CalibrationSet:
    """The same, once none of it is found among the evaluation images."""
    if found.images is None:
        raise InputError(
            f"{found.source} cannot be compared with the images in {evaluation}",
            remedy="leave --evaluation out, or give --data the images that the feeds were made from",
        )
    both, held_out = _shared(found.images, evaluation, manifest, class_map)
    note = f"{len(both)} of the {held_out} evaluation images in {evaluation.name} are calibration images too"
    if both and not allow_leak:
        raise InputError(
            f"{note}: {some(both)}",
            remedy="take them out of one of the two; to calibrate all the same, which the range table then says: `calibrate --allow-leak`,"
            " or `allow_leak = true` of a recipe's [int8]",
        )
    return dataclasses.replace(found, leaked=len(both), notes=(*found.notes, f"{note} (--allow-leak)") if both else found.notes)


def require_held_out(images: ImageSet, what: str, evaluation: Path, manifest: Manifest, class_map: ClassMap | None = None) -> None:
    """Refuse images, called ``what``, of which some are evaluation images.

    Raises:
        InputError: names some of those.
    """
    both, held_out = _shared(images, evaluation, manifest, class_map)
    if both:
        raise InputError(
            f"{len(both)} of the {held_out} evaluation images in {evaluation.name} are among {what}: {some(both)}",
            remedy="take them out of one of the two",
        )


def _shared(images: ImageSet, evaluation: Path, manifest: Manifest, class_map: ClassMap | None) -> tuple[list[str], int]:
    """Names of the evaluation images that are among some images, and how many evaluation images there are."""
    held_out = open_images(evaluation, classes=manifest.classes, class_map=class_map)
    return [_name(path, evaluation) for path in leak(images, held_out)], len(held_out)


def _name(path: Path, base: Path) -> str:
    """Below the folder that was given; where else it lies is nobody's business."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name

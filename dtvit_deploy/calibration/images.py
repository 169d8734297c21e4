"""Labelled images on disk: a tree of class folders, a flat folder, or a list; nothing is decoded here."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.calibration.folders import entries, is_image, no_image, skipped, walk
from dtvit_deploy.calibration.listing import LISTS, read_listing
from dtvit_deploy.errors import InputError
from dtvit_deploy.plural import counted, some

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap


class LabelledImage:
    """One image file, and the index of its class in the order of the logits; None when nobody said.

    There may be a million of them: a path is kept as text, a fifth of what a Path takes.
    """

    __slots__ = ("_text", "label")

    def __init__(self, path: str | os.PathLike[str], label: int | None) -> None:
        self._text = os.fspath(path)
        self.label = label

    @property
    def path(self) -> Path:
        return Path(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelledImage) and (self._text, self.label) == (other._text, other.label)

    def __hash__(self) -> int:
        return hash((self._text, self.label))

    def __repr__(self) -> str:
        return f"LabelledImage({self._text!r}, {self.label})"


@dataclass(frozen=True)
class ImageSet:
    """Images, and the names of the classes in label order (empty when nobody named them), and what is to be said of the images.

    ``alphabetical`` says that their words alone order the classes, since neither the network nor a map does.
    """

    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    alphabetical: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property
    def labelled(self) -> bool:
        """Whether every image has a label; where one has none, nothing can be said of how many answers are right."""
        return all(image.label is not None for image in self.images)

    @functools.cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each file's bytes, in the order of the images; read once, in pieces.

        Raises:
            InputError: a file cannot be read.
        """
        return tuple(_hash(image.path) for image in self.images)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what the images contain and how they are labelled.

        It holds neither names nor order, so the same data have the same digest on every machine, however they are laid out.

        Raises:
            InputError: a file cannot be read.
        """
        named = self.classes if any(image.label is not None for image in self.images) else ()
        contents = sorted(
            (content, -1 if image.label is None else image.label) for content, image in zip(self.hashes, self.images, strict=True)
        )
        return hashlib.sha256(json.dumps([named, contents]).encode()).hexdigest()


def open_images(folder: Path, *, classes: tuple[str, ...] = (), class_map: ClassMap | None = None) -> ImageSet:
    """The images of ``folder``, in the order of their paths, or of a list, in the order of its lines.

    A folder holds either one folder for each class, searched to any depth, or images directly, which then have no label. Hidden files and
    folders, and what operating systems leave there, are left out, links are followed, and each folder is entered once. For lists see
    :func:`dtvit_deploy.calibration.listing.read_listing`.

    Args:
        folder: a folder, or a file whose name ends in one of :data:`LISTS`.
        classes: names of the classes in the order of the logits, as the checkpoint has them. Without them, the sorted names of
            the class folders give the labels; if all are whole numbers they are sorted as numbers ("10" after "2"), otherwise by
            code point. Numbers in a list are labels.
        class_map: what the data call the classes.

    Raises:
        InputError: there is no such folder, it cannot be read, it holds no image, images lie beside class folders, a class is
            none of ``classes``, or, without them, a class folder holds no image, so that later labels would be off by one.
    """
    mode = _mode(folder)
    if not mode:
        raise InputError(
            f"{folder} does not exist, or cannot be reached", remedy=f"give a folder of images, or a list ({', '.join(LISTS)})"
        )
    if stat.S_ISREG(mode) and folder.suffix.lower() in LISTS:
        return _from_list(folder, classes, class_map)
    if not stat.S_ISDIR(mode):
        raise InputError(
            f"{folder} is a file; images come from a folder or a list ({', '.join(LISTS)})", remedy="give the folder that it lies in"
        )
    folders, files = entries(str(folder))
    top = sorted(path for path in files if is_image(path))
    below = {Path(path).name: list(walk(path, str(folder))) for path in folders}
    found = {name: [path for path in paths if is_image(path)] for name, paths in below.items()}
    every = [*files, *(path for paths in below.values() for path in paths)]
    if not top and not any(found.values()):
        raise no_image(folder, every)
    notes = skipped([path for path in every if not is_image(path)])
    if not any(found.values()):
        return ImageSet(tuple(LabelledImage(path, None) for path in top), classes, notes)
    if top:
        filled = some(sorted(name for name, paths in found.items() if paths))
        raise InputError(
            f"{folder} holds {counted(len(top), 'image')} ({some(Path(path).name for path in top)}) beside folders of images ({filled})",
            remedy="move them into class folders, or give a folder that holds only one of the two",
        )
    if not classes and class_map is None and (empty := sorted(name for name, paths in found.items() if not paths)):
        held = f" ({notes[0]})" if notes else ""
        raise InputError(
            f"folders without any image in {folder}: {some(empty)}; whether they count as classes decides all labels{held}",
            remedy="remove them, or use a checkpoint that names its classes",
        )
    used = found if class_map is None else [name for name, paths in found.items() if paths]
    index, names = _labels(used, classes, class_map, folder, numbered=False)
    labelled = [LabelledImage(path, index[name]) for name, paths in found.items() for path in paths]
    in_order = tuple(sorted(labelled, key=lambda image: image.path.parts))
    return ImageSet(in_order, names, notes, _alphabetical(names, classes, class_map))


def sample(images: ImageSet, count: int, *, seed: int = 0) -> ImageSet:
    """``count`` of the images, as many from each class as from any other as far as they last; all when there are no more.

    Which ones follows from the seed and from the sorted paths within each class: it is the same on every machine, wherever the
    folder lies, and in whatever order the images were given. They keep that order.

    Raises:
        InputError: ``count`` is less than 1.
    """
    if count < 1:
        raise InputError(f"a sample of {count} images was asked for", remedy="ask for at least 1")
    if count >= len(images):
        return images
    members: defaultdict[int | None, list[int]] = defaultdict(list)
    for position in sorted(range(len(images)), key=lambda i: images.images[i].path.as_posix()):
        members[images.images[position].label].append(position)
    # Every class puts its members in a drawn order; then all first members come before all second ones, and so on. A hash and
    # not a generator, whose stream may change with the version of its library.
    ranked = []
    for label, positions in members.items():
        drawn = sorted(range(len(positions)), key=lambda place: _draw(seed, label, place))
        ranked += [(rank, _draw(seed, label, "class", rank), positions[place]) for rank, place in enumerate(drawn)]
    chosen = sorted(position for _, _, position in sorted(ranked)[:count])
    return dataclasses.replace(images, images=tuple(images.images[position] for position in chosen))


def leak(a: ImageSet, b: ImageSet) -> tuple[Path, ...]:
    """The images of ``b`` whose bytes are those of an image of ``a``, whatever either is called.

    The same picture saved anew is not found.

    Raises:
        InputError: a file cannot be read.
    """
    known = set(a.hashes)
    return tuple(image.path for image, content in zip(b.images, b.hashes, strict=True) if content in known)


def _draw(*what: object) -> bytes:
    return hashlib.sha256(repr(what).encode()).digest()


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", remedy="check that nothing moves files away") from error


def _mode(path: Path) -> int:
    """The file's type and permissions, 0 where there is nothing to be had; ``Path.is_file`` raises for some of these."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return 0


def _from_list(file: Path, classes: tuple[str, ...], class_map: ClassMap | None) -> ImageSet:
    rows, notes = read_listing(file)
    bare = [row.number for row in rows if not row.label]
    if len(bare) == len(rows):
        return ImageSet(tuple(LabelledImage(row.path, None) for row in rows), classes, notes)
    if bare:
        raise InputError(
            f"{len(bare)} of the {len(rows)} lines of {file} name no class, the first is line {bare[0]}",
            remedy="give every image a class, or none",
        )
    # As the list has them where all are names; otherwise without what tables and annotations put to a number or an id.
    known = set(classes) if class_map is None else class_map.names
    called = [row.label for row in rows]
    if not set(called) <= known:
        called = [row.label if row.label in known else row.plain for row in rows]
    index, names = _labels(called, classes, class_map, file, numbered=True)
    labelled = tuple(LabelledImage(row.path, index[name]) for row, name in zip(rows, called, strict=True))
    return ImageSet(labelled, names, notes, _alphabetical(names, classes, class_map))


def _alphabetical(names: tuple[str, ...], classes: tuple[str, ...], class_map: ClassMap | None) -> bool:
    return not classes and class_map is None and not all(map(str.isdecimal, names))


def _labels(
    used: Iterable[str], classes: tuple[str, ...], class_map: ClassMap | None, source: Path, *, numbered: bool
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Label of each class that data use, and the names of the classes; ``numbered`` where numbers are labels and not just names."""
    if class_map is not None:
        return class_map.labels(used, classes, source), classes
    names = sorted(set(used))
    numeric = all(name.isascii() and name.isdigit() for name in names)
    if numbered and numeric and not set(names) <= set(classes):
        return _numbers(names, classes, source), classes
    if not classes:
        ordered = sorted(names, key=_number) if numeric else names
        return {name: label for label, name in enumerate(ordered)}, tuple(ordered)
    if unknown := sorted(set(names) - set(classes)):
        raise InputError(
            f"{source} has classes that the model does not know: {some(unknown)}; it knows {some(classes)}",
            remedy="say which is which by --class-map (in a recipe, `data.class_map`), rename them, or give the folder that holds the class"
            " folders (one level up or down?)",
        )
    if twice := [name for name in names if classes.count(name) > 1]:  # ImageNet has two kinds of "crane"
        raise InputError(f"the model has several classes of one name: {some(twice)}", remedy="give the classes distinct names")
    return {name: label for label, name in enumerate(classes)}, classes


def _numbers(names: list[str], classes: tuple[str, ...], source: Path) -> dict[str, int]:
    """Numbers as the labels that they are; one too large for the network is refused, here where it is known how many it has."""
    labels = {name: int(name) if len(name) < 10 else 1 << 32 for name in names}
    if classes and max(labels.values()) >= len(classes):
        least, most = min(labels.values()), max(labels.values())
        raise InputError(
            f"{source} has labels from {least} to {most}, and the model's classes are 0 to {len(classes) - 1}",
            remedy="number them from 0 in the order of the logits, or say which is which by --class-map (in a recipe, `data.class_map`)",
        )
    return labels


def _number(name: str) -> tuple[int, str, str]:
    """Sorts digits by the number they write, "1" and "01" apart; ``int`` refuses very long ones."""
    digits = name.lstrip("0")
    return len(digits), digits, name

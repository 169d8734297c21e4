"""Labelled images on disk: a tree of class folders, a flat folder, or a text list; nothing is decoded here."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.artifact import sha256_of
from dtvit_deploy.calibration.decode import SUFFIXES
from dtvit_deploy.errors import InputError

LARGEST_LIST = 64 << 20
"""Bytes of a text list: a million paths."""
_SHOWN = 10
"""Names that a message lists before it counts the rest."""


@dataclass(frozen=True)
class LabelledImage:
    """One image file, and the index of its class in the order of the logits; None when nobody said."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class ImageSet:
    """Images, and the names of the classes in label order (empty when there are neither labels nor a checkpoint's names)."""

    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

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


def open_images(folder: Path, *, classes: tuple[str, ...] = ()) -> ImageSet:
    """The images of ``folder``, in the order of their paths, or of a ``.txt`` list, in the order of its lines.

    A folder holds either one folder for each class, searched to any depth, or images directly, which then have no label. Hidden
    files and folders are left out, links are followed, and each folder is entered once. In a list, a line is a path, relative to the
    list, and if labels are known, a tab and the name of the class.

    Args:
        folder: a folder, or a text file whose name ends in ``.txt``.
        classes: names of the classes in the order of the logits, as the checkpoint has them. Without them, the sorted names of
            the class folders give the labels; if all are whole numbers they are sorted as numbers ("10" after "2"), otherwise by
            code point.

    Raises:
        InputError: there is no such folder, it cannot be read, it holds no image, images lie beside class folders, a class is
            none of ``classes``, or, without them, a class folder holds no image, so that later labels would be off by one.
    """
    mode = _mode(folder)
    if not mode:
        raise InputError(f"{folder} does not exist, or cannot be reached", remedy="give a folder of images, or a text list ending in .txt")
    if stat.S_ISREG(mode) and folder.suffix.lower() == ".txt":
        return _from_list(folder, classes)
    if not stat.S_ISDIR(mode):
        raise InputError(f"{folder} is a file; images come from a folder or a .txt list", remedy="give the folder that it lies in")
    folders, files = _entries(folder)
    top = [path for path in files if _is_image(path)]
    below = {path.name: list(_walk(path, folder)) for path in folders}
    found = {name: [path for path in paths if _is_image(path)] for name, paths in below.items()}
    if not top and not any(found.values()):
        raise _no_image(folder, [*files, *(path for paths in below.values() for path in paths)])
    if not any(found.values()):
        return ImageSet(tuple(LabelledImage(path, None) for path in sorted(top)), classes)
    if top:
        filled = sorted(name for name, paths in found.items() if paths)
        raise InputError(
            f"{folder} holds {len(top)} images ({_some(path.name for path in sorted(top))}) beside folders of images ({_some(filled)})",
            remedy="move them into class folders, or give a folder that holds only one of the two",
        )
    if not classes and (empty := sorted(name for name, paths in found.items() if not paths)):
        raise InputError(
            f"folders without any image in {folder}: {_some(empty)}; whether they count as classes decides all labels",
            remedy="remove them, or use a checkpoint that names its classes",
        )
    index = _index(found, classes, folder)
    labelled = [LabelledImage(path, index[name]) for name, paths in found.items() for path in paths]
    return ImageSet(tuple(sorted(labelled, key=lambda image: image.path)), classes or tuple(index))


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
    return ImageSet(tuple(images.images[position] for position in chosen), images.classes)


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


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _mode(path: Path) -> int:
    """The file's type and permissions, 0 where there is nothing to be had; ``Path.is_file`` raises for some of these."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return 0


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and all else in ``folder``, hidden ones left out. A broken link is kept: reading it says what is wrong."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else files).append(folder / entry.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read: {error.strerror or error}", remedy="check its permissions, or give another folder"
        ) from error
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk(folder: Path, top: Path) -> Iterator[Path]:
    """All files below ``folder``; a folder that was met before, ``top`` among them, is not entered again."""
    met = {top.resolve()}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if (real := current.resolve()) not in met:
            met.add(real)
            folders, files = _entries(current)
            yield from files
            waiting += folders


def _from_list(file: Path, classes: tuple[str, ...]) -> ImageSet:
    lines = _lines(file)
    absent = [f"{line.path} (line {line.number})" for line in lines if not stat.S_ISREG(_mode(line.path))]
    if absent:
        raise InputError(
            f"{len(absent)} of the {len(lines)} images that {file} lists do not exist: {_some(absent)}",
            remedy=f"paths are taken relative to {file.parent}",
        )
    bare = [line.number for line in lines if not line.name]
    if len(bare) == len(lines):
        return ImageSet(tuple(LabelledImage(line.path, None) for line in lines), classes)
    if bare:
        raise InputError(
            f"{len(bare)} of the {len(lines)} lines of {file} name no class, the first is line {bare[0]}",
            remedy="give every image a class, after a tab, or none",
        )
    index = _index((line.name for line in lines), classes, file)
    return ImageSet(tuple(LabelledImage(line.path, index[line.name]) for line in lines), classes or tuple(index))


class _Line(NamedTuple):
    number: int
    path: Path
    name: str
    """Of the class; empty when there is none."""


def _lines(file: Path) -> list[_Line]:
    try:
        if file.stat().st_size > LARGEST_LIST:
            raise InputError(f"{file} has {file.stat().st_size:,} bytes; a list has at most {LARGEST_LIST:,}", remedy="split it")
        with file.open(encoding="utf-8-sig") as opened:
            split = [(number, *line.rstrip("\n").partition("\t")) for number, line in enumerate(opened, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a list of images: {error}", remedy="write it in UTF-8, one path a line") from error
    if not split:
        raise InputError(f"{file} lists no image", remedy="write one path a line, or path, tab and class")
    return [_Line(number, file.parent / path, name.strip()) for number, path, _, name in split]


def _index(names: Iterable[str], classes: tuple[str, ...], source: Path) -> dict[str, int]:
    """Class name → label."""
    used = sorted(set(names))
    if not classes:
        numeric = all(name.isascii() and name.isdigit() for name in used)
        return {name: label for label, name in enumerate(sorted(used, key=_number) if numeric else used)}
    if unknown := sorted(set(used) - set(classes)):
        raise InputError(
            f"{source} has classes that the model does not know: {_some(unknown)}; it knows {_some(classes)}",
            remedy="rename them, or give the folder that holds the class folders (one level up or down?)",
        )
    if twice := [name for name in used if classes.count(name) > 1]:  # ImageNet has two kinds of "crane"
        raise InputError(f"the model has several classes of one name: {_some(twice)}", remedy="give the classes distinct names")
    return {name: label for label, name in enumerate(classes)}


def _number(name: str) -> tuple[int, str, str]:
    """Sorts digits by the number they write, "1" and "01" apart; ``int`` refuses very long ones."""
    digits = name.lstrip("0")
    return len(digits), digits, name


def _no_image(folder: Path, files: list[Path]) -> InputError:
    if not files:
        return InputError(f"{folder} holds no files", remedy="give a folder of images")
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in files)
    counted = _some(f"{suffix} ({count})" for suffix, count in suffixes.most_common())
    return InputError(f"no image among the {len(files)} files of {folder}: {counted}", remedy=f"known are {', '.join(sorted(SUFFIXES))}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")

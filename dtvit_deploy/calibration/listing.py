"""Lists of images, as data sets come with: lines of text, tables, COCO annotations. Which column is what, the files themselves say."""

from __future__ import annotations

import codecs
import json
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.calibration.decode import SUFFIXES
from dtvit_deploy.calibration.tables import TABLES, Table, cells_of, read_text, table_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.plural import some

LARGEST_LIST = 64 << 20
"""Bytes of a list: a million paths."""
LARGEST_ANNOTATIONS = 1 << 30
"""Bytes of a JSON file; COCO's own have 450 MB."""
LISTS = (".txt", ".lst", ".csv", ".tsv", ".json", ".jsonl")
BOXES_UNUSED = "the annotations say which images to take; their boxes and masks are not used, since no accuracy of detectors is measured"

_WHAT = ("a list of images", "path")
_TRIED = 50
"""Rows by which it is found out what the columns are, and where the paths begin."""
# fmt: off
_PATHS = (
    "path", "filepath", "file_path", "file", "filename", "file_name", "image", "img", "image_path", "image_id", "imageid", "id", "name",
)
_LABELS = (
    "label", "class", "class_name", "classname", "category", "target", "y", "wnid", "synset", "species", "breed", "class_id", "label_id",
    "label_name", "category_id", "predictionstring", "labels", "classes", "cls", "kind", "gt", "ground_truth",
)
# fmt: on
_WORDNET = re.compile(r"(n\d{8})\s")
_WHOLE = re.compile(r"(\d+)\.0+")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a list.

    Attributes:
        number: of its line.
        path: where it is, made absolute or relative to where the command runs.
        label: as the list has it; empty when it has none.
    """

    number: int
    path: str
    label: str

    @property
    def plain(self) -> str:
        """The label without what is put to it: 3.0, as tables of numbers have it, is 3; a WordNet id may be followed by a place."""
        if whole := _WHOLE.fullmatch(self.label):
            return whole[1]
        wordnet = _WORDNET.match(self.label)
        return wordnet[1] if wordnet else self.label


def read_listing(file: Path) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a list, every path of which exists, and what is to be said of it.

    A text line is a path, or a path and a label, with a tab or a blank between. In a table, with a header or without, the column of paths
    is the one that names files; the label is the other one, or, with a header, the one whose name says so. Paths are
    relative to the list, or to a folder beside it of its name, or of the usual names; the suffix of an image may be left out.

    Raises:
        InputError: it cannot be read, lists nothing or what is not there, or which column is the label is unclear.
    """
    notes: tuple[str, ...] = ()
    suffix = file.suffix.lower()
    header: Sequence[str] | None = None
    table: Table
    if suffix in (".json", ".jsonl"):
        header, table, notes = _from_json(file)
    elif suffix in TABLES:
        table = table_of(read_text(file, LARGEST_LIST, *_WHAT), file)
    else:
        table = _from_lines(file)
    if not table:
        raise InputError(f"{file} lists no image", remedy="write one path a line, or path, tab and class")
    if header is None and _is_header(table, file):
        header, table = table[0][1], table[1:]
    base, column = _paths(table, header, file)
    label = _label_column(table, header, column, file)
    rows = [
        Row(number, _found(base, cells[column]), cells[label].strip() if label is not None else "")
        for number, cells in table
        if len(cells) > max(column, label or 0)
    ]
    if short := [number for number, cells in table if len(cells) <= max(column, label or 0)]:
        raise InputError(
            f"{len(short)} of the {len(table)} rows of {file} lack a column, the first is line {short[0]}", remedy="complete them"
        )
    _require_there([(f"{row.path} (line {row.number})", row.path) for row in rows], file)
    return rows, notes


def image_paths(names: Sequence[str], file: Path) -> list[str]:
    """Where the images lie that a file names, in its order: relative to it, or to a folder beside it, as in lists.

    Raises:
        InputError: one is not there.
    """
    base, _ = _paths([(number, [name]) for number, name in enumerate(names, 1)], ["file_name"], file)
    paths = [_found(base, name) for name in names]
    _require_there([(path, path) for path in paths], file)
    return paths


def _require_there(images: list[tuple[str, str]], file: Path) -> None:
    """Refuse a list of which images are not there; each is given as it is called in the message, and by its path."""
    if absent := [told for told, path in images if not _is_file(path)]:
        raise InputError(
            f"{len(absent)} of the {len(images)} images that {file} lists do not exist: {some(absent)}",
            remedy=f"paths are taken relative to {file.parent}, or to a folder in it or beside it that holds them all",
        )


def _from_lines(file: Path) -> Table:
    lines = [(number, line) for number, line in enumerate(read_text(file, LARGEST_LIST, *_WHAT).split("\n"), 1) if line.strip()]
    lines = [(number, line.rstrip("\r")) for number, line in lines]
    if any("\t" in line for _, line in lines):
        return [(number, line.split("\t")) for number, line in lines]
    if file.suffix.lower() == ".txt" and any("," in line for _, line in lines) and not _any_file(file, [line for _, line in lines]):
        return cells_of("\n".join(line for _, line in lines), ",", file)
    ways: list[Table] = [[(number, [line]) for number, line in lines]]
    ways.append([(number, line.rsplit(None, 1)) for number, line in lines])
    ways.append([(number, line.split(None, 1)[::-1]) for number, line in lines])  # a label, and then a path
    for way in ways:
        if _any_file(file, [cells[0] for _, cells in way]):
            return way
    return ways[0]  # nothing of it is there, which is said of the lines as they are


def _from_json(file: Path) -> tuple[Sequence[str], Table, tuple[str, ...]]:
    """COCO annotations, or a list of objects, one for each image, in one text or one a line."""
    if (images := _of_coco(file)) is not None:
        return ["file_name"], [(number, [name]) for number, name in enumerate(images, 1)], (BOXES_UNUSED,)
    text = read_text(file, LARGEST_LIST, *_WHAT)
    try:
        require_shallow_json(text.encode())
        # Not splitlines, which cuts at characters that a string of JSON may hold.
        lines = text.split("\n") if file.suffix.lower() == ".jsonl" else None
        rows: Any = json.loads(text) if lines is None else [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise InputError(f"{file} cannot be read as JSON: {error}", remedy="save it again") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{file} lists no images: it is neither COCO annotations nor a list of objects, one for each image",
            remedy='give a file like {"images": [{"file_name": "a.jpg"}, …]} or [{"path": "a.jpg", "label": "cat"}, …]',
        )
    header = list(dict.fromkeys(str(key) for row in rows[:_TRIED] for key in row))
    return header, [(number, [_plain(row.get(key)) for key in header]) for number, row in enumerate(rows, 1)], ()


class _Image(msgspec.Struct):
    file_name: str


class _Annotations(msgspec.Struct):
    """What is read of COCO's annotations; the boxes and masks, which are nearly all of such a file, are passed over."""

    images: Annotated[list[_Image], msgspec.Meta(min_length=1)]


def _of_coco(file: Path) -> list[str] | None:
    """File names of COCO annotations; None for any other JSON."""
    if file.suffix.lower() != ".json":
        return None
    try:
        if (size := file.stat().st_size) > LARGEST_ANNOTATIONS:
            raise InputError(f"{file} has {size:,} bytes; annotations have at most {LARGEST_ANNOTATIONS:,}", remedy="split them")
        content = file.read_bytes()
        start = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        return [image.file_name for image in msgspec.json.decode(memoryview(content)[start:], type=_Annotations).images]
    except (msgspec.MsgspecError, RecursionError, OSError):
        return None


def _plain(value: Any) -> str:
    return "" if value is None else str(value) if isinstance(value, str | int) else json.dumps(value)


def _is_header(table: Table, file: Path) -> bool:
    """Whether the first row names the columns: it is no file's, and one of its cells is a usual name of a column."""
    first = [cell.lower() for cell in table[0][1]]
    if len(table) < 2 or any(_any_file(file, [cell]) for cell in table[0][1]):
        return False
    return any(cell in _PATHS or (cell in _LABELS and len(first) > 1) for cell in first)


def _bases(file: Path) -> list[str]:
    """Folders that a list's paths may begin in, the nearest first."""
    here, stem = file.parent, file.stem
    split = stem.rpartition("_")[2]
    named = dict.fromkeys([stem, split, "images", "imgs", "data"])
    places = [here, *(here / name for name in named), here.parent, *(here.parent / name for name in named)]
    places += [here.parent / "images" / split, here / "images" / split]
    return [str(place) for place in dict.fromkeys(places)]


def _any_file(file: Path, names: Sequence[str]) -> bool:
    return any(_is_file(_found(base, name)) for base in _bases(file) for name in names[:_TRIED])


def _paths(table: Table, header: Sequence[str] | None, file: Path) -> tuple[str, int]:
    """The folder that paths are relative to, and the column that they are in: where most are found."""
    rows = [cells for _, cells in table[:_TRIED]]
    columns = range(max(map(len, rows)))
    best, most = (str(file.parent), 0), 0
    for base in _bases(file):
        for column in columns:
            found = sum(_is_file(_found(base, cells[column])) for cells in rows if column < len(cells) and cells[column])
            if found > most:
                best, most = (base, column), found
    if not most and header is not None:  # none is there: the message should be about paths all the same
        named = [column for column, name in enumerate(header) if name.lower() in _PATHS]
        return str(file.parent), named[0] if named else 0
    return best


def _label_column(table: Table, header: Sequence[str] | None, paths: int, file: Path) -> int | None:
    width = max(len(cells) for _, cells in table[:_TRIED])
    others = [column for column in range(width) if column != paths]
    clear = len(others) < 2
    if header is not None:
        lower = [name.lower() for name in header]
        others = [column for column in others if column >= len(lower) or lower[column]]  # without the numbers of a data frame's rows
        named = [lower.index(name) for name in _LABELS if name in lower and lower.index(name) != paths]
        # One column of another name is the class if it holds words: numbers may be a width, or anything.
        words = len(others) == 1 and not any(_is_number(cells[others[0]]) for _, cells in table[:_TRIED] if others[0] < len(cells))
        clear = bool(named) or not others or words
        others = named or others
    if not clear:
        columns = ", ".join(header) if header is not None else f"{width}, without a header"
        raise InputError(
            f"which column of {file} is the class is unclear: it has {columns}",
            remedy="name that column `label` in the first line, or leave only paths",
        )
    return others[0] if others else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _found(base: str, name: str) -> str:
    """A path of the list; the suffix is completed where it is left out, and backslashes are Windows's."""
    path = str(Path(base, name))
    if _is_file(path):
        return path
    if "\\" in name and _is_file(other := str(Path(base, name.replace("\\", "/")))):
        return other
    if Path(name).suffix.lower() in SUFFIXES:
        return path
    completed = (path + suffix for known in (".jpg", ".jpeg", ".png", *sorted(SUFFIXES)) for suffix in (known, known.upper()))
    if not name or Path(name).suffix in LISTS:
        return path
    return next(filter(_is_file, completed), path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return False

"""What a data set calls the classes of a network: names, WordNet ids or numbers, as the files beside data sets have them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtvit_deploy.calibration.folders import some
from dtvit_deploy.calibration.listing import read_text
from dtvit_deploy.errors import InputError

LARGEST_MAP = 16 << 20
"""Bytes; ImageNet-22k's synsets have 1.5 MB."""

_NUMBER_FIRST = re.compile(r"[\"']?(\d+)[\"']?\s*[:,\s]\s*(\S.*)")
_NUMBER_LAST = re.compile(r"(.*\S)\s*[:,\s]\s*(\d+)")
_WORDNET = re.compile(r"n\d{8}")
_NUMBERS = ("index", "idx", "number", "label", "id", "class_id", "class_index", "target")
_NAMES = ("name", "class", "class_name", "wnid", "synset", "words", "label", "label_name", "category", "id")


@dataclass(frozen=True)
class Group:
    """One class of the data set.

    Attributes:
        number: that the file gives it; None where it gives none.
        names: all that it may be called.
    """

    number: int | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set, in the order of their file."""

    path: Path
    groups: tuple[Group, ...]

    def labels(self, used: Iterable[str], classes: tuple[str, ...], source: Path) -> dict[str, int]:
        """Label, in the order of the logits, of each name that data use.

        A class of the map is the network's class of the same name, where the network names its classes and any of the names is there.
        Otherwise it is the class of its number, or, where the map has no numbers, of its place in the map.

        Raises:
            InputError: a name is not in the map, or means several classes, or the map does not fit the network.
        """
        index = self._indices(classes)
        places: defaultdict[str, set[int]] = defaultdict(set)
        for group, label in zip(self.groups, index, strict=True):
            if label is not None:
                for name in (*group.names, *([] if group.number is None else [str(group.number)])):
                    places[name].add(label)
        used = sorted(set(used))
        found = {name: places.get(name, set()) for name in used}
        if unknown := [name for name, labels in found.items() if not labels]:
            raise InputError(
                f"{source} has classes that {self.path} does not map to a class of the network: {some(unknown)}",
                remedy=f"it maps {some(places)}; add the others, or leave their images out",
            )
        if twice := [name for name, labels in found.items() if len(labels) > 1]:  # ImageNet has two kinds of "crane"
            raise InputError(f"{self.path} maps one name to several classes: {some(twice)}", remedy="use ids that are distinct")
        return {name: min(labels) for name, labels in found.items()}

    def _indices(self, classes: tuple[str, ...]) -> list[int | None]:
        """The network's class of each group; None for those that it does not know."""
        known = {name: label for label, name in enumerate(classes) if classes.count(name) == 1} if classes else {}
        named = [{known[name] for name in group.names if name in known} for group in self.groups]
        if any(named):
            if torn := [self.groups[place].names[0] for place, labels in enumerate(named) if len(labels) > 1]:
                raise InputError(f"{self.path} has several classes of the network in one line: {some(torn)}", remedy="give each its own")
            return [min(labels, default=None) for labels in named]
        numbers = [group.number for group in self.groups]
        if all(number is None for number in numbers):
            if classes and len(classes) != len(numbers):
                raise InputError(
                    f"{self.path} has {len(numbers)} classes without numbers, and the network {len(classes)}, none of which it names",
                    remedy="give each a number, from 0 in the order of the logits, or the name that the network has for it",
                )
            return list(range(len(numbers)))
        if None in numbers:
            raise InputError(f"{self.path} gives numbers to some classes only", remedy="number all, from 0 in the order of the logits")
        counted = [number for number in numbers if number is not None]
        if classes and max(counted) >= len(classes):
            least, most = min(counted), max(counted)
            raise InputError(
                f"{self.path} numbers its classes from {least} to {most}, and those of the network are 0 to {len(classes) - 1}",
                remedy="number them from 0 in the order of the logits, or name them as the network does",
            )
        return list(numbers)


def read_class_map(path: Path) -> ClassMap:
    """Read a map in text, CSV or JSON.

    Text has a class a line: a name, or a number or a WordNet id and names. CSV has them in columns, with a header or without. JSON is a
    list of names, of lists, or of objects (``categories`` of COCO), or an object from names to numbers, from numbers to names, or from
    names to names.

    Raises:
        InputError: it cannot be read, or is none of these.
    """
    if not path.is_file():
        raise InputError(f"there is no class map at {path}", remedy="give a text, CSV or JSON file of classes")
    text = read_text(path, LARGEST_MAP)
    suffix = path.suffix.lower()
    try:
        rows = (
            _from_json(json.loads(text))
            if suffix == ".json"
            else _from_csv(text, suffix)
            if suffix in (".csv", ".tsv")
            else _from_text(text)
        )
    except (ValueError, RecursionError, csv.Error, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no class map: {error}", remedy="give a text, CSV or JSON file of classes, one a line") from error
    groups = tuple(group for group in rows if group.names or group.number is not None)
    if not groups:
        raise InputError(f"{path} holds no class", remedy="give a text, CSV or JSON file of classes, one a line")
    return ClassMap(path, groups)


def _from_text(text: str) -> list[Group]:
    lines = [line.strip().strip("{}").rstrip(",").strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for pattern, number, rest in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        found = [pattern.fullmatch(line) for line in lines]
        if all(found):
            return [Group(int(match[number]), _names(match[rest])) for match in found if match]
    return [Group(None, _names(line)) for line in lines]


def _names(text: str) -> tuple[str, ...]:
    """A WordNet id and words, synonyms with commas between, or whatever else stands between tabs; each name, and the words as a whole."""
    names: list[str] = []
    for part in text.split("\t"):
        whole = part.strip().strip("\"'").strip()
        first, _, words = whole.partition(" ")
        if _WORDNET.fullmatch(first):
            names.append(first)
            whole = words.strip()
        names += [whole, *(word.strip() for word in whole.split(","))]
    return tuple(dict.fromkeys(name for name in names if name))


def _from_csv(text: str, suffix: str) -> list[Group]:
    first = text.partition("\n")[0]
    delimiter = "\t" if suffix == ".tsv" else max(",;\t|", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)]
    rows = [row for row in rows if any(row)]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("its rows have different numbers of columns")
    numeric = [column for column in range(len(rows[0])) if len(rows) > 1 and all(row[column].isdecimal() for row in rows[1:])]
    header = [cell.lower() for cell in rows[0]]
    has_header = any(not header[column].isdecimal() for column in numeric) or (not numeric and all(cell in _NAMES for cell in header))
    if has_header:
        rows = rows[1:]
    named = [header.index(name) for name in _NUMBERS if has_header and name in header and header.index(name) in numeric]
    number = next(iter(named or numeric), None)
    return [
        Group(
            None if number is None else int(row[number]),
            tuple(name for column, cell in enumerate(row) if column != number for name in _names(cell)),
        )
        for row in rows
    ]


def _from_json(found: Any) -> list[Group]:
    if isinstance(found, dict):
        for key in ("categories", "names", "classes", "id2label", "label2id"):
            if isinstance(found.get(key), list | dict):
                return _from_json(found[key])
        return [_pair(str(key), value) for key, value in found.items()]
    if isinstance(found, list):
        return [_item(item) for item in found]
    raise ValueError("it is neither a list nor an object")


def _pair(key: str, value: Any) -> Group:
    if isinstance(value, int):
        return Group(value, _names(key))
    values = _strings(value)
    return Group(int(key), values) if key.isdecimal() else Group(None, (*_names(key), *values))


def _item(item: Any) -> Group:
    if isinstance(item, dict):
        number = next((item[key] for key in _NUMBERS if isinstance(item.get(key), int)), None)
        return Group(number, tuple(name for key in _NAMES if isinstance(item.get(key), str) for name in _names(item[key])))
    if isinstance(item, list):
        return Group(next((one for one in item if isinstance(one, int)), None), _strings([one for one in item if isinstance(one, str)]))
    return Group(None, _strings(item))


def _strings(value: Any) -> tuple[str, ...]:
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise ValueError(f"a class is called {values[0]!r}")
    return tuple(dict.fromkeys(name for one in values for name in _names(one)))

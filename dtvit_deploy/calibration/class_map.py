"""What a data set calls the classes of a network: names, WordNet ids or numbers, as the files beside data sets have them."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtvit_deploy.artifacts.nesting import require_shallow_json
from dtvit_deploy.calibration.tables import TABLES, Table, read_text, table_of
from dtvit_deploy.errors import InputError
from dtvit_deploy.plural import some

LARGEST_MAP = 16 << 20
"""Bytes; ImageNet-22k's synsets have 1.5 MB."""

_NUMBER_FIRST = re.compile(r"[\"']?(\d+)[\"']?\s*[:,\s]\s*(\S.*)")
_NUMBER_LAST = re.compile(r"[:,\s](\d+)\Z")
_WORDNET = re.compile(r"n\d{8}")
_NUMBERS = ("index", "idx", "number", "label", "id", "class_id", "class_index", "target")
_NAMES = ("name", "class", "class_name", "wnid", "synset", "words", "label", "label_name", "category", "id")


@dataclass(frozen=True)
class Group:
    """One class of the data set.

    Attributes:
        number: that the file gives it; None where it gives none.
        names: all that it is called; of ``tench, Tinca tinca`` the whole.
        synonyms: parts of such a name, each of which means it where nothing else has that name: a projectile is a "projectile, missile",
            and there are missiles too.
    """

    number: int | None
    names: tuple[str, ...]
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set, in the order of their file."""

    path: Path
    groups: tuple[Group, ...]

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """All that data may call a class."""
        numbers = (str(group.number) for group in self.groups if group.number is not None)
        return frozenset(name for group in self.groups for name in (*group.names, *group.synonyms)).union(numbers)

    def labels(self, used: Iterable[str], classes: tuple[str, ...], source: Path) -> dict[str, int]:
        """Label, in the order of the logits, of each name that data use.

        A class of the map is the network's class of the same name, where the network names its classes and any of the names is there.
        Otherwise it is the class of its number, or, where the map has no numbers, of its place in the map.

        Raises:
            InputError: a name is not in the map, or means several classes, or the map does not fit the network.
        """
        index = self._indices(classes)
        places: defaultdict[str, set[int]] = defaultdict(set)
        others: defaultdict[str, set[int]] = defaultdict(set)
        for group, label in zip(self.groups, index, strict=True):
            if label is not None:
                for name in (*group.names, *([] if group.number is None else [str(group.number)])):
                    places[name].add(label)
                for name in group.synonyms:
                    others[name].add(label)
        used = sorted(set(used))
        found = {name: places.get(name) or others.get(name, set()) for name in used}
        if unknown := [name for name, labels in found.items() if not labels]:
            raise InputError(
                f"{source} has classes that {self.path} does not map to a class of the network: {some(unknown)}",
                remedy=f"it maps {some(places)}; add the others, or leave their images out",
            )
        if twice := [name for name, labels in found.items() if len(labels) > 1]:  # ImageNet has two kinds of "crane"
            raise InputError(f"{self.path} maps one name to several classes: {some(twice)}", remedy="use ids that are distinct")
        return {name: min(labels) for name, labels in found.items()}

    def in_order(self) -> tuple[str, ...]:
        """One name for each class of a network that names none, in the order of its scores; no two are alike.

        Of several names it is the first that is no WordNet id and that no other class has, else such an id.

        Raises:
            InputError: a class has no name of its own, or numbers are missing.
        """
        names: defaultdict[int | None, dict[str, None]] = defaultdict(dict)
        for number, group in zip(self._indices(()), self.groups, strict=True):
            names[number].update(dict.fromkeys(group.names))
        if missing := sorted(set(range(len(names))) - set(names)):
            raise InputError(
                f"{self.path} numbers {len(names)} classes, and none of them {some(map(str, missing))}: which score is which is unknown",
                remedy="number them from 0 in the order of the scores, or list a name a line in that order",
            )
        often = Counter(name for each in names.values() for name in each)
        found = []
        for number in range(len(names)):
            own = [name for name in names[number] if often[name] == 1]
            if not own:
                raise InputError(
                    f"{self.path} has no name for class {number} that no other class has", remedy="give each class a name of its own"
                )
            found.append(next((name for name in own if not _WORDNET.fullmatch(name)), own[0]))
        return tuple(found)

    def other_names(self, classes: tuple[str, ...]) -> dict[str, str]:
        """What this map calls classes that a network calls otherwise: its name by the network's.

        Raises:
            InputError: the map does not fit the network.
        """
        placed = zip(self._indices(classes), self.groups, strict=True)
        return {
            classes[label]: group.names[0]
            for label, group in placed
            if label is not None and group.names and classes[label] not in (*group.names, *group.synonyms)
        }

    def _indices(self, classes: tuple[str, ...]) -> list[int | None]:
        """The network's class of each group; None for those that it does not know.

        Several groups may have a whole name in common: the data tell apart what the network does not. A part of a name says nothing where
        another group has it too.
        """
        often = Counter(classes)
        known = {name: label for label, name in enumerate(classes) if often[name] == 1}
        shared = Counter(
            name for names, synonyms in {(group.names, group.synonyms) for group in self.groups} for name in (*names, *synonyms)
        )
        named = [
            next((known[name] for name in (*group.names, *(one for one in group.synonyms if shared[one] == 1)) if name in known), None)
            for group in self.groups
        ]
        if any(label is not None for label in named):
            return named
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
    text = read_text(path, LARGEST_MAP, "a class map", "class")
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            require_shallow_json(text.encode())
        rows = (
            _from_json(json.loads(text))
            if suffix == ".json"
            else _from_table(table_of(text, path))
            if suffix in TABLES
            else _from_text(text)
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no class map: {error}", remedy="give a text, CSV or JSON file of classes, one a line") from error
    groups = tuple(group for group in rows if group.names or group.number is not None)
    if not groups:
        raise InputError(f"{path} holds no class", remedy="give a text, CSV or JSON file of classes, one a line")
    return ClassMap(path, groups)


def _from_text(text: str) -> list[Group]:
    lines = [line.strip().strip("{}").rstrip(",").strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    for numbered in (_number_first, _number_last):
        found = [numbered(line) for line in lines]
        if all(found):
            return [_group(int(pair[0]), pair[1].split("\t")) for pair in found if pair]
    return [_group(None, line.split("\t")) for line in lines]


def _number_first(line: str) -> tuple[str, str] | None:
    match = _NUMBER_FIRST.fullmatch(line)
    return (match[1], match[2]) if match else None


def _number_last(line: str) -> tuple[str, str] | None:
    """The number at the end of a line and what stands before it; found from the end, or blanks within would be tried one by one."""
    match = _NUMBER_LAST.search(line)
    name = line[: match.start() + 1].rstrip() if match else ""
    name = name.removesuffix(":") if name.endswith(":") else name.removesuffix(",")
    return (match[1], name.rstrip()) if match and name.rstrip() else None


def _group(number: int | None, texts: Iterable[str]) -> Group:
    """A class of the texts that stand for it: each a name, synonyms with commas between, or a WordNet id and either."""
    names: list[str] = []
    for text in texts:
        whole = text.strip().strip("\"'").strip()
        first, _, words = whole.partition(" ")
        names += [first, words.strip()] if _WORDNET.fullmatch(first) else [whole]
    names = [name for name in dict.fromkeys(names) if name]
    synonyms = dict.fromkeys(part.strip() for name in names for part in name.split(","))
    return Group(number, tuple(names), tuple(name for name in synonyms if name and name not in names))


def _from_table(table: Table) -> list[Group]:
    rows = [cells for _, cells in table]
    if not rows:
        return []
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
        _group(None if number is None else int(row[number]), (cell for column, cell in enumerate(row) if column != number)) for row in rows
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
        return _group(value, [key])
    return _group(int(key), _texts(value)) if key.isdecimal() else _group(None, [key, *_texts(value)])


def _item(item: Any) -> Group:
    if isinstance(item, dict):
        number = next((item[key] for key in _NUMBERS if isinstance(item.get(key), int)), None)
        return _group(number, [item[key] for key in _NAMES if isinstance(item.get(key), str)])
    if isinstance(item, list):
        number = next((one for one in item if isinstance(one, int)), None)
        return _group(number, _texts([one for one in item if not isinstance(one, int)]))
    return _group(None, _texts(item))


def _texts(value: Any) -> list[str]:
    values: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise ValueError("a class is called by something that is no text")
    return values

"""Columns, tables and sections: what Markdown and HTML have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtvit_deploy.report.figures import ABSENT, plain

if TYPE_CHECKING:
    from dtvit_deploy.report.schema import Subject


WEB_PAGE = re.compile(r"(https://[a-z0-9.-]+/(?:[\w./?=&%#+-]*[\w/])?)", re.ASCII)
"""An address that may become a link: nothing in it means anything to Markdown or HTML, and it can hide no other host."""
_TELLING = ("source", "samples", "device", "processor", "cores", "runtime", "provider", "threads", "precision", "batch")


@dataclass(frozen=True)
class Column:
    """One column: a heading, and a cell for each row. Figures are set to the right, and break nowhere; prose may name web pages."""

    heading: str
    cells: tuple[str, ...]
    figures: bool = True
    prose: bool = False


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        caption: the conditions of the figures.
        failed: rows that did not pass.
        long: more than a reader wants at first; where nothing can be folded away it is left out.
    """

    caption: str
    columns: tuple[Column, ...]
    failed: frozenset[int] = frozenset()
    long: bool = False

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


@dataclass(frozen=True)
class Photo:
    """An image that was fed: a PNG in base64, and what is said of it."""

    png: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report; ``key`` names it in links, and says which plots belong to it."""

    key: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    photos: tuple[Photo, ...] = ()


def words(heading: str, cells: Iterable[str]) -> Column:
    """A column of text."""
    return Column(heading, tuple(plain(cell) or ABSENT for cell in cells), figures=False)


def prose(heading: str, cells: Iterable[str]) -> Column:
    """A column of sentences, which may name their sources."""
    return Column(heading, tuple(map(plain, cells)), figures=False, prose=True)


def amounts(heading: str, cells: Iterable[str]) -> Column:
    """A column of figures, already text."""
    return Column(heading, tuple(map(plain, cells)))


def table(caption: str, columns: Iterable[Column], failed: Iterable[int] = (), *, long: bool = False) -> Table:
    """A table without the columns that nobody has a figure for."""
    kept = tuple(column for column in columns if any(cell not in ("", ABSENT) for cell in column.cells))
    return Table(plain(caption), kept, frozenset(failed), long)


def section(key: str, title: str, sentences: Iterable[str], tables: Iterable[Table], photos: Iterable[Photo] = ()) -> Section | None:
    """A section without empty tables; None when nothing is left of it."""
    kept = tuple(table for table in tables if table.columns)
    said = tuple(plain(sentence) for sentence in sentences)
    return Section(key, title, said, kept, tuple(photos)) if kept or said else None


def ordered(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and values, the telling ones first. Not as they come: JSON sorts names, and a report read again must look the same."""
    return sorted(facts.items(), key=lambda fact: (_TELLING.index(fact[0]) if fact[0] in _TELLING else len(_TELLING), fact[0]))


def listed(facts: Mapping[str, str]) -> str:
    """What a session said of itself, in one line."""
    return " · ".join(f"{name} {value}" for name, value in ordered(facts))


def labels(subjects: Sequence[Subject]) -> list[str]:
    """A name for each subject: its own, with the file where several share one, with a number where that does not help."""
    return labels_of([(subject.name, subject.file) for subject in subjects])


def labels_of(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The same of pairs of a name and a file."""
    names = Counter(name for name, _ in pairs)
    found = [plain(name if names[name] == 1 else f"{name} ({file})") for name, file in pairs]
    seen: Counter[str] = Counter()
    for index, name in enumerate(found):
        seen[name] += 1
        if seen[name] > 1:
            found[index] = f"{name} #{seen[name]}"
    return found

"""Texts and tables from elsewhere, as lists of images and class maps are written: UTF-8, and cells between whatever separates them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from dtvit_deploy.errors import InputError

TABLES = (".csv", ".tsv")
Table = list[tuple[int, Sequence[str]]]
"""Rows with their line numbers."""


def read_text(file: Path, largest: int, what: str, each: str) -> str:
    """A text from elsewhere, in UTF-8; a byte order mark is no part of it.

    Args:
        file: where it is.
        largest: bytes.
        what: it should be, for messages.
        each: of its lines.

    Raises:
        InputError: it is too large, or no such text.
    """
    try:
        if (size := file.stat().st_size) > largest:
            raise InputError(f"{file} has {size:,} bytes; {what} has at most {largest:,}", remedy="split it")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as {what}: {error}", remedy=f"write it in UTF-8, one {each} a line") from error


def table_of(text: str, file: Path) -> Table:
    """The rows of a table; what separates its cells is what its first line has most of, and tabs where the name ends in .tsv.

    Raises:
        InputError: a row cannot be read.
    """
    first = text.lstrip("\n").partition("\n")[0]
    return cells_of(text, "\t" if file.suffix.lower() == ".tsv" else max(",;\t|", key=first.count), file)


def cells_of(text: str, delimiter: str, file: Path) -> Table:
    """The same where it is known what separates the cells; rows without any text are left out."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {file} cannot be read: {error}", remedy="write it anew, quotes in pairs") from error

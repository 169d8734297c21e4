"""What whoever works at a job says beside its results: the words of runtimes, and why one ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NAME = "log"
_END = 2000
"""Bytes of the end of a log that are told."""


def log_of(folder: Path) -> str:
    """The end of a job's log."""
    with contextlib.suppress(OSError), (folder / NAME).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
        return file.read().decode(errors="replace")
    return ""

"""What whoever works at a job says beside its results, and how a process of its ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from dtvit_deploy.formats.job.words import clean

NAME = "log"
_END = 2000
"""Bytes of the end of a log that are told."""


def log_of(folder: Path) -> str:
    """The end of a job's log."""
    with contextlib.suppress(OSError), (folder / NAME).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
        return file.read().decode(errors="replace")
    return ""


def last_line(text: str) -> str:
    """The last line of what a process said, where the reason usually is."""
    return clean((text.strip().splitlines() or ["nothing"])[-1])


def how_ended(status: int) -> str:
    """``was ended by SIGSEGV``: a process, by its exit status."""
    if status >= 0:
        return f"that did it ended with status {status}"
    names = {one.value: one.name for one in signal.Signals}
    return f"that did it was ended by {names.get(-status, f'signal {-status}')}: a runtime's native code, want of memory, or somebody"

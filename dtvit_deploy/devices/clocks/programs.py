"""Programs of a device that hold its clocks: asked, waited for, and what they said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from dtvit_deploy.devices.state.tools import program
from dtvit_deploy.formats.job.words import clean

_PATIENCE = 60.0
"""Seconds: a GPU whose driver has to be loaded first takes many."""
_LARGEST = 1 << 16


class Answer(NamedTuple):
    """How a program ended, and what it printed; with no word of its own where it did not end in time.

    Attributes:
        failed: whether its exit status was not 0.
    """

    failed: bool
    said: str

    @property
    def words(self) -> str:
        """Its last line, which says why where something went wrong."""
        return clean((self.said.strip().splitlines() or ["it says nothing"])[-1].strip())[:200]


def path_of(root: Path, name: str) -> str | None:
    """Where a program is; a tree that only stands for a machine has those in its ``usr/bin``."""
    if root == Path("/"):
        return program(name)
    return str(found) if (found := root / "usr/bin" / name).exists() else None


def asked(root: Path, name: str, *words: str) -> Answer:
    """Have a program do something; one that is not there has failed, too."""
    path = path_of(root, name)
    if path is None:
        return Answer(True, f"{name} is not there")
    try:
        done = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,  # one that asks back gets no answer
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(True, f"{name} did not end within {_PATIENCE:.0f} s")
    except OSError as error:
        return Answer(True, f"{name} cannot be started: {error.strerror}")
    return Answer(done.returncode != 0, done.stdout[:_LARGEST].decode(errors="replace").replace("\0", ""))

"""A device's own small programs, asked for what no file tells: those that are there, for a few seconds at most."""

from __future__ import annotations

import os
import shutil
import subprocess

_PLACES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/opt/vc/bin")
"""Where such programs are, though the path of a session over ssh may not say so."""
_PATIENCE = 5.0
_LARGEST = 1 << 16


def program(name: str) -> str | None:
    """Its path; None where the device has no such program."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))


def ended(told: str | None) -> str:
    """What was told, but for a last line that has no end: what was cut there may have been another number."""
    return "" if told is None else told[: told.rfind("\n") + 1]


def said(*command: str, seconds: float = _PATIENCE) -> str | None:
    """What a program says, whatever its exit status; None where it is not there, hangs, or fails without a word."""
    path = program(command[0])
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:_LARGEST].decode(errors="replace").replace("\0", "") or None

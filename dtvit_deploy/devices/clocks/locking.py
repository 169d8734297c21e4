"""Clocks locked for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dtvit_deploy.devices.clocks.guard import LOCKED, give_back_left
from dtvit_deploy.devices.clocks.guard import main as _guard
from dtvit_deploy.errors import MissingError

_GUARD = f"import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {_guard.__module__} import main; main(*sys.argv[1:])"
_PATIENCE = 30.0
AS_SHIPPED = "measure without --lock-clocks: the figure then is of clocks as shipped"


@contextlib.contextmanager
def locked(root: Path = Path("/")) -> Iterator[str]:
    """Hold the clocks of this machine's processor still; what is given is how, in words.

    They are given back at the end of the block, and when this process ends in any way, by a process that outlives it.

    Raises:
        MissingError: they cannot be locked, or were no longer at the end of the block; or could not be given back, and which files say so.
    """
    if os.getpid() == 1:
        raise MissingError(
            "clocks cannot be locked: this is the first process of a container, and whoever gives them back would end with it",
            remedy=f"start it with an init (docker run --init); or {AS_SHIPPED}",
        )
    command = [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else []), "-c", _GUARD, json.dumps(sys.path), str(root)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        assert guard.stdin is not None
        assert guard.stdout is not None
        word, _, more = guard.stdout.readline().rstrip("\n").partition(" ")
        if word != LOCKED:
            remedy = f"run as root where it is files that are refused; or {AS_SHIPPED}"
            raise MissingError(more or "clocks cannot be locked: who locks them ended", remedy=remedy)
        try:
            yield more
        except BaseException:
            if wrong := _released(guard, root):  # said beside what happened, which is what the command ends with
                sys.stderr.write(f"{wrong}\n")
            raise
        if wrong := _released(guard, root):
            raise wrong
    finally:
        with contextlib.suppress(OSError):
            if guard.stdin is not None:
                guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(_PATIENCE)  # never ended: it has something to give back
        if guard.stdout is not None:
            guard.stdout.close()


def _released(guard: subprocess.Popen[str], root: Path) -> MissingError | None:
    """Have the clocks given back; what went wrong with that, or with holding them."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    with contextlib.suppress(OSError):
        guard.stdin.close()
    said = guard.stdout.readline().partition(" ")[2]
    if not said:
        left = give_back_left(root)
        told = f", and could not be given back: {', '.join(left)}" if left else ""
        return MissingError(f"clocks did not stay locked: the process that held them was ended{told}", remedy="measure again")
    found = json.loads(said)
    if found["left"]:
        return MissingError(f"clocks could not be given back: {', '.join(found['left'])}", remedy="write what they were, or restart")
    if found["moved"]:
        return MissingError(f"clocks did not stay locked: {', '.join(found['moved'])} changed meanwhile", remedy="measure again")
    return None

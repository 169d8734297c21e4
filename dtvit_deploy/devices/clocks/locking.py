"""Clocks locked for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
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
    command = [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else []), "-c", _GUARD, json.dumps(sys.path), str(root)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    said = ""
    try:
        assert guard.stdin is not None
        assert guard.stdout is not None
        word, _, more = guard.stdout.readline().rstrip("\n").partition(" ")
        if word != LOCKED:
            remedy = f"run as root where it is files that are refused; or {AS_SHIPPED}"
            raise MissingError(more or "clocks cannot be locked: who locks them ended", remedy=remedy)
        yield more
        guard.stdin.close()
        said = guard.stdout.readline().partition(" ")[2]
    finally:
        with contextlib.suppress(OSError):
            if guard.stdin is not None:
                guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(_PATIENCE)  # never ended: it has something to give back
        if guard.stdout is not None:
            guard.stdout.close()
    if not said:
        give_back_left(root)
        raise MissingError("clocks did not stay locked: the process that held them was ended", remedy="measure again")
    found = json.loads(said)
    if found["left"]:
        raise MissingError(f"clocks could not be given back: {', '.join(found['left'])}", remedy="write what they were, or restart")
    if found["moved"]:
        raise MissingError(f"clocks did not stay locked: {', '.join(found['moved'])} changed meanwhile", remedy="measure again")

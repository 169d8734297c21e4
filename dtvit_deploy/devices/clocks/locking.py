"""Clocks locked for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dtvit_deploy.devices.clocks.guard import LOCKED, PATIENCE, give_back_left, locked_by_another
from dtvit_deploy.devices.clocks.guard import main as _guard
from dtvit_deploy.devices.clocks.setting import AS_SHIPPED
from dtvit_deploy.errors import MissingError

_GUARD = f"import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {_guard.__module__} import main; main(*sys.argv[1:])"
_PATIENCE = 120.0
"""Seconds until nobody waits any more for what is given back; it goes on."""
LOCKED_BY_ANOTHER = "locked by another command"
BY_HAND = (
    "log in as root; or lock them by hand (`sudo jetson_clocks` on a Jetson, `sudo nvidia-smi -lgc MIN,MAX` for an NVIDIA GPU,"
    " `cpupower frequency-set` for a processor) and measure without --lock-clocks"
)


@contextlib.contextmanager
def held(asked: bool) -> Iterator[str]:
    """Clocks of this machine while something is measured: locked within the block where that is asked for, else as they are.

    What is given is how, for the figure's conditions: nothing where they are as shipped. What was left locked is given back first; what
    another holds is a condition, too.

    Raises:
        MissingError: as `locked`.
    """
    give_back_left()
    if not asked:
        yield LOCKED_BY_ANOTHER if locked_by_another() else ""
        return
    with locked() as how:
        yield how


@contextlib.contextmanager
def locked(root: Path = Path("/"), patience: float = PATIENCE) -> Iterator[str]:
    """Hold the clocks of this machine still; what is given is how, in words.

    They are given back at the end of the block, and when this process ends in any way, by a process that outlives it.

    Args:
        root: what stands for the machine's file tree.
        patience: seconds that another one which is about to give back is waited for.

    Raises:
        MissingError: they cannot be locked, or were no longer at the end of the block; or could not be given back, and which files say so.
    """
    if root == Path("/") and os.geteuid() != 0:
        raise MissingError("clocks cannot be locked: root alone may, and this is another user", remedy=BY_HAND)
    if os.getpid() == 1:
        raise MissingError(
            "clocks cannot be locked: this is the first process of a container, and whoever gives them back would end with it",
            remedy=f"start it with an init (docker run --init); or {AS_SHIPPED}",
        )
    command = [sys.executable, "-I", *(["-B"] if sys.dont_write_bytecode else []), "-c", _GUARD, json.dumps(sys.path)]
    command += [str(root), str(patience)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        assert guard.stdin is not None
        assert guard.stdout is not None
        word, _, more = _line(guard, patience).partition(" ")
        if word != LOCKED:
            why, remedy = (
                json.loads(more) if more else (f"clocks cannot be locked: who locks them ended{_told(give_back_left(root))}", None)
            )
            raise MissingError(why, remedy=remedy or AS_SHIPPED)
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
    said = _line(guard, PATIENCE).partition(" ")[2]
    if not said:
        told = _told(give_back_left(root))
        return MissingError(f"clocks did not stay locked: the process that held them was ended{told}", remedy="measure again")
    found = json.loads(said)
    if found["left"]:
        return MissingError(f"clocks could not be given back: {', '.join(found['left'])}", remedy="write what they were, or restart")
    if found["moved"]:
        return MissingError(f"clocks did not stay locked: {', '.join(found['moved'])} changed meanwhile", remedy="measure again")
    return None


def _line(guard: subprocess.Popen[str], patience: float) -> str:
    """Its next line; empty where it ended, or says nothing for longer than it may wait itself."""
    assert guard.stdout is not None
    ready, _, _ = select.select([guard.stdout], [], [], patience + _PATIENCE)
    return guard.stdout.readline().rstrip("\n") if ready else ""


def _told(left: list[str]) -> str:
    return f", and could not be given back: {', '.join(left)}" if left else ""

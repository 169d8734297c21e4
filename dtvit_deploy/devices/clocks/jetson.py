"""A Jetson's clocks, all of which its own program holds: ``jetson_clocks`` sets processor, GPU and memory to the highest that the power
mode allows, ``--store FILE`` keeps what was, ``--restore FILE`` makes it so again, ``--show`` tells.

NVIDIA: Jetson Linux Developer Guide, *Maximizing Jetson Performance*. It says of what it could not restore in words alone, and ends with
status 0, so that it is ``--show`` that is believed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.devices.clocks.programs import asked, path_of
from dtvit_deploy.devices.clocks.setting import AS_SHIPPED, FOLDER
from dtvit_deploy.devices.state.jetson import Clock, clocks, is_one, locked
from dtvit_deploy.errors import MissingError

_PROGRAM = "jetson_clocks"
_STORED = f"{FOLDER}/jetson_clocks.conf"
_LARGEST = 1 << 16
"""Bytes of what it stores: a line for each file that it changes, of which a Jetson has some hundred."""


class Jetson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=_PROGRAM):
    """All clocks of a Jetson.

    Attributes:
        stored: what ``jetson_clocks --store`` wrote.
        before: what ``--show`` told of each clock, but for what moves by itself.
        highest: of each clock, the highest that it may have, in MHz.
    """

    stored: str
    before: dict[str, str]
    highest: dict[str, int]

    @property
    def said(self) -> str:
        """``CPU 2201 MHz, GPU 1300 MHz, EMC 3199 MHz by jetson_clocks``; of several cores or units that differ, each clock once."""
        kinds: dict[str, list[int]] = {}
        for name, clock in self.highest.items():
            kinds.setdefault("CPU" if name.startswith("cpu") else name, []).append(clock)
        told = (f"{kind} {' and '.join(map(str, sorted(set(found))))} MHz" for kind, found in kinds.items())
        return f"{', '.join(told)} by {_PROGRAM}"

    def lock(self, root: Path) -> str:
        """Have ``jetson_clocks`` do it."""
        done = asked(root, _PROGRAM)
        now = asked(root, _PROGRAM, "--show").said
        return "" if not done.failed and locked(now) == "locked" else f"jetson_clocks left them {locked(now) or 'untold'}: {done.words}"

    def moved(self, root: Path) -> list[str]:
        """Clocks that can move, or whose highest is another: of another power mode, say."""
        now = {one.name: one for one in clocks(asked(root, _PROGRAM, "--show").said)}
        return [f"{_PROGRAM}: {name}" for name, most in self.highest.items() if name not in now or not _is_held(now[name], most)]

    def give_back(self, root: Path) -> list[str]:
        """Have ``jetson_clocks`` restore what it stored, and what is not told as it was."""
        stored = root / _STORED
        try:
            stored.write_text(self.stored)
            done = asked(root, _PROGRAM, "--restore", str(stored))
            now = _kept(clocks(asked(root, _PROGRAM, "--show").said))
            left = [name for name, was in self.before.items() if now.get(name) != was]
            stored.unlink()
        except OSError as error:
            return [f"{_PROGRAM} (/{_STORED}: {error.strerror})"]
        return [f"{_PROGRAM}: {name} ({done.words})" for name in left]


def jetsons(root: Path) -> list[Jetson]:
    """A Jetson's clocks, as they are now; none where this is no Jetson.

    Raises:
        MissingError: its program is not there, or does not tell or keep them.
    """
    if not is_one(root):
        return []
    if path_of(root, _PROGRAM) is None:
        raise MissingError(
            "clocks cannot be locked: this is a Jetson, and jetson_clocks is not there, as in a container",
            remedy=f"run it outside of the container, or lock them there (`sudo jetson_clocks`) and {AS_SHIPPED}",
        )
    shown = asked(root, _PROGRAM, "--show")
    found = clocks(shown.said)
    if not locked(shown.said):
        raise MissingError(f"clocks cannot be locked: jetson_clocks does not tell them: {shown.words}", remedy=AS_SHIPPED)
    stored = root / _STORED
    try:
        stored.unlink(missing_ok=True)  # it asks before it writes over a file
        done = asked(root, _PROGRAM, "--store", str(stored))
        with stored.open() as file:
            said = file.read(_LARGEST + 1)
        stored.unlink()
    except (OSError, ValueError):
        said = ""
    if not said or len(said) > _LARGEST:
        raise MissingError(f"clocks cannot be locked: jetson_clocks does not store what they are: {done.words}", remedy=AS_SHIPPED)
    return [Jetson(stored=said, before=_kept(found), highest={one.name: one.highest for one in found})]


def _kept(found: list[Clock]) -> dict[str, str]:
    return {one.name: one.set for one in found}


def _is_held(one: Clock, highest: int) -> bool:
    return one.is_fixed and one.highest == highest

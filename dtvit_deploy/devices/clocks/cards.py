"""NVIDIA GPUs of a PC, by ``nvidia-smi``: ``-lgc MIN,MAX`` holds a GPU between two clocks, ``-rgc`` gives its own back.

NVIDIA: ``nvidia-smi(1)``, ``nvidia-smi --help-query-gpu``, and in the *NVML API Reference* ``nvmlDeviceSetGpuLockedClocks`` (for Volta and
later; gone with the driver). The driver of a GPU that nobody uses is unloaded, and the clocks that it was locked to with it, unless
persistence mode is on: that is turned on, too. What somebody else had locked a GPU to nothing tells, and ``-rgc`` takes that away.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtvit_deploy.devices.clocks.programs import asked

_PROGRAM = "nvidia-smi"
_FORM = "--format=csv,noheader,nounits"
_FIELDS = ("index", "uuid", "persistence_mode", "clocks.default_applications.gr", "clocks.max.gr")
_CAPABILITY = "compute_cap"
"""Which drivers before R510 do not know, and refuse a query for."""
_FIRST = 7.0
"""Compute capability of Volta."""
_STEP = 15
"""MHz from one clock of a GPU to the next, at most: it takes the nearest of its own to what it is asked for."""
_MOST = 16


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=_PROGRAM):
    """One GPU.

    Attributes:
        index: by which people know it.
        uuid: by which it is known whatever is plugged in beside it.
        clock: MHz that it is held at: those that its applications have by default, which need no luck; where it has none, its highest.
        persistent: whether its persistence mode was on.
    """

    index: int
    uuid: str
    clock: int
    persistent: bool

    @property
    def said(self) -> str:
        """``GPU 0 1410 MHz``."""
        return f"GPU {self.index} {self.clock} MHz"

    def lock(self, root: Path) -> str:
        """Have the driver stay, then hold the clock."""
        for words in (*(() if self.persistent else (("-pm", "1"),)), ("-lgc", f"{self.clock},{self.clock}")):
            done = asked(root, _PROGRAM, "-i", self.uuid, *words)
            if done.failed or "not supported" in done.said.lower():
                return f"nvidia-smi {' '.join(words)} for GPU {self.index}: {done.words}"
        return "; ".join(self.moved(root))

    def moved(self, root: Path) -> list[str]:
        """Whether its driver may have gone meanwhile, or it is faster than it was locked to.

        A slower one is idle, or held back, which the state beside a latency tells.
        """
        persistent, clock = self._now(root)
        if not persistent or clock is None:
            return [f"GPU {self.index}: {'its persistence mode' if clock is not None else 'its clock'}"]
        return [f"GPU {self.index}: its clock ({clock} MHz)"] if clock > self.clock + _STEP else []

    def give_back(self, root: Path) -> list[str]:
        """Its own clocks, and its persistence mode as it was."""
        left = []
        for words in (("-rgc",), *(() if self.persistent else (("-pm", "0"),))):
            done = asked(root, _PROGRAM, "-i", self.uuid, *words)
            if done.failed:
                left.append(f"GPU {self.index} (nvidia-smi {' '.join(words)}: {done.words})")
        if not left and self._now(root)[0] is not self.persistent:
            left.append(f"GPU {self.index} (its persistence mode)")
        return left

    def _now(self, root: Path) -> tuple[bool | None, int | None]:
        told = asked(root, _PROGRAM, "-i", self.uuid, "--query-gpu=persistence_mode,clocks.gr", _FORM)
        persistence, _, clock = told.said.strip().partition(", ")
        return {"Enabled": True, "Disabled": False}.get(persistence), _megahertz(clock)


class Cards(NamedTuple):
    """GPUs of a machine: those that can be locked, and what is said of the others."""

    cards: tuple[Card, ...] = ()
    others: tuple[str, ...] = ()


def cards(root: Path) -> Cards:
    """The GPUs, as they are now; none without a driver. One from before Volta, or that tells no clock, stays as it is, and is named."""
    told = asked(root, _PROGRAM, f"--query-gpu={','.join((*_FIELDS, _CAPABILITY))}", _FORM)
    if told.failed:
        told = asked(root, _PROGRAM, f"--query-gpu={','.join(_FIELDS)}", _FORM)
    found, others = [], []
    for line in [] if told.failed else told.said.splitlines()[:_MOST]:
        index, uuid, persistence, *clocks = (*line.split(", "), *[""] * len(_FIELDS))[: len(_FIELDS) + 1]
        if not re.fullmatch(r"\d{1,2}", index, re.ASCII):
            continue  # a warning of the driver's
        clock = next((value for each in clocks[:2] if (value := _megahertz(each)) is not None), None)
        able = not re.fullmatch(r"\d{1,2}\.\d", clocks[2], re.ASCII) or float(clocks[2]) >= _FIRST
        known = re.fullmatch(r"GPU-[0-9a-fA-F-]{36}", uuid, re.ASCII) and persistence in ("Enabled", "Disabled")
        if able and known and clock is not None:
            found.append(Card(index=int(index), uuid=uuid, clock=clock, persistent=persistence == "Enabled"))
        else:
            others.append(f"GPU {int(index)} as shipped")
    return Cards(tuple(found), tuple(others))


def _megahertz(said: str) -> int | None:
    return int(said) if re.fullmatch(r"[1-9]\d{1,3}", said, re.ASCII) else None

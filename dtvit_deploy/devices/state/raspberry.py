"""What a Raspberry Pi says of its power supply and its own limits (Raspberry Pi documentation, *vcgencmd*: ``get_throttled``).

Bits 0 to 3 are how it is now; bits 16 to 19 say that it was so once since it started, so that what came and went between two readings
is seen as a rise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import source, text
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.devices.state.tools import ended, program, said
from dtvit_deploy.harness.state.record import Channel

BITS = {0: "under-voltage", 1: "ARM clock capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE = 16
_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_TOOL = "vcgencmd get_throttled"
_EVERY = 2.0
"""Seconds between two calls of the tool, which is a process each time."""


def sources(root: Path) -> list[Source]:
    """A flag and a count for each of the bits, by the kernel's file where there is one, else by the tool."""
    file = root / _FILE
    if digits(text(file)) is not None:
        return [Source(_channels(source(root, file)), _reader(lambda: digits(text(file))))]
    if "raspberry pi" in (text(root / "proc/device-tree/model") or "").lower() and program("vcgencmd"):
        return [Source(_channels(_TOOL), _reader(lambda: bits(said("vcgencmd", "get_throttled"))), every=_EVERY)]
    return []


def bits(told: str | None) -> int | None:
    """The bits in ``throttled=0x50005``."""
    return digits(match[1]) if (match := re.fullmatch(r"throttled=0x(\S+)\n", ended(told))) else None


def digits(said: str | None) -> int | None:
    """The same bits as the kernel's file has them, in hexadecimal digits alone."""
    return int(said, 16) if said is not None and re.fullmatch(r"[0-9a-f]{1,8}", said, re.ASCII) else None


def _channels(where: str) -> tuple[Channel, ...]:
    now = [Channel(name=f"{name} now", kind="flag", source=where, harm=True) for name in BITS.values()]
    since = [Channel(name=f"{name} since it started", kind="events", source=where, harm=True) for name in BITS.values()]
    return (*now, *since)


def _reader(told: Callable[[], int | None]) -> Callable[[], list[float | None]]:
    def read() -> list[float | None]:
        found = told()
        places = [*BITS, *(bit + _SINCE for bit in BITS)]
        return [None if found is None else float(found >> place & 1) for place in places]

    return read

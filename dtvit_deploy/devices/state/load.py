"""What others do on this machine while it measures, and what it is allowed.

Kernel: Documentation/accounting/psi.rst, Documentation/filesystems/proc.rst (``/proc/stat``), Documentation/admin-guide/cgroup-v2.rst and
cgroup-v1 (``cpu.stat``, ``memory.limit_in_bytes``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import text, whole
from dtvit_deploy.devices.state.source import Source, single

_RESOURCES = {"cpu": "a processor", "memory": "memory", "io": "a disk"}
_NO_LIMIT = 1 << 60
"""Bytes: cgroup v1 says a little less than 2⁶³ where there is no limit."""
STOLEN, WAITED = 0.01, 0.10
"""Shares of the time of sampling from which on a figure has to say that others had this machine's processors, or that something waited."""


def sources(root: Path) -> list[Source]:
    """Time that programs waited, time that the machine below took, and times that a control group was stopped."""
    found = []
    for resource, what in _RESOURCES.items():
        file = root / "proc/pressure" / resource
        if pressure(text(file)) is not None:
            found.append(single(f"time that programs waited for {what}", "seconds", (root, file), _reader(file, pressure), limit=WAITED))
    file = root / "proc/stat"
    if stolen(text(file)) is not None:
        found.append(single("time that the machine below took (steal)", "seconds", (root, file), _reader(file, stolen), limit=STOLEN))
    groups = [file for file in _groups(root, "cpu", "cpu.stat") if stops(text(file)) is not None]
    return found + [single("times that its control group was stopped", "events", (root, file), _reader(file, stops)) for file in groups]


def facts(root: Path) -> dict[str, str]:
    """The memory that control groups allow, where it is bounded."""
    limits = [
        limit
        for name in ("memory.max", "memory.limit_in_bytes")
        for file in _groups(root, "memory", name)
        if (limit := memory_limit(text(file))) is not None
    ]
    return {"memory limit": f"{min(limits) / 2**20:,.0f} MiB, by its control group"} if limits else {}


def pressure(said: str | None) -> float | None:
    """Seconds since the start in which some program waited: ``total`` of the line ``some``, which is in µs."""
    match = re.search(r"^some avg10=[\d.]+ avg60=[\d.]+ avg300=[\d.]+ total=(\d{1,18})$", said or "", re.MULTILINE | re.ASCII)
    return int(match[1]) / 1e6 if match else None


def stolen(said: str | None, ticks: int | None = None) -> float | None:
    """Seconds that the machine below this one took from it, of all processors together: the eighth figure of the line ``cpu``."""
    match = re.match(r"cpu((?: +\d{1,18}){8,10})$", (said or "").partition("\n")[0], re.ASCII)
    return int(match[1].split()[7]) / (ticks or os.sysconf("SC_CLK_TCK")) if match else None


def stops(said: str | None) -> float | None:
    """Periods in which a control group had used what it may."""
    match = re.search(r"^nr_throttled (\d{1,18})$", said or "", re.MULTILINE | re.ASCII)
    return float(match[1]) if match else None


def memory_limit(said: str | None) -> int | None:
    """Bytes; None where nothing bounds it (``max``)."""
    value = whole(said)
    return value if value is not None and 0 < value < _NO_LIMIT else None


def _groups(root: Path, controller: str, name: str) -> list[Path]:
    """A file of the control groups around this process, the innermost first; where a container sees its own group as the root, there."""
    found = []
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and (not parts[1] or controller in parts[1].split(",")):
            mount = root / "sys/fs/cgroup" / (controller if parts[1] else "")
            place = [part for part in parts[2].split("/") if part not in ("", "..")]
            found += [mount.joinpath(*place[:count], name) for count in range(len(place), -1, -1)]
    found += [root / "sys/fs/cgroup" / name, root / "sys/fs/cgroup" / controller / name]
    return [file for file in dict.fromkeys(found) if file.is_file()]


def _reader(file: Path, read: Callable[[str | None], float | None]) -> Callable[[], float | None]:
    return lambda: read(text(file))

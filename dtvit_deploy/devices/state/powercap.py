"""Energy counters of x86 processors (RAPL; kernel: Documentation/power/powercap/powercap.rst). AMD's have Intel's name there.

Since Linux 5.10 root alone may read them (CVE-2020-8694): what cannot be read is no rail, and a fact says why.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import between, folders, number, source, text
from dtvit_deploy.devices.state.source import Source, single
from dtvit_deploy.harness.state.record import LARGEST

_ZONES = "sys/class/powercap/intel-rapl:*"


def sources(root: Path) -> list[Source]:
    """Zones that can be read: packages, their parts, and the platform where firmware counts it (``psys``)."""
    found = []
    for folder in folders(root, _ZONES):
        file = folder / "energy_uj"
        if microjoules(text(file)) is None:
            continue
        largest = number(folder / "max_energy_range_uj")
        limit = between(largest, 1, LARGEST)
        found.append(single(rail(folder, text), "energy", (root, file), _reader(file), limit=limit))
    return found


def facts(root: Path) -> dict[str, str]:
    """Counters that are there and may not be read."""
    closed = [folder for folder in folders(root, _ZONES) if (folder / "energy_uj").exists() and text(folder / "energy_uj") is None]
    if not closed:
        return {}
    return {"energy counters": f"{source(root, closed[0] / 'energy_uj')} and others may be read by root alone, so that energy is unknown"}


def microjoules(said: str | None) -> int | None:
    """Of the counter, in µJ."""
    return int(said) if said is not None and said.isascii() and said.isdigit() and len(said) < 18 else None


def rail(folder: Path, read: Callable[[Path], str | None]) -> str:
    """``package-0``; ``package-0 dram`` of a part."""
    name = read(folder / "name") or folder.name
    above = folder.name.rpartition(":")[0]
    if ":" not in above:
        return name
    return f"{read(folder.with_name(above) / 'name') or above} {name}"


def _reader(file: Path) -> Callable[[], float | None]:
    return lambda: microjoules(text(file))

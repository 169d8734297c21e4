"""What machines can do, this one and devices: measured once for each, a number of threads and the runtimes' versions, and kept here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.devices.files import text
from dtvit_deploy.devices.local import quota, state
from dtvit_deploy.harness.roofline import Peaks
from dtvit_deploy.pipeline.progress import Progress
from dtvit_deploy.pipeline.stages import versions
from dtvit_deploy.runtimes import peaks
from dtvit_deploy.runtimes.base import Elsewhere

FILE = "peaks.json"
_MACHINE = ("processor", "architecture", "cores", "governor", "memory")
_PROFILE, _SUPPLIES = Path("/sys/firmware/acpi/platform_profile"), Path("/sys/class/power_supply")


def peaks_here(threads: int, clocks: str, cache: Cache, progress: Progress) -> Peaks:
    """What this machine can do: measured now, or when it was asked for the first time.

    Args:
        threads: of every product and copy.
        clocks: how they are locked; empty as shipped.
        cache: where peaks are kept.
        progress: told that they are measured.

    Raises:
        InputError: the cache cannot be written.
    """
    about = state()
    key = {
        "machine": {name: about.get(name, "") for name in _MACHINE} | {"quota": quota(), "profile": text(_PROFILE), "mains": _mains()},
        "threads": threads,
        "clocks": clocks,
        "tools": versions("onnxruntime", "openvino", "numpy"),
        "source": source_digest(peaks.__name__),
    }

    return _kept(cache, key, lambda: peaks.measured(threads), f"measuring what this machine can do with {_with(threads)}, once", progress)


def peaks_there(device: str, runtime: Elsewhere, threads: int, cache: Cache, progress: Progress) -> Peaks:
    """What a device can do: measured there now, or when it was asked for the first time, as long as it is what it was.

    Args:
        device: its name, for messages.
        runtime: one of those that have answered there.
        threads, cache, progress: as in `peaks_here`.

    Raises:
        InputError: it cannot be measured there, or what comes back is none; or the cache cannot be written.
        MissingError: the device lacks what is needed, or cannot be reached.
    """
    if not runtime.kept_as:
        return runtime.peaks(threads)
    key = {"device": runtime.kept_as, "threads": threads, "source": source_digest(peaks.__name__)}
    said = f"{device}: measuring what it can do with {_with(threads)}, once"
    return _kept(cache, key, lambda: runtime.peaks(threads), said, progress)


class _DisturbedError(Exception):
    """Peaks of a machine that had something else to do: they are told, and not kept."""

    def __init__(self, found: Peaks) -> None:
        super().__init__()
        self.found = found


def _kept(cache: Cache, key: object, measure: Callable[[], Peaks], said: str, progress: Progress) -> Peaks:
    def take(folder: Path) -> None:
        progress.step(said)
        found = measure()
        if found.disturbed:
            raise _DisturbedError(found)
        (folder / FILE).write_bytes(msgspec.json.encode(found))

    try:
        return msgspec.json.decode((cache.entry("peaks", key, take) / FILE).read_bytes(), type=Peaks)
    except _DisturbedError as told:
        return told.found


def _with(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def _mains() -> list[str | None]:
    """Which supplies are connected: on its battery, a laptop has other peaks."""
    return [text(one) for one in sorted(_SUPPLIES.glob("*/online"))]

"""A cold start, as a process that does nothing else sees it: load time, first inference, peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dtvit_deploy.artifacts.artifact import Manifest
from dtvit_deploy.formats.mlpackage.options import image_input_of
from dtvit_deploy.runtimes.trial import expendable

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds
    from dtvit_deploy.runtimes.base import Session


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """Cold figures.

    Attributes:
        load_ms: from the file to a session, the import of the runtime not counted.
        first_ms: the first inference, on zeros, or on black where pictures are taken.
        peak_mib: greatest resident memory of the process, the interpreter and the runtime's code included.
    """

    load_ms: float
    first_ms: float
    peak_mib: float | None


def cold_start(manifest: Manifest, load: Callable[[], Session]) -> Cold:
    """Load an artefact and run it once.

    Args:
        manifest: of the artefact.
        load: opens its session, with whatever was imported before.
    """
    feeds = still_feeds(manifest)
    started = time.perf_counter()
    with expendable(), load() as session:
        loaded = time.perf_counter()
        session.run(feeds)
        ended = time.perf_counter()
    return Cold(load_ms=(loaded - started) * 1e3, first_ms=(ended - loaded) * 1e3, peak_mib=peak_memory_mib())


def still_feeds(manifest: Manifest) -> Feeds:
    """Zeros for every input, black where it takes pictures: for whoever has nothing to feed, and asks for no answer."""
    import numpy as np

    feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in manifest.signature.inputs}
    image = image_input_of(manifest)
    return feeds | {spec.name: image.black(spec.shape) for spec in manifest.signature.inputs if image and spec.name == image.name}


def peak_memory_mib() -> float | None:
    """Greatest resident memory of this process so far, framework and all, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage on Linux: a process started by a larger one inherits that one's peak there.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)

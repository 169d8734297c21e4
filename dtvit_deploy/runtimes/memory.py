"""Greatest resident memory of this process, as the system has it."""

from __future__ import annotations

import sys
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_PEAK = "5"
"""What has Linux forget the greatest resident memory (proc(5))."""


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


def forget_peak() -> bool:
    """Begin to look for the greatest anew, where the system can; False where it goes on from before."""
    try:
        _CLEAR.write_text(_PEAK)
    except OSError:  # not Linux, or a container whose /proc may not be written
        return False
    return True

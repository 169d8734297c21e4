"""This machine: what a figure that was measured on it must say about it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def cores() -> int:
    """Processors that this process may use; fewer than the machine has inside a container or under taskset."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def state() -> dict[str, str]:
    """Processor, cores, memory, operating system, clock governor and load, as far as the machine tells."""
    found = {
        "device": "local",
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": str(cores()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if memory := _first(Path("/proc/meminfo"), r"MemTotal:\s+(\d+) kB"):
        found["memory"] = f"{int(memory) / 2**20:.0f} GiB"
    if governor := _first(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), r"(\w+)"):
        found["governor"] = governor
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.2f} over one minute"
    return found


def _processor() -> str:
    return _first(Path("/proc/cpuinfo"), r"model name\s+:\s+(.+)") or platform.processor() or "unknown"


def _first(path: Path, pattern: str) -> str | None:
    try:
        match = re.search(pattern, path.read_text(errors="replace"))
    except OSError:
        return None
    return match[1].strip() if match else None

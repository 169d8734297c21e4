"""This machine: what a figure that was measured on it must say about it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from dtvit_deploy.devices.files import text

BUSY = 0.5
"""Load for each core, from which on other work shows."""


def cores() -> int:
    """Processors that this process may use; fewer than the machine has inside a container or under taskset."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the control groups around this process give it: a container's limit; None where there is none."""
    mounts = {"": root / "sys/fs/cgroup", "cpu": root / "sys/fs/cgroup/cpu"}
    groups = set(mounts.values())  # where a container sees its own group as the root
    for line in _lines(root / "proc/self/cgroup"):
        if line.count(":") < 2:
            continue
        _, controllers, place = line.split(":", 2)
        # Version 2 has one hierarchy, without a name; version 1 one for each controller. Every group on the way there bounds what is below.
        if mount := mounts.get("cpu" if "cpu" in controllers.split(",") else controllers):
            parts = place.strip("/").split("/")
            groups |= {mount.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)}
    return min((share for group in groups for share in _share(group)), default=None)


def _share(folder: Path) -> list[float]:
    """The bound that one group sets, in cores; empty where it sets none."""
    amounts = " ".join(_lines(folder / "cpu.max") or [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")])
    match = re.fullmatch(r"(\d+) ([1-9]\d*)", amounts)  # "max 100000" and "-1 100000" are no bound
    return [int(match[1]) / int(match[2])] if match else []


def most_threads() -> int:
    """More than anybody has a use for here; runtimes end the process where the system refuses them a thread."""
    return max(256, 16 * cores())


def crowded(threads: int, root: Path = Path("/")) -> str:
    """Why so many threads would wait for each other here; empty where each has a core, and for one, which is the least.

    A thread of a runtime that waits for another does so actively: with more threads than free cores each takes what the others need.
    """
    if threads == 1:
        return ""
    usable, bound = cores(), quota(root)
    allowed = usable if bound is None else min(usable, bound)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    costs = "those without a core hold up the others, which makes it slower"
    if threads > allowed:
        who = "the container gets" if bound is not None and bound < usable else "this process may use"
        return f"{threads} threads, and {who} {allowed:.3g} core{'s' * (allowed != 1)}: {costs}"
    if threads > allowed - load + BUSY:
        return f"{threads} threads, and other work takes {load:.1f} of {allowed:.3g} cores: {costs}"
    return ""


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


def _lines(path: Path) -> list[str]:
    return (text(path) or "").splitlines()


def _first(path: Path, pattern: str) -> str | None:
    match = re.search(pattern, text(path) or "")
    return match[1].strip() if match else None

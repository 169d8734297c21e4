"""What this machine is, as ``doctor`` tells it: its accelerators, the cache on it, and what would spoil a latency that is measured now."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.devices import local
from dtvit_deploy.devices.state import everything
from dtvit_deploy.formats.engine import gpu


def facts() -> dict[str, str]:
    """The machine's facts, each as text for a table."""
    state = local.state()
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        **state,
        "accelerator": _gpus() or accelerator(),
        "threads": f"1 in every measurement, unless --threads says otherwise{f'; OMP_NUM_THREADS is {threads}' if threads else ''}",
        "cache": _cache(),
        "watched": everything.told(),
        "measuring": "; ".join(disturbances(state)) or "nothing seen that would spoil a latency",
    }


def _gpus() -> str:
    """The GPUs that NVIDIA's driver gives to a process here, and the versions around it; empty where it gives none."""
    device = gpu.gpus()
    if not device.found:
        return ""
    each = (f"{one.name} (compute capability {one.capability}, {one.memory / 2**30:.1f} GiB)" for one in device.found)
    around = (f"driver {gpu.driver_version()}".removesuffix("driver "), f"CUDA up to {device.cuda}", gpu.jetpack())
    return "; ".join((", ".join(each), *filter(None, around)))


def accelerator(root: Path = Path("/")) -> str:
    """What is seen of GPUs without any driver's library: a process may not be given what is there, and then nothing runs on it."""
    if platform.system() == "Darwin":
        return "Apple GPU and Neural Engine" if platform.machine() == "arm64" else "none that Core ML needs"
    models = [_text(file) for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    if models:
        return ", ".join(match[1].strip() if (match := re.search(r"Model:\s*(.+)", text)) else "NVIDIA GPU" for text in models)
    board = gpu.board(root)
    if "jetson" in board.lower():
        return board
    devices = [device.name for device in sorted((root / "dev").glob("nvidia[0-9]*"))]
    if devices:
        return f"NVIDIA, as {', '.join(devices)}"
    return "none seen, although nvidia-smi is installed" if shutil.which("nvidia-smi") else "none seen"


def _cache() -> str:
    cache = Cache.default()
    try:
        place = next(folder for folder in (cache.root, *cache.root.parents) if folder.exists())
        return f"{cache.root}, {cache.size() / 1e6:,.0f} MB; {shutil.disk_usage(place).free / 1e9:,.1f} GB are free there"
    except OSError as error:
        return f"{cache.root} cannot be read: {error.strerror}"


def disturbances(state: dict[str, str], root: Path = Path("/")) -> list[str]:
    """What is known to make latencies wander, and is the case now."""
    cores = local.cores()
    found = []
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > local.BUSY * cores:
        found.append(f"a load of {load:.1f} on {cores} cores: other work will show in latencies")
    if (governor := state.get("governor", "performance")) != "performance":
        found.append(f"the clock governor is {governor}, not performance")
    quota = local.quota(root)
    if quota is not None and quota < cores:
        found.append(f"this container gets {quota:.1f} of {cores} cores, and is stopped when it has used them")
    if re.search(r"^flags\s*:.*\bhypervisor\b", _text(root / "proc/cpuinfo"), re.MULTILINE):
        found.append("a virtual machine: its neighbours may show in latencies")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

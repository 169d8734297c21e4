"""What a device says of itself beside its figures: before a task, and after it."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.devices import local


def state(root: Path = Path("/")) -> dict[str, str]:
    """Board, processor, cores, memory, system, clock governor, load, temperature and clock, as far as it tells.

    Which device it is, says who asked it.
    """
    found = {name: value for name, value in local.state().items() if name != "device"}
    if model := _text(root / "proc/device-tree/model"):
        found["model"] = model
    degrees = [value / 1000 for zone in root.glob("sys/class/thermal/thermal_zone*/temp") if -50_000 < (value := _number(zone)) < 200_000]
    if degrees:
        found["temperature"] = f"{max(degrees):.1f} °C at the hottest of {len(degrees)} sensors"
    clocks = [
        value / 1000 for core in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq") if (value := _number(core)) > 0
    ]
    if clocks:
        found["clock"] = f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> float:
    """Of a sensor, in thousandths of its unit; one that does not answer is out of every range."""
    try:
        return float(_text(path))
    except ValueError:
        return float("nan")

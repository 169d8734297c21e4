"""What a device says of itself beside its figures: before a task, and after it."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

from dtvit_deploy.devices import local
from dtvit_deploy.devices.half import half_arithmetic
from dtvit_deploy.formats.job.words import HALF

_PI = {1 << 0: "under-voltage", 1 << 1: "its clock is capped", 1 << 2: "throttled", 1 << 3: "at its soft limit of temperature"}
"""Bits of what a Raspberry Pi's firmware tells of this moment (`vcgencmd get_throttled`)."""
_SLOWS = re.compile(r"cpu|gpu|processor|throttle", re.IGNORECASE)
"""Of Linux's cooling devices, those that slow something down; fans are others."""
_BRIEFLY = 5.0


def state(root: Path = Path("/")) -> dict[str, str]:
    """Board, processor, cores, memory, system, power mode, clock governor, load, temperature, clock and throttling, as far as it tells.

    Which device it is, says who asked it.
    """
    found = {name: value for name, value in local.state().items() if name != "device"}
    if model := _text(root / "proc/device-tree/model"):
        found["model"] = model
    if (half := half_arithmetic()) is not None:
        found[HALF] = "yes" if half else "no"
    if mode := _power_mode(root):
        found["power mode"] = mode
    degrees = [value / 1000 for zone in root.glob("sys/class/thermal/thermal_zone*/temp") if -50_000 < (value := _number(zone)) < 200_000]
    if degrees:
        found["temperature"] = f"{max(degrees):.1f} °C at the hottest of {len(degrees)} sensors"
    clocks = [
        value / 1000 for core in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq") if (value := _number(core)) > 0
    ]
    if clocks:
        found["clock"] = f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    return found | _throttling(root)


def _throttling(root: Path) -> dict[str, str]:
    """Whether it is slowed down now, and how often it was since it started; nothing where nothing would tell."""
    found: dict[str, str] = {}
    slowing = [folder for folder in sorted(root.glob("sys/class/thermal/cooling_device*")) if _SLOWS.search(_text(folder / "type"))]
    said = [
        f"{_text(folder / 'type')} at {now:.0f} of {_number(folder / 'max_state'):.0f}"
        for folder in slowing
        if (now := _number(folder / "cur_state")) > 0
    ]
    firmware = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if firmware:
        with contextlib.suppress(ValueError):
            said += [told for bit, told in _PI.items() if int(firmware, 16) & bit]
    if slowing or firmware:
        found["throttled"] = "; ".join(said) or "no"
    # Intel counts heat, a Jetson over-current.
    patterns = ("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count", "sys/class/hwmon/hwmon*/oc*_event_cnt")
    counts = [value for pattern in patterns for file in root.glob(pattern) if (value := _number(file)) >= 0]
    if counts:
        found["throttle events"] = f"{sum(counts):.0f} since it started"
    return found


def _power_mode(root: Path) -> str:
    """What a Jetson's own tool says, or the profile that the firmware of a PC was set to."""
    if (tool := shutil.which("nvpmodel")) is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [tool, "-q"], capture_output=True, text=True, errors="replace", timeout=_BRIEFLY, check=False, stdin=subprocess.DEVNULL
            )
            if match := re.search(r"^NV Power Mode:\s*(.+)$", done.stdout, re.MULTILINE):
                return match[1].strip()
    return _text(root / "sys/firmware/acpi/platform_profile")


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

"""Clocks of the processor, who chooses them, and between which bounds.

Kernel: Documentation/admin-guide/pm/cpufreq.rst, intel_pstate.rst and amd-pstate.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dtvit_deploy.devices.files import between, folders, number, scaled, text
from dtvit_deploy.devices.state.source import Source, single

_CPU = "sys/devices/system/cpu"
_HIGHEST = 20_000.0
"""MHz of no processor."""


def megahertz(kilohertz: int | None) -> float | None:
    """Of what the kernel tells in kHz; 0 is no clock."""
    return between(scaled(kilohertz, 1e-3), 1.0, _HIGHEST)


def sources(root: Path) -> list[Source]:
    """The highest clock among cores of a kind; kinds are told apart by the highest that they can have.

    Cores that idle go down by themselves, and whoever works has the highest; the smaller cores beside may have another one.
    """
    kinds: dict[float | None, list[Path]] = {}
    for folder in _policies(root):
        kinds.setdefault(megahertz(number(folder / "cpuinfo_max_freq")), []).append(folder / "scaling_cur_freq")
    found = []
    for most, files in kinds.items():
        if not any(megahertz(number(file)) for file in files):
            continue
        upto = "" if most is None else f" up to {most:.0f} MHz"
        name = f"CPU clock{upto}" + (f", highest of {len(files)} policies" if len(files) > 1 else "")
        found.append(single(name, "clock", (root, files[0]), _highest(files)))
    return found


def _highest(files: list[Path]) -> Callable[[], float | None]:
    return lambda: max((clock for file in files if (clock := megahertz(number(file))) is not None), default=None)


def facts(root: Path) -> dict[str, str]:
    """Governor, driver, clocks and their bounds, turbo."""
    policies = _policies(root)
    found = {
        "governor": _each(policies, "scaling_governor"),
        "clock driver": _each(policies, "scaling_driver"),
        "energy preference": _each(policies, "energy_performance_preference"),
        "turbo": turbo(text(root / _CPU / "intel_pstate/no_turbo"), text(root / _CPU / "cpufreq/boost")),
    }
    bounds = [
        (low, high)
        for folder in policies
        if (low := megahertz(number(folder / "scaling_min_freq"))) is not None
        and (high := megahertz(number(folder / "scaling_max_freq"))) is not None
    ]
    clocks = [clock for folder in policies if (clock := megahertz(number(folder / "scaling_cur_freq"))) is not None]
    if clocks:
        found["clock"] = f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    if bounds:
        found["clock bounds"] = f"{min(low for low, _ in bounds):.0f} to {max(high for _, high in bounds):.0f} MHz"
    return {name: value for name, value in found.items() if value}


def turbo(no_turbo: str | None, boost: str | None) -> str:
    """``on`` or ``off``; empty where neither of the kernel's files says: Intel's says when it is off, the others' when it is on."""
    return {"0": "on", "1": "off"}.get(no_turbo or "") or {"0": "off", "1": "on"}.get(boost or "", "")


def _policies(root: Path) -> list[Path]:
    return folders(root, f"{_CPU}/cpufreq/policy[0-9]*") or folders(root, f"{_CPU}/cpu[0-9]*/cpufreq")


def _each(policies: list[Path], name: str) -> str:
    return ", ".join(sorted({said for folder in policies if (said := text(folder / name))}))

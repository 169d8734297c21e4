"""What holds the clocks of a processor still: no turbo, the governor ``performance``, and one clock as the lowest and the highest.

Kernel: Documentation/admin-guide/pm/cpufreq.rst and intel_pstate.rst. A governor alone holds nothing: turbo still comes and
goes with heat.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dtvit_deploy.devices.files import folders, number, text
from dtvit_deploy.errors import MissingError

_CPU = "sys/devices/system/cpu"
_TURBO = ((f"{_CPU}/intel_pstate/no_turbo", "1"), (f"{_CPU}/cpufreq/boost", "0"))
_REMEDY = "measure without --lock-clocks: the figure then says that clocks were as shipped"


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the kernel.

    Attributes:
        path: below the root of the device's tree.
        before: what it said.
        locked: what it is to say.
    """

    path: str
    before: str
    locked: str


def wanted(root: Path) -> list[Setting]:
    """What has to be written, in this order, with what there was before.

    Raises:
        MissingError: this machine has no clocks that can be set, or does not let us.
    """
    policies = folders(root, f"{_CPU}/cpufreq/policy[0-9]*")
    if not policies:
        raise MissingError(
            "clocks cannot be locked: there is no policy in /sys/devices/system/cpu/cpufreq, as in most virtual machines and containers",
            remedy=_REMEDY,
        )
    asked = [(root / path, value) for path, value in _TURBO if (root / path).exists()]
    for policy in policies:
        asked += _of_policy(root, policy)
    found = []
    for path, value in asked:
        before = text(path)
        if before is None:
            raise MissingError(f"clocks cannot be locked: /{path.relative_to(root)} cannot be read", remedy=_REMEDY)
        found.append(Setting(path=str(path.relative_to(root)), before=before, locked=value))
    return found


def how(settings: list[Setting]) -> str:
    """What was done, in words: ``locked at 2400 MHz, no turbo``."""
    clocks = sorted({int(one.locked) // 1000 for one in settings if one.path.endswith("scaling_max_freq")})
    turbo = ", no turbo" * any(one.path.endswith(("no_turbo", "boost")) for one in settings)
    return f"locked at {' and '.join(f'{clock} MHz' for clock in clocks)}{turbo}"


def put(root: Path, path: str, value: str) -> bool:
    """Write one, and whether it says so now."""
    try:
        (root / path).write_text(value)
    except OSError:
        return False
    return text(root / path) == value


def given_back(root: Path, settings: list[Setting]) -> list[str]:
    """Write what there was, and the files that do not say so now.

    Turbo first, since without it a kernel does not take its clocks as a highest one; then the lowest, the highest, the governor.
    """
    turbo = [one for one in settings if one.path.endswith(("no_turbo", "boost"))]
    others = [one for one in reversed(settings) if one not in turbo]
    for _ in range(2):  # a lowest clock above the highest of now is taken only when that has been written
        left = [one for one in (*turbo, *others) if text(root / one.path) != one.before]
        for one in left:
            put(root, one.path, one.before)
    return [f"/{one.path}" for one in left if text(root / one.path) != one.before]


def _of_policy(root: Path, policy: Path) -> list[tuple[Path, str]]:
    available = (text(policy / "scaling_available_governors") or "performance").split()
    if "performance" not in available:
        raise MissingError(
            f"clocks cannot be locked: {policy.name} has the governors {', '.join(available)}, and not performance", remedy=_REMEDY
        )
    clock = number(policy / "base_frequency") or _nominal(root, policy) or number(policy / "cpuinfo_max_freq")  # in kHz
    if clock is None or clock <= 0:
        raise MissingError(f"clocks cannot be locked: {policy.name} does not tell its highest clock", remedy=_REMEDY)
    governor = policy / "scaling_governor"
    # The highest before the lowest: a lowest one above the highest of now is refused.
    return [(governor, "performance"), (policy / "scaling_max_freq", str(clock)), (policy / "scaling_min_freq", str(clock))]


def _nominal(root: Path, policy: Path) -> int | None:
    """Clock without boost in kHz, where the firmware tells it in MHz (kernel: admin-guide/acpi/cppc_sysfs.rst)."""
    if not (root / f"{_CPU}/cpufreq/boost").exists():
        return None
    return (number(root / _CPU / policy.name.replace("policy", "cpu") / "acpi_cppc/nominal_freq") or 0) * 1000 or None

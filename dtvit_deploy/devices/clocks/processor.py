"""What holds the clocks of a processor still: no turbo, the governor ``performance``, and one clock as the lowest and the highest.

Kernel: Documentation/admin-guide/pm/cpufreq.rst and intel_pstate.rst. A governor alone holds nothing: turbo still comes and
goes with heat.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from dtvit_deploy.devices.clocks.setting import AS_SHIPPED
from dtvit_deploy.devices.files import folders, number, text
from dtvit_deploy.errors import MissingError

_CPU = "sys/devices/system/cpu"
_TURBO = ((f"{_CPU}/intel_pstate/no_turbo", "1"), (f"{_CPU}/cpufreq/boost", "0"))


_KNOWN = re.compile(rf"{_CPU}/(intel_pstate/no_turbo|cpufreq/(boost|policy\d+/scaling_(governor|max_freq|min_freq)))", re.ASCII)
"""Every file that is written."""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the kernel.

    Attributes:
        path: below the root of the device's tree.
        before: what it said.
        locked: what it is to say.
    """

    path: str
    before: str
    locked: str


class Processor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="processor"):
    """A processor by the kernel's files, in the order in which they are written."""

    files: tuple[File, ...]

    @property
    def said(self) -> str:
        """``2400 MHz, no turbo``; of a processor with several kinds of cores, the clock of each."""
        clocks = sorted({int(one.locked) // 1000 for one in self.files if one.path.endswith("scaling_max_freq")})
        return f"{' and '.join(f'{clock} MHz' for clock in clocks)}{', no turbo' * any(map(_is_turbo, self.files))}"

    def lock(self, root: Path) -> str:
        """Write what each file is to say, up to one that does not take it."""
        refused = next((one for one in self.files if not _put(root, one.path, one.locked)), None)
        return "" if refused is None else f"/{refused.path} does not take {refused.locked}"

    def moved(self, root: Path) -> list[str]:
        """Files that do not say what they were locked to."""
        return [f"/{one.path}" for one in self.files if text(root / one.path) != one.locked]

    def give_back(self, root: Path) -> list[str]:
        """Write what there was, and the files that do not say so now.

        Turbo first, since without it a kernel does not take its clocks as a highest one; then the lowest, the highest, the governor.
        """
        known = [one for one in self.files if _KNOWN.fullmatch(one.path)]  # a record is read, and not believed
        turbo = [one for one in known if _is_turbo(one)]
        others = [one for one in reversed(known) if one not in turbo and (root / one.path).exists()]  # else its processor was taken away
        for _ in range(2):  # a lowest clock above the highest of now is taken only when that has been written
            left = [one for one in (*turbo, *others) if text(root / one.path) != one.before]
            for one in left:
                _put(root, one.path, one.before)
        return [f"/{one.path}" for one in left if text(root / one.path) != one.before]


def policies(root: Path) -> list[Path]:
    """The kernel's folders of processors whose clocks can be set; none in most virtual machines and containers."""
    return folders(root, f"{_CPU}/cpufreq/policy[0-9]*")


def processors(root: Path) -> list[Processor]:
    """The processor, as it is now; none where the kernel has no clocks that can be set.

    Raises:
        MissingError: it does not let us.
    """
    found = policies(root)
    if not found:
        return []
    asked = [(root / path, value) for path, value in _TURBO if (root / path).exists()]
    for policy in found:
        asked += _of_policy(root, policy)
    files = []
    for path, value in asked:
        before = text(path)
        if before is None:
            raise MissingError(f"clocks cannot be locked: /{path.relative_to(root)} cannot be read", remedy=AS_SHIPPED)
        files.append(File(path=str(path.relative_to(root)), before=before, locked=value))
    return [Processor(files=tuple(files))]


def _is_turbo(one: File) -> bool:
    return one.path.endswith(("no_turbo", "boost"))


def _put(root: Path, path: str, value: str) -> bool:
    """Write one, and whether it says so now."""
    try:
        (root / path).write_text(value)
    except OSError:
        return False
    return text(root / path) == value


def _of_policy(root: Path, policy: Path) -> list[tuple[Path, str]]:
    available = (text(policy / "scaling_available_governors") or "performance").split()
    if "performance" not in available:
        raise MissingError(
            f"clocks cannot be locked: {policy.name} has the governors {', '.join(available)}, and not performance", remedy=AS_SHIPPED
        )
    clock = number(policy / "base_frequency") or _nominal(root, policy) or number(policy / "cpuinfo_max_freq")  # in kHz
    if clock is None or clock <= 0:
        raise MissingError(f"clocks cannot be locked: {policy.name} does not tell its highest clock", remedy=AS_SHIPPED)
    governor = policy / "scaling_governor"
    # The highest before the lowest: a lowest one above the highest of now is refused.
    return [(governor, "performance"), (policy / "scaling_max_freq", str(clock)), (policy / "scaling_min_freq", str(clock))]


def _nominal(root: Path, policy: Path) -> int | None:
    """Clock without boost in kHz, where the firmware tells it in MHz (kernel: admin-guide/acpi/cppc_sysfs.rst)."""
    if not (root / f"{_CPU}/cpufreq/boost").exists():
        return None
    return (number(root / _CPU / policy.name.replace("policy", "cpu") / "acpi_cppc/nominal_freq") or 0) * 1000 or None

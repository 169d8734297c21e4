"""All that this machine tells of its state: what can be read again and again, and what is told once before and once after."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.devices import local
from dtvit_deploy.devices.files import text
from dtvit_deploy.devices.half import half_arithmetic
from dtvit_deploy.devices.state import apple, cpufreq, jetson, load, nvidia, powercap, rails, raspberry, tegrastats, thermal, throttling
from dtvit_deploy.devices.state.choosing import Chosen, chosen
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.formats.job.words import HALF
from dtvit_deploy.plural import counted


def sources(root: Path = Path("/")) -> list[Source]:
    """What is watched of this machine, below a root that stands for it."""
    return watched(root).sources


def watched(root: Path = Path("/")) -> Chosen:
    """The same, and what is not watched because there is too much."""
    found = [*cpufreq.sources(root), *thermal.sources(root), *throttling.sources(root), *powercap.sources(root), *rails.sources(root)]
    found += [*jetson.sources(root), *raspberry.sources(root), *load.sources(root)]
    if root == Path("/"):  # a tree that only stands for a machine has no programs
        found += apple.sources()
        found += tegrastats.sources(channel.kind for one in found for channel in one.channels) if jetson.is_one(root) else nvidia.sources()
    return chosen(found)


def told(root: Path = Path("/")) -> str:
    """How much can be read beside a latency, in words: ``1 clock, 3 temperatures, 2 rails``; and that no energy can be, where none can."""
    found = sources(root)
    for one in found:
        one.close()
    kinds = [channel.kind for one in found for channel in one.channels]
    rails = kinds.count("power") + kinds.count("energy")
    counts = ((kinds.count("clock"), "clock"), (kinds.count("temperature"), "temperature"), (rails, "rail"))
    known = [counted(count, what) for count, what in counts if count] or ["neither clock nor temperature"]
    why = powercap.facts(root).get("energy counters", "no rail: no energy of an inference")
    return ", ".join(known) + ("" if rails else f"; {why}")


def facts(root: Path = Path("/")) -> dict[str, str]:
    """Board, processor, cores, memory, system, load; power mode, governor and its bounds, turbo, the hottest sensor; limits of control
    groups; what holds it back now, and how often anything did since it started.

    Which device it is, says who asked it.
    """
    found = {name: value for name, value in local.state().items() if name != "device"}
    found |= {"model": text(root / "proc/device-tree/model") or "", "temperature": thermal.hottest(root)}
    if (cores := local.quota(root)) is not None:
        found["cores allowed"] = f"{cores:.3g}, by its control group"
    if (half := half_arithmetic()) is not None:
        found[HALF] = "yes" if half else "no"
    found["power mode"] = text(root / "sys/firmware/acpi/platform_profile") or ""  # of a PC; a Jetson tells its own below
    found |= cpufreq.facts(root) | load.facts(root) | powercap.facts(root) | jetson.facts(root) | apple.facts()
    if root == Path("/") and not jetson.is_one(root):
        found |= nvidia.facts()
    found |= throttling.facts(root, [*raspberry.sources(root), *(apple.flags() if root == Path("/") else ())])
    return {name: value for name, value in found.items() if value}

"""What a device said of itself, as a figure of it must say it: what it is, and how it was before and after."""

from __future__ import annotations

from dtvit_deploy.formats.job.results import Outcome, Results
from dtvit_deploy.formats.job.words import HALF

EMULATED = "emulated processor"
"""Condition of what did not run on a processor of its own kind."""
ABOUT = ("model", "processor", "architecture", HALF, "cores", "memory", "system", "power mode", "governor")
"""What every figure of a device says of it."""
MOVING = ("governor", "power mode", "temperature", "clock", "load", "throttled", "throttle events")
"""What may be another after a task than before it."""


def device_conditions(results: Results) -> dict[str, str]:
    """What a figure of the device must say about it."""
    named = {name: results.device[name] for name in ABOUT if results.device.get(name)}
    return named | ({EMULATED: results.device["emulated"]} if results.device.get("emulated") else {})


def state_around(outcome: Outcome) -> dict[str, str]:
    """How it was while a task was done: ``before → after`` where it changed."""
    found = {}
    for name in MOVING:
        before, after = (said.get(name) or "not told" for said in (outcome.before, outcome.after))
        if name in outcome.before or name in outcome.after:
            found[name] = before if before == after else f"{before} → {after}"
    return found

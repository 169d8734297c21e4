"""What a device says of itself beside its figures: before a task, and after it."""

from __future__ import annotations

from pathlib import Path

from dtvit_deploy.devices.state.everything import facts


def state(root: Path = Path("/")) -> dict[str, str]:
    """What it is, and the state that it is in now, as far as it tells; see `dtvit_deploy.devices.state.everything.facts`."""
    return facts(root)

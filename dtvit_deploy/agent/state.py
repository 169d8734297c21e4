"""What a device says of itself beside its figures."""

from __future__ import annotations

from dtvit_deploy.devices import local


def state() -> dict[str, str]:
    """Processor, cores, memory, system, clock governor and load, as far as it tells; which device it is, says who asked it."""
    return {name: value for name, value in local.state().items() if name != "device"}

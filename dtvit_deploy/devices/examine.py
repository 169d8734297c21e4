"""A device as ``doctor --device`` tells it: what it is, what can be done on it, and what it lacks."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from dtvit_deploy.devices.inventory import PYTHON, Device
from dtvit_deploy.devices.needs import RUNTIMES, Lack, notes, of_any_use, release
from dtvit_deploy.devices.openssh import Connection
from dtvit_deploy.devices.probe import Facts, probe
from dtvit_deploy.devices.reconnecting import Reconnecting
from dtvit_deploy.devices.transport import Shell, Transport
from dtvit_deploy.formats.job.words import HALF

_EVERYWHERE = ("numpy", "onnxruntime", "openvino")
"""What any device could have, so that it is worth a line where it has not."""
_ABSENT = "not installed"


class Examined(msgspec.Struct, frozen=True):
    """What was found of one device.

    Attributes:
        missing: what it lacks to be of any use; empty when artefacts of some format can run there.
        notes: what must be known of the figures that are taken there.
    """

    name: str
    address: str
    facts: Facts
    missing: tuple[Lack, ...]
    notes: tuple[str, ...]

    def told(self) -> dict[str, str]:
        """The facts, each as text for a table."""
        facts = self.facts
        version = ".".join(map(str, facts.python_version)) if facts.python_version else ""
        # What an emulator shows as its processor may be that of the machine around it.
        processor = f"emulated by {facts.emulator}" if facts.emulator else facts.processor
        rows = {
            "address": self.address,
            "model": facts.model,
            "processor": ", ".join(filter(None, (facts.architecture, processor))),
            "system": ", ".join(filter(None, (facts.distribution, f"{facts.system} {facts.release}"))),
            "L4T": release(facts.l4t),
            "JetPack": facts.jetpack,
            "power mode": facts.power_mode,
            HALF: {None: "", True: "yes", False: "no"}[facts.half],
            "GPU": f"{facts.gpu}, compute capability {facts.capability}" if facts.gpu else "",
            "NVIDIA driver": ", ".join(filter(None, (facts.driver, facts.cuda and f"CUDA up to {facts.cuda}"))),
            "memory": _room(facts.memory, ""),
            "cache": _room(facts.disk, f"{facts.cache}, "),
            "Python": f"{version} ({facts.python})" if version else "none that runs",
            **{
                module: facts.packages.get(module, _ABSENT)
                for module in ("numpy", *RUNTIMES)
                if module in facts.packages or module in _EVERYWHERE
            },
            **{module: f"does not import: {why}" for module, why in facts.broken.items()},
        }
        return {name: text for name, text in rows.items() if text}


def python_of(device: Device) -> str:
    """The program there: of this machine, where none is named, the one that runs this."""
    return sys.executable if device.address is None and device.python == PYTHON else device.python


def reached(device: Device) -> AbstractContextManager[Transport]:
    """The way to a device, within the block: ssh's, made again where it was lost, or for ``local`` a shell of this machine.

    Raises:
        InputError: the ssh client does not accept its configuration.
        MissingError: the device cannot be reached.
    """
    address = device.address
    return nullcontext(Shell(Path.cwd())) if address is None else Reconnecting(device.name, lambda: Connection(address))


def examine(device: Device) -> Examined:
    """Ask a device what it is.

    Raises:
        InputError: it answers what cannot be understood, or the ssh client does not accept its configuration.
        LostError: the connection went away.
        MissingError: it cannot be reached.
    """
    with reached(device) as transport:
        facts = probe(transport, python_of(device))
    address = str(device.address) if device.address else "this machine"
    return Examined(device.name, address, facts, tuple(of_any_use(facts)), tuple(notes(facts)))


def _room(count: int | None, where: str) -> str:
    return "" if count is None else f"{where}{count / 2**30:,.1f} GiB free"

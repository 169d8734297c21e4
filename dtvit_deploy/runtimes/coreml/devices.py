"""Which iPhone of those that ``devicectl`` lists is meant.

coremltools 9 takes a phone for connected when its tunnel is open. The tunnel is opened by the first command that needs it and closed again
when nobody does, so that a paired phone at its cable is mostly listed with a closed one and left out; and from version 5 on the list holds
simulators, which coremltools cannot tell from phones. So the list is read here, and a phone is chosen by what it is (physical), how it is
reached (by cable first) and whether it trusts this Mac (paired).

``devicectl`` promises its JSON to programs, and nothing of what it prints. Versions 2 and 5 of that JSON are what is known here, from
published captures; no phone was ever listed by this code.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dtvit_deploy.errors import MissingError
from dtvit_deploy.plural import some
from dtvit_deploy.process.quiet import quiet

CONNECT = "connect one by cable, unlock it, trust this Mac on it, and turn its developer mode on"
LISTED = ("xcrun", "devicectl", "list", "devices", "--json-output")
SECONDS = 60.0
"""That a list may take; it waits for devices that answer late."""
_SHOWN = 6
"""Devices that a message names."""


class _Hardware(msgspec.Struct, rename="camel"):
    device_type: str = ""
    reality: str = ""
    udid: str = ""


class _Connection(msgspec.Struct, rename="camel"):
    pairing_state: str = ""
    transport_type: str = ""
    tunnel_state: str = ""


class _Properties(msgspec.Struct, rename="camel"):
    name: str = ""
    os_version_number: str = ""
    os_build_update: str = ""
    developer_mode_status: str = ""


class Listed(msgspec.Struct, rename="camel"):
    """A device as ``devicectl`` lists it; what it does not say is empty."""

    identifier: str = ""
    hardware_properties: _Hardware = msgspec.field(default_factory=_Hardware)
    connection_properties: _Connection = msgspec.field(default_factory=_Connection)
    device_properties: _Properties = msgspec.field(default_factory=_Properties)

    @property
    def name(self) -> str:
        return self.device_properties.name

    @property
    def wired(self) -> bool:
        return self.connection_properties.transport_type == "wired"

    @property
    def unfit(self) -> str:
        """Why no package can be run on it, in words that follow its name; empty where one can."""
        hardware, connection = self.hardware_properties, self.connection_properties
        if hardware.reality != "physical":
            return f"is {hardware.reality or 'of unknown reality'}, not a device"
        if hardware.device_type.lower() != "iphone":
            return f"is an {hardware.device_type}" if hardware.device_type else "is of unknown type"
        if connection.pairing_state != "paired":
            return f"is {connection.pairing_state or 'not paired'}: trust this Mac on it"
        if connection.tunnel_state == "unavailable" or not connection.transport_type:
            return "is not reachable: it was paired once, and is neither at a cable nor in this network"
        if not self.wired and connection.tunnel_state != "connected":
            return f"is not at a cable (transport {connection.transport_type}, tunnel {connection.tunnel_state or 'unknown'})"
        if self.device_properties.developer_mode_status == "disabled":
            return "has its developer mode turned off"
        if not all(re.fullmatch(r"[\w.-]+", word, re.ASCII) for word in (self.identifier, hardware.udid)):
            return "has no identifier that could be used"
        return ""


class _Result(msgspec.Struct):
    devices: list[Listed]


class _List(msgspec.Struct):
    result: _Result


def listed() -> tuple[Listed, ...]:
    """Everything that ``devicectl`` lists: simulators, watches and devices that are not here included.

    Raises:
        MissingError: it cannot be asked, or answers with something else than a list of devices.
    """
    with tempfile.TemporaryDirectory(prefix="dtvit-deploy-") as folder:
        answer = Path(folder) / "devices.json"
        try:
            done = subprocess.run(
                [*LISTED, str(answer)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _untold(str(error)) from error
        if done.returncode or not answer.is_file():
            raise _untold(next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}"))
        try:
            return tuple(msgspec.json.decode(answer.read_bytes(), type=_List).result.devices)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _untold(f"its JSON is not a list of devices ({error})") from error


def _untold(why: str) -> MissingError:
    return MissingError(f"devicectl does not tell what is connected: {why}", remedy=CONNECT)


def chosen(devices: Sequence[Listed], name: str | None, variable: str) -> Listed:
    """The one iPhone that can be used: one at its cable before one in the network, and of several the one of that name.

    Args:
        devices: all that are listed.
        name: of the device, as its settings show it; None takes the only one.
        variable: of the environment, that names a device.

    Raises:
        MissingError: none can be used, none of them has that name, or one would have to be chosen.
    """
    fit = [device for device in devices if not device.unfit]
    named = [device for device in fit if name in (None, device.name)]
    best = [device for device in named if device.wired] or named
    if len(best) == 1:
        return best[0]
    names = ", ".join(sorted(device.name for device in best or fit))
    if best:
        raise MissingError(f"{len(best)} iPhones are connected: {names}", remedy=f"set {variable} to the name of one")
    if fit:
        raise MissingError(f"no iPhone called {name!r} is connected, but {names}", remedy=f"set {variable} to its name")
    raise MissingError("no iPhone is connected" + _others(devices), remedy=CONNECT)


def _others(devices: Sequence[Listed]) -> str:
    """What is listed all the same, phones first, so that whoever has one at the cable sees what is wrong with it."""
    if not devices:
        return ""
    phones = sorted(devices, key=lambda one: (one.hardware_properties.device_type.lower() != "iphone", not one.wired))
    told = (f"{device.name[:60] or 'one without a name'} {device.unfit}" for device in phones)
    return f" that could be used: {some(told, _SHOWN, separator='; ')}"


def as_coremltools_has_it(device: Listed) -> Any:
    """The ``Device`` that coremltools 9 would have made of it, said to be connected: it refuses all others before ``devicectl`` is asked.

    Whether the tunnel then opens shows at the first command, which installs the app; what ``devicectl`` says if it does not is passed on.
    """
    with quiet():
        from coremltools.models.ml_program.experimental.remote_device import Device, DeviceState, DeviceType

    return Device(
        name=device.name,
        type=DeviceType.IPHONE,
        identifier=device.identifier,
        udid=device.hardware_properties.udid,
        os_version=device.device_properties.os_version_number,
        os_build_number=device.device_properties.os_build_update,
        developer_mode_state=device.device_properties.developer_mode_status,
        state=DeviceState.CONNECTED,
        session=None,
    )

"""Devices as ``devicectl list devices --json-output`` writes them, in versions 2 and 5 of its JSON; all identifiers are invented."""

from __future__ import annotations

import json
from typing import Any


def device(name: str, **other: Any) -> dict[str, Any]:
    """A paired iPhone at its cable whose tunnel is closed, as one mostly is; ``other`` replaces properties, and drops them as None."""
    number = sum(name.encode())
    told: dict[str, dict[str, Any]] = {
        "connectionProperties": {
            "authenticationType": "manualPairing",
            "isMobileDeviceOnly": False,
            "pairingState": "paired",
            "potentialHostnames": [f"{number:08}.coredevice.local"],
            "transportType": "wired",
            "tunnelState": "disconnected",
            "tunnelTransportProtocol": "tcp",
        },
        "deviceProperties": {
            "ddiServicesAvailable": False,
            "developerModeStatus": "enabled",
            "name": name,
            "osBuildUpdate": "22B83",
            "osVersionNumber": "18.1",
        },
        "hardwareProperties": {
            "cpuType": {"name": "arm64e", "subType": 2, "type": 16777228},
            "deviceType": "iPhone",
            "platform": "iOS",
            "productType": "iPhone0,0",
            "reality": "physical",
            "udid": f"00000000-{number:016}",
        },
    }
    for key, value in other.items():
        part = next(part for part in told.values() if key in part)
        if value is None:
            del part[key]
        else:
            part[key] = value
    return {"capabilities": [], **told, "identifier": f"00000000-0000-0000-0000-{number:012}", "tags": [], "visibilityClass": "default"}


def simulator(name: str) -> dict[str, Any]:
    """As version 5 lists it, which says paired of all of them; some are booted, and their tunnel is open then."""
    made = device(
        name,
        reality="simulated",
        transportType="sameMachine",
        tunnelState="connected",
        authenticationType="implicit",
        developerModeStatus=None,
    )
    made["deviceProperties"] |= {"bootState": "booted", "provider": "com.apple.CoreSimulator.SimulatorCoreDevicePlugin"}
    return made


def capture(*devices: dict[str, Any], version: int = 2) -> bytes:
    info = {
        "arguments": ["devicectl", "list", "devices"],
        "commandType": "devicectl.list.devices",
        "jsonVersion": version,
        "outcome": "success",
    }
    return json.dumps({"info": info, "result": {"devices": devices}}).encode()

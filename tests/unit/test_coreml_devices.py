"""The iPhone that is meant, of all that ``devicectl`` lists."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devicectl import capture, device, simulator
from dtvit_deploy.errors import MissingError
from dtvit_deploy.runtimes.coreml.devices import Listed, chosen, listed


def of(*devices: dict[str, Any]) -> tuple[Listed, ...]:
    return msgspec.convert(devices, tuple[Listed, ...])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([simulator("iPhone 17 Pro")], id="a booted simulator whose tunnel is open"),
        pytest.param([device("Lent", pairingState="unpaired")], id="a phone that does not trust this Mac"),
        pytest.param([device("Home", transportType="localNetwork", tunnelState="connected")], id="a phone in the network"),
        pytest.param([device("Home", transportType="localNetwork")], id="a phone that was in the network"),
        pytest.param([device("Sold", tunnelState="unavailable", transportType=None)], id="a phone that was here once"),
        pytest.param([device("Tablet", deviceType="iPad", tunnelState="connected")], id="a tablet at a cable"),
        pytest.param([device("Wrist", deviceType="appleWatch", transportType="localNetwork", tunnelState="connected")], id="a watch"),
        pytest.param([device("Locked", developerModeStatus="disabled")], id="a phone without developer mode"),
        pytest.param([device("Virtual", reality="virtual")], id="a virtual phone"),
    ],
)
def test_the_phone_at_its_cable_is_taken_whatever_else_is_listed(other: list[dict[str, Any]]) -> None:
    phone = device("Mine", tunnelState="disconnected")
    assert chosen(of(*other, phone), None, "WHICH").name == "Mine"
    assert chosen(of(phone, *other), None, "WHICH").name == "Mine"


@pytest.mark.parametrize("tunnel", ["connected", "disconnected", "connecting"])
def test_at_the_cable_the_tunnel_may_be_as_it_is(tunnel: str) -> None:
    assert chosen(of(device("Mine", tunnelState=tunnel)), None, "WHICH").name == "Mine"


def test_without_a_cable_a_phone_in_the_network_is_taken_if_its_tunnel_is_open() -> None:
    near = device("Near", transportType="localNetwork", tunnelState="connected")
    assert chosen(of(near), None, "WHICH").name == "Near"
    near["connectionProperties"]["tunnelState"] = "disconnected"
    with pytest.raises(MissingError, match=r"Near is not at a cable \(transport localNetwork, tunnel disconnected\)"):
        chosen(of(near), None, "WHICH")


def test_a_name_is_stronger_than_a_cable_and_no_name_makes_a_simulator_a_phone() -> None:
    near, wired = device("Near", transportType="localNetwork", tunnelState="connected"), device("Wired")
    assert chosen(of(near, wired), "Near", "WHICH").name == "Near"
    with pytest.raises(MissingError, match="no iPhone called 'iPhone 17 Pro' is connected, but Wired") as caught:
        chosen(of(simulator("iPhone 17 Pro"), wired), "iPhone 17 Pro", "WHICH")
    assert caught.value.remedy == "set WHICH to its name"


def test_of_several_at_cables_none_is_guessed() -> None:
    with pytest.raises(MissingError, match="2 iPhones are connected: One, Two") as caught:
        chosen(of(device("Two"), device("One")), None, "WHICH")
    assert caught.value.remedy == "set WHICH to the name of one"


def test_where_none_can_be_used_each_that_is_listed_has_its_reason() -> None:
    devices = of(simulator("iPhone 17 Pro"), device("Lent", pairingState="unpaired"), device("Tablet", deviceType="iPad"))
    with pytest.raises(MissingError) as caught:
        chosen(devices, None, "WHICH")
    assert str(caught.value) == (
        "no iPhone is connected that could be used: Lent is unpaired: trust this Mac on it; iPhone 17 Pro is simulated, not a device;"
        " Tablet is an iPad"
    )
    assert "developer mode" in str(caught.value.remedy)
    with pytest.raises(MissingError, match=r"^no iPhone is connected$"):
        chosen((), None, "WHICH")
    with pytest.raises(MissingError, match=r"; and 4 more$"):
        chosen(of(*(simulator(f"iPhone {number}") for number in range(10))), None, "WHICH")


def test_what_a_device_does_not_say_is_no_permission() -> None:
    bare = {"identifier": "A-1", "hardwareProperties": {"deviceType": "iPhone", "udid": "A-2"}, "deviceProperties": {"name": "Bare"}}
    with pytest.raises(MissingError, match="Bare is of unknown reality"):
        chosen(of(bare), None, "WHICH")


def test_an_identifier_that_a_shell_would_read_is_not_handed_to_one() -> None:
    odd = device("Odd") | {"identifier": "A;B"}
    with pytest.raises(MissingError, match="Odd has no identifier that could be used"):
        chosen(of(odd), None, "WHICH")


class TestAsking:
    @pytest.fixture
    def xcrun(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        program = tmp_path / "xcrun"
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return program

    def says(self, program: Path, script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    @pytest.mark.parametrize("version", [2, 5])
    def test_both_versions_of_the_list_are_read(self, xcrun: Path, version: int) -> None:
        xcrun.with_name("list.json").write_bytes(capture(simulator("S"), device("Mine"), version=version))
        self.says(xcrun, f'test "$*" = "devicectl list devices --json-output $5" && cat "{xcrun.with_name("list.json")}" > "$5"')
        assert [(one.name, one.wired) for one in listed()] == [("S", False), ("Mine", True)]

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("echo 'ERROR: no usable Xcode' >&2; exit 72", "ERROR: no usable Xcode"),
            ("exit 3", "exit status 3"),
            ("exit 0", "exit status 0"),
            ('echo "{}" > "$5"', "its JSON is not a list of devices"),
            ('echo "not JSON" > "$5"', "its JSON is not a list of devices"),
            ("""echo '{"result": {"devices": [{"identifier": 7}]}}' > "$5\"""", "its JSON is not a list of devices"),
        ],
    )
    def test_what_is_no_list_is_said_in_one_message(self, xcrun: Path, script: str, why: str) -> None:
        self.says(xcrun, script)
        with pytest.raises(MissingError, match="devicectl does not tell what is connected") as caught:
            listed()
        assert why in str(caught.value)

    def test_no_xcode_is_said_too(self, xcrun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(xcrun.parent))
        with pytest.raises(MissingError, match="devicectl does not tell what is connected"):
            listed()

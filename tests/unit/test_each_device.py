"""Of several devices each is asked, whatever becomes of the others; what went wrong is told at the end, by the exit code of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtvit_deploy.cli.each_device import each, named, raise_all
from dtvit_deploy.devices.inventory import FILE, Device
from dtvit_deploy.errors import DeployError, InputError, MissingError

ALL = [Device(name=name, address=None) for name in "abc"]


def test_the_others_are_asked_after_one_has_failed() -> None:
    def ask(device: Device) -> str:
        if device.name == "a":
            raise MissingError("the network is down", remedy="plug it in")
        if device.name == "c":
            raise InputError("c: a job goes on there", remedy="end it")
        return device.name.upper()

    found, failures = each(ALL, "asking", ask)
    assert found == {"b": "B"}
    with pytest.raises(MissingError, match=r"^a: the network is down; c: a job goes on there$") as raised:
        raise_all(failures)
    assert raised.value.remedy == "plug it in; end it"


@pytest.mark.parametrize("kind", [InputError, MissingError])
def test_one_failure_is_raised_as_it_is_and_none_is_none(kind: type[DeployError]) -> None:
    raise_all([])
    error = kind("a: no")
    with pytest.raises(kind) as raised:
        raise_all([error])
    assert raised.value is error


def test_each_device_is_asked_once_and_an_unknown_name_before_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text("".join(f'[[device]]\nname = "{name}"\naddress = "ssh://{name}"\ntags = ["all"]\n' for name in "ab"))
    assert [one.name for one in named(["b", "all", "b"])] == ["b", "a"]
    with pytest.raises(InputError, match="no device 'x'"):
        named(["a", "x"])

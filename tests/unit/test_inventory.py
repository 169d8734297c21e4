"""The user's own list of devices: what is found by which name, and each mistake in it told once, with the device that it is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commandline import deploy
from dtvit_deploy.devices.address import Address
from dtvit_deploy.devices.inventory import FILE, find, place, read_inventory
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.devices import resolved
from dtvit_deploy.recipe.reading import request

BENCH = """
[[device]]
name = "orin-1"
address = "ssh://me@orin-1.lab"
tags = ["orin", "jetson"]
notes = "on the shelf"
python = "venv/bin/python"

[[device]]
name = "orin-2"
address = "ssh://orin-2:2222"
tags = ["orin"]
power_meter = "ina3221"

[[device]]
name = "here"
address = "local"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_text(BENCH)
    return tmp_path


def test_a_name_finds_one_device_and_a_tag_all_that_share_it_in_order(bench: Path) -> None:
    assert [one.name for one in find("orin-2", bench)] == ["orin-2"]
    assert [one.name for one in find("orin", bench)] == ["orin-1", "orin-2"]
    assert find("orin-1", bench)[0].address == Address("orin-1.lab", "me")
    assert find("orin-1", bench)[0].python == "venv/bin/python"
    assert find("orin-2", bench)[0].python == "python3"


def test_local_and_addresses_need_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert find("local", tmp_path)[0].address is None
    assert find("ssh://me@orin", tmp_path)[0].address == Address("orin", "me")
    with pytest.raises(InputError, match=r"there is no device 'orin': there is no devices\.toml"):
        find("orin", tmp_path)
    with pytest.raises(InputError, match="no address"):
        find("me@orin", tmp_path)


def test_the_address_of_a_device_means_that_device_with_all_that_is_said_of_it(bench: Path) -> None:
    (found,) = find("ssh://me@orin-1.lab", bench)
    assert (found.name, found.python) == ("orin-1", "venv/bin/python")
    (other,) = find("ssh://you@orin-1.lab", bench)
    assert (other.name, other.python) == ("ssh://you@orin-1.lab", "python3")
    (bench / FILE).write_text(BENCH.replace("ssh://orin-2:2222", "ssh://me@orin-1.lab"))
    with pytest.raises(InputError, match="is the address of orin-1 and orin-2"):
        find("ssh://me@orin-1.lab", bench)


def test_an_unknown_name_is_told_with_those_that_are_known(bench: Path) -> None:
    with pytest.raises(InputError, match=r"no device 'oring' in .*; known there: orin-1, orin-2, here, orin, jetson"):
        find("oring", bench)


def test_the_inventory_beside_the_work_comes_before_the_users_own(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bench / "settings" / "dtvit-deploy" / FILE
    own.parent.mkdir(parents=True)
    own.write_text('[[device]]\nname = "mine"\naddress = "ssh://mine"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(bench / "settings"))
    assert place(bench) == bench / FILE
    (bench / FILE).unlink()
    assert place(bench) == own
    assert find("mine", bench)[0].address == Address("mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_an_inventory_of_somebody_else_says_nothing_here(bench: Path) -> None:
    os.chown(bench / FILE, 12345, -1)
    with pytest.raises(InputError, match="belongs to another user"):
        find("orin", bench)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('nmae = "b"', r"device 2 \('b'\).*unknown field `nmae`"),
        ("tags = 'orin'", r"device 2 \('b'\).*tags.*expected a list"),
        ("tags = ['a b']", "'a b' cannot be one"),
        ("tags = ['local']", "'local' means this machine"),
        ("tags = ['-x']", "'-x' cannot be one"),
        ("tags = ['a']", "a is a tag of b and another device's name"),
        ("python = ''", "python: '' is no program"),
        ("python = '-c'", "is no program"),
        ("python = '~/venv/bin/python'", "is no program"),
        ('python = "py\\nthon"', "is no program"),
        ("notes = 3", "expected text"),
        (f"notes = '{'x' * 1001}'", "notes is longer"),
    ],
)
def test_each_mistake_is_one_message_that_names_the_device(tmp_path: Path, line: str, told: str) -> None:
    first = '[[device]]\nname = "a"\naddress = "ssh://a"\n'
    (tmp_path / FILE).write_text(f'{first}[[device]]\nname = "b"\naddress = "ssh://b"\n{line}\n')
    with pytest.raises(InputError, match=told) as refused:
        read_inventory(tmp_path / FILE)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[device]]\nname = "a"\n', r"device 1 \('a'\).*missing required field `address`"),
        ('[[device]]\naddress = "ssh://a"\n', "missing required field `name`"),
        ('[[device]]\nname = "local"\naddress = "ssh://a"\n', "means this machine"),
        ('[[device]]\nname = "a"\naddress = "a"\n', r"device 1 \('a'\): address: 'a' is no address"),
        ('[[device]]\nname = "a"\naddress = "ssh://me:pw@a"\n', "address: .* holds a password"),
        ('[[device]]\nname = "a"\naddress = "ssh://a"\n' * 2, "several devices are called a"),
        ("device = 3\n", "device is not known"),
        ("device = [3]\n", "device 1: expected a table"),
        ("[devices]\n", "devices is not known"),
        ("[[device]\n", "is not an inventory"),
    ],
)
def test_a_file_that_is_no_list_of_devices_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=told):
        read_inventory(tmp_path / FILE)


def test_the_list_can_be_read_by_people_and_programs_and_asks_no_device(bench: Path) -> None:
    import json

    listed = json.loads(deploy("device", "list", "--json", cwd=bench, fresh=True).stdout)
    assert [(one["name"], one["address"]) for one in listed] == [
        ("orin-1", "ssh://me@orin-1.lab"),
        ("orin-2", "ssh://orin-2:2222"),
        ("here", "local"),
    ]
    shown = deploy("device", "list", cwd=bench, fresh=True).stdout
    assert "on the shelf" in shown
    assert "ina3221" in shown


def test_no_list_is_no_mistake_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    assert "there is no devices.toml" in deploy("device", "list", cwd=tmp_path, XDG_CONFIG_HOME=str(tmp_path), fresh=True).stdout
    (tmp_path / FILE).write_text("[[device]]\nname = 3\n")
    done = deploy("device", "list", cwd=tmp_path, code=2, fresh=True)
    assert "devices.toml: device 1: name: expected text" in done.stderr
    assert "Traceback" not in done.stderr


class TestBesideARecipe:
    """The names in a recipe are looked up beside it, as its paths are, from wherever it is called."""

    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "lab"
        folder.mkdir()
        (folder / FILE).write_text('[[device]]\nname = "orin"\naddress = "ssh://in-the-lab"\n')
        (tmp_path / FILE).write_text('[[device]]\nname = "orin"\naddress = "ssh://here"\n')
        (folder / "recipe.toml").write_text('[model]\nname = "dualtoken-vit-t-mix"\n[[device]]\nname = "orin"\n')
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
        monkeypatch.chdir(tmp_path)
        return folder

    def found(self, recipe: Path, flags: dict[str, object] | None = None) -> list[str]:
        return [one.address.host for one in resolved(request(recipe, flags or {}, {})) if one.address is not None]

    def test_and_not_in_the_working_folder(self, lab: Path) -> None:
        assert self.found(lab / "recipe.toml") == ["in-the-lab"]
        assert self.found(Path("lab/recipe.toml"), {"device": [{"name": "orin"}]}) == ["in-the-lab"]

    def test_and_then_among_the_users_own(self, lab: Path, tmp_path: Path) -> None:
        (lab / FILE).unlink()
        with pytest.raises(InputError, match=r"there is no device 'orin': there is no .*lab/devices\.toml, and no devices\.toml in your"):
            self.found(lab / "recipe.toml")
        own = tmp_path / "settings" / "dtvit-deploy" / FILE
        own.parent.mkdir(parents=True)
        own.write_text('[[device]]\nname = "orin"\naddress = "ssh://mine"\n')
        assert self.found(lab / "recipe.toml") == ["mine"]

    def test_unless_it_names_a_file_which_is_beside_it_too(self, lab: Path) -> None:
        (lab / "others.toml").write_text('[[device]]\nname = "orin"\naddress = "ssh://another"\n')
        with (lab / "recipe.toml").open("a") as file:
            file.write('[run]\ninventory = "others.toml"\n')
        assert self.found(lab / "recipe.toml") == ["another"]

    def test_a_recipe_of_the_working_folder_says_nothing_else(self, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(lab)
        assert request(Path("recipe.toml"), {}, {}).run.inventory is None
        assert self.found(Path("recipe.toml")) == ["in-the-lab"]

    def test_one_that_names_no_device_needs_no_inventory(self, lab: Path) -> None:
        (lab / "recipe.toml").write_text('[model]\nname = "dualtoken-vit-t-mix"\n')
        assert request(lab / "recipe.toml", {}, {}).run.inventory is None

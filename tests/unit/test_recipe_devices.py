"""The devices of a request: named or defined, by a file or by flags, held to what an inventory is held to, and each found once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from commandline import deploy
from dtvit_deploy.devices.address import Address
from dtvit_deploy.devices.inventory import FILE
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.elsewhere import devices_of, measures_here
from dtvit_deploy.recipe.devices import resolved
from dtvit_deploy.recipe.reading import load_recipe, request, validated
from dtvit_deploy.recipe.tables import Device, Recipe
from dtvit_deploy.recipe.writing import written

MODEL = 'model.name = "x"\n'
OWN = MODEL + '[[device]]\nname = "pi"\naddress = "ssh://me@pi:2222"\ntags = ["boards"]\npython = "venv/bin/python"\n'
INVENTORY = """
[[device]]
name = "pi"
address = "ssh://another"
[[device]]
name = "orin"
address = "ssh://orin.lab"
tags = ["boards"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILE).write_text(INVENTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: Path, text: str, *asked: str) -> Recipe:
    (folder / "recipe.toml").write_text(text)
    flags = {"device": [{"name": name} for name in asked]} if asked else {}
    return request(folder / "recipe.toml", flags, {"device": "--device"})


def names(recipe: Recipe) -> list[str]:
    return [str(device.address) for device in devices_of(recipe)]


def test_a_recipe_without_devices_is_about_this_machine(folder: Path) -> None:
    recipe = read(folder, MODEL)
    assert measures_here(recipe)
    assert devices_of(recipe) == ()


def test_this_machine_is_one_of_them_where_it_is_named_or_an_address_says_so(folder: Path) -> None:
    assert not measures_here(read(folder, OWN))
    assert measures_here(read(folder, OWN + '[[device]]\nname = "local"\n'))
    assert measures_here(read(folder, MODEL + '[[device]]\nname = "here"\naddress = "local"\n'))


def test_a_definition_comes_before_the_inventory_and_shares_its_tags(folder: Path) -> None:
    assert names(read(folder, OWN)) == ["ssh://me@pi:2222"]
    (found,) = devices_of(read(folder, OWN))
    assert (found.name, found.address, found.python) == ("pi", Address("pi", "me", 2222), "venv/bin/python")
    assert names(read(folder, MODEL + '[[device]]\nname = "pi"\n')) == ["ssh://another"]
    assert names(read(folder, OWN + '[[device]]\nname = "boards"\n')) == ["ssh://me@pi:2222", "ssh://orin.lab"]


def test_a_definition_needs_no_inventory_not_even_a_right_one(folder: Path) -> None:
    (folder / FILE).write_text("[[device]\n")
    assert names(read(folder, OWN)) == ["ssh://me@pi:2222"]
    (folder / FILE).unlink()
    with pytest.raises(InputError, match=r"no device 'orin' in the recipe; known there: pi, boards"):
        devices_of(read(folder, OWN + '[[device]]\nname = "orin"\n'))


def test_flags_take_the_place_of_the_tables_and_find_what_those_define(folder: Path) -> None:
    assert names(read(folder, OWN, "orin")) == ["ssh://orin.lab"]
    assert names(read(folder, OWN, "pi", "local")) == ["ssh://me@pi:2222"]
    assert names(read(folder, OWN, "boards")) == ["ssh://me@pi:2222", "ssh://orin.lab"]
    assert names(read(folder, OWN, "pi", "boards", "ssh://x")) == ["ssh://me@pi:2222", "ssh://orin.lab", "ssh://x"]
    assert measures_here(read(folder, OWN, "local"))
    assert devices_of(read(folder, OWN, "local")) == ()


@pytest.mark.parametrize("asked", [(), ("pi", "local"), ("boards",), ("ssh://me@[fd00::7]:22",)])
def test_what_is_written_of_devices_is_read_as_the_same(folder: Path, asked: tuple[str, ...]) -> None:
    recipe = read(folder, OWN + 'notes = "on \\"my\\" desk\\u0000"\n[gates.fp32]\nmax_abs = 1.0\n', *asked)
    (folder / "again.toml").write_text(written(recipe, folder))
    assert load_recipe(folder / "again.toml") == recipe


def test_flags_are_told_as_the_recipe_that_they_make(folder: Path) -> None:
    done = deploy("verify", "x.onnx", "--device", "orin", "--device", "local", "--device", "orin", "--as-recipe", cwd=folder)
    assert done.stdout.split() == ["[[device]]", "name", "=", '"orin"', "[[device]]", "name", "=", '"local"']


@pytest.mark.parametrize("command", ["verify", "evaluate", "profile"])
def test_a_file_that_merely_lies_there_names_neither_network_nor_device_for_what_looks_at_artefacts(folder: Path, command: str) -> None:
    (folder / "dtvit-deploy.toml").write_text(OWN.replace('"x"', '"code:make"') + "[run]\nthreads = 2\n")
    assert deploy(command, "x.onnx", "--as-recipe", cwd=folder).stdout == "[run]\nthreads = 2\n\n"
    named = deploy(command, "x.onnx", "--as-recipe", "-r", "dtvit-deploy.toml", cwd=folder).stdout
    assert "code:make" in named
    assert "[[device]]" in named
    asked = deploy(command, "x.onnx", "--as-recipe", "--device", "pi", cwd=folder).stdout
    assert "code:make" not in asked
    assert "ssh://me@pi:2222" in asked


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('name = "pi"\naddress = "ssh://me:secret@pi"', "address: .* holds a password"),
        ('name = "pi"\naddress = "pi"', "address: 'pi' is no address"),
        ('name = "pi"\naddress = "ssh://-oProxyCommand=x"', "begins with a dash"),
        ('name = "pi"\naddress = "ssh://$(touch x)"', "cannot be used"),
        ('name = "local"\naddress = "ssh://pi"', "'local' means this machine"),
        ('name = "-pi"\naddress = "ssh://pi"', "'-pi' cannot be one"),
        ('name = "p i"\naddress = "ssh://pi"', "'p i' cannot be one"),
        ('name = "pi\\u001b[2J"\naddress = "ssh://pi"', "cannot be one"),
        ('name = "pi"\naddress = "ssh://pi"\npython = "-c"', "python: '-c' is no program"),
        ('name = "pi"\naddress = "ssh://pi"\npython = "py\\nthon"', "is no program"),
        ('name = "pi"\naddress = "ssh://pi"\ntags = ["a b"]', "'a b' cannot be one"),
        (f'name = "pi"\naddress = "ssh://pi"\nnotes = "{"x" * 1001}"', "notes is longer"),
        ('name = "pi"\npython = "python3.12"', "python says nothing without an address"),
        ('name = "ssh://pi"\ntags = ["a"]\nnotes = "b"', "tags and notes say nothing without an address"),
        ('name = "pi"\n[[device]]\nname = "pi"', "expected each device once, got pi again"),
        ('name = ""', r"device\[0\]\.name: expected text of length at least 1"),
        ('name = "pi"\naddress = ""', r"device\[0\]\.address: expected text of length at least 1"),
        ('adress = "ssh://pi"', r"device\[0\]\.adress is not known; known there: name, address, tags, notes, python, power_meter"),
        ('address = "ssh://pi"', "missing required field `name`"),
    ],
)
def test_each_mistake_is_one_message_that_names_the_recipe(tmp_path: Path, table: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read(tmp_path, f"{MODEL}[[device]]\n{table}\n")
    assert "recipe.toml: " in str(refused.value)
    assert refused.value.remedy
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", ['["bench", "local"]', "[]", '"bench"', "3"])
def test_where_devices_were_named_before_one_is_told_what_to_write(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"run\.devices: devices are tables of their own") as refused:
        read(tmp_path, f"{MODEL}run.devices = {value}\n")
    assert "[[device]]" in (refused.value.remedy or "")


def test_a_flag_that_is_none_is_told_as_it_was_typed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--device  orin: expected text of length at least 1"):
        read(tmp_path, MODEL, "", "orin")


def test_a_recipe_of_python_is_held_to_the_same() -> None:
    recipe = Recipe(device=(Device(name="pi", address="ssh://pi", python="-c"),))
    with pytest.raises(InputError, match="is no program"):
        validated(recipe)
    with pytest.raises(InputError, match="is no program"):
        resolved(recipe)
    assert validated(Recipe(device=(Device(name="local"),))).device[0].name == "local"
    with pytest.raises(ValueError, match="each device once"):
        msgspec.structs.replace(recipe, device=(Device(name="pi"), Device(name="pi")))

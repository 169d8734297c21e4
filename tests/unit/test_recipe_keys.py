"""What is written about recipes is read out of their types: nothing of it can be missing, wrong or out of date."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commandline import deploy
from dtvit_deploy.cli.app import app
from dtvit_deploy.recipe.keys import Key, Table, commented, reference, tables, toml
from dtvit_deploy.recipe.reading import load_recipe
from dtvit_deploy.recipe.tables import Recipe

ROOT = Path(__file__).parents[2]
NEEDED = '[model]\nname = "dualtoken-vit-t-mix"\n'
KEYS = [(table, key) for table in tables() for key in table.keys]


def named(one: object) -> str:
    return f"{one.paths[0]}" if isinstance(one, Table) else one.name if isinstance(one, Key) else ""


def test_the_page_is_that_of_the_types() -> None:
    assert (ROOT / "docs" / "recipe.md").read_text() == reference(), "out of date: make docs"


@pytest.mark.parametrize(("table", "key"), KEYS, ids=named)
def test_every_key_is_explained_and_its_example_is_taken(table: Table, key: Key, tmp_path: Path) -> None:
    assert len(key.text) > 8, f"{table.paths[0]}.{key.name} has no line in the docstring of its type"
    assert key.kind
    text = f"{key.name} = {key.example}\n"
    if table.repeated:
        beside = {"model.inputs": {"name": '"image"', "shape": "[1, 3, 8, 8]"}, "device": {"name": '"pi"', "address": '"ssh://pi"'}}
        beside = beside[table.paths[0]] | {key.name: key.example}
        text = "".join(f"{name} = {value}\n" for name, value in beside.items())
    recipe = NEEDED + (text if table.paths[0] == "model" and key.name != "name" else f"{table.header(table.paths[0])}\n{text}")
    if (table.paths[0], key.name) == ("model", "name"):
        recipe = f"[model]\n{text}"
    (tmp_path / "recipe.toml").write_text(recipe)
    load_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(("table", "key"), KEYS, ids=named)
def test_every_default_is_what_a_recipe_without_the_key_has(table: Table, key: Key, tmp_path: Path) -> None:
    if table.repeated or key.default is None:
        assert key.required or table.repeated or key.default is None
        return
    for path in table.paths:
        rest = f"{key.name} = {key.default}\n"
        (tmp_path / "recipe.toml").write_text(NEEDED + (rest if path == "model" else f"[{path}]\n{rest}"))
        assert load_recipe(tmp_path / "recipe.toml") == default(tmp_path)


def default(folder: Path) -> Recipe:
    (folder / "least.toml").write_text(NEEDED)
    return load_recipe(folder / "least.toml")


def test_a_written_recipe_is_the_default_one_and_every_comment_in_it_can_be_made_a_line(tmp_path: Path) -> None:
    text = commented({"model.name": "dualtoken-vit-t-mix"}, "for a test")
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    assert load_recipe(path) == default(tmp_path)
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"# [a-z_0-9]+ = ", line)]
    assert len(keys) > 40
    ends = (("# [[model.inputs]]", "[data]"), ("# [[device]]", "[parity]"))
    inside_list = {number for begin, end in ends for number in range(lines.index(begin), lines.index(end))}
    for number in keys:
        if number not in inside_list:
            path.write_text("\n".join([*lines[:number], lines[number][2:], *lines[number + 1 :]]))
            load_recipe(path)


def test_a_heading_cannot_become_a_key() -> None:
    assert "\nseed = 7" not in commented({}, "for a\nseed = 7")


@given(st.recursive(st.booleans() | st.integers(-(2**62), 2**62) | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_any_value_is_written_so_that_toml_reads_it(value: object) -> None:
    reader = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    assert reader.loads(f"key = {toml(value)}") == {"key": value}


@pytest.mark.parametrize("name", ["plain.toml", "with blank.toml", "new/folder/recipe.toml"])
def test_init_writes_a_recipe_with_paths_that_hold_where_it_lies(name: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    done = deploy(
        "init", "-m", "dualtoken-vit-t-mix", "--data", "images", "-p", "fp32", "-p", "fp16", "-t", "openvino", "-o", name, cwd=tmp_path
    )
    assert f"{name} is written" in done.stdout
    recipe = load_recipe(tmp_path / name)
    assert recipe.data.evaluation is not None
    assert recipe.data.evaluation.resolve() == tmp_path / "images"
    assert [str(one) for one in (*recipe.export.targets, *recipe.export.precisions)] == ["openvino", "fp32", "fp16"]


@pytest.mark.parametrize("name", ["link/recipe.toml", "link/new/recipe.toml", "deep/link/../recipe.toml"])
def test_init_writes_paths_that_hold_behind_a_link(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep" / "down").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/deep/down")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "link").symlink_to("../elsewhere/deep/down")
    (tmp_path / "images").mkdir()
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "images" / "net.pt").symlink_to("../blob")
    (tmp_path / "linked").symlink_to("images")
    deploy("init", "-m", "mine:build", "--data", "link/../../../images", "-c", "linked/net.pt", "-o", name, cwd=tmp_path)
    recipe = load_recipe(tmp_path / name)
    assert recipe.data.evaluation is not None
    assert recipe.data.evaluation.samefile(tmp_path / "images")
    assert recipe.model.checkpoint is not None
    assert recipe.model.checkpoint.samefile(tmp_path / "blob")
    assert recipe.model.checkpoint.name == "net.pt"  # by which it is known for what it is


def test_init_knows_targets_by_the_names_that_export_knows(tmp_path: Path) -> None:
    deploy("init", "-m", "dualtoken-vit-t-mix", "-t", "tensorrt", "-t", "trt", "-t", "coreml", cwd=tmp_path)
    assert [str(target) for target in load_recipe(tmp_path / "dtvit-deploy.toml").export.targets] == ["trt", "coreml"]


def test_init_describes_the_inputs_of_a_network_of_ones_own(tmp_path: Path) -> None:
    words = ("init", "-m", "mine.net:build", "--output", "y")
    assert "describe them in it: model.inputs" in deploy(*words, "-o", "without.toml", cwd=tmp_path).stdout
    done = deploy(*words, "--input", "image=1x3x8x8", "--input", "ids=1x4:int64", cwd=tmp_path)
    assert "model.inputs" not in done.stdout
    assert [str(spec) for spec in load_recipe(tmp_path / "dtvit-deploy.toml").model.inputs] == ["image 1×3×8×8 float32", "ids 1×4 int64"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "dualtoken-vit-t-mix", "-o", "there.toml"], "there.toml exists, and is left as it is"),
        (["-m", "dualtoken-vit-t-mix", "-o", "link.toml"], "link.toml exists, and is left as it is"),
        (["-m", "dualtoken-vit-t-mix", "-o", "folder"], "folder is a folder"),
        ([], "no model was given"),
        (["-m", "nobody-s-model"], "there is no model 'nobody-s-model'"),
        (["-m", "dualtoken-vit-t-mix", "--data", "absent"], "absent does not exist"),
        (["-m", "dualtoken-vit-t-mix", "-p", "int8"], "INT8 needs calibrated ranges"),
        (["-m", "dualtoken-vit-t-mix", "-t", "onnx", "-p", "bf16"], "nothing can be built for onnx, bf16"),
        (["-m", "dualtoken-vit-t-mix", "-t", "coreml", "-t", "openvino", "-p", "bf16"], "nothing can be built for coreml with"),
        (["-m", "dualtoken-vit-t-mix", "--data", "\udcff"], 'a recipe is UTF-8, and a name for it is not: evaluation = "\\udcff"'),
        (["-m", "dualtoken-vit-t-mix", "-c", "\udcff/net.pt"], 'is not: checkpoint = "\\udcff/net.pt"'),
        (["-m", "mine:build", "--output", "\udcff"], 'is not: outputs = ["\\udcff"]'),
        (["-m", "a.b:c", "--output", "y", "--output", "y"], "expected each output once"),
    ],
)
def test_init_refuses_with_one_message_and_leaves_everything_as_it_was(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text("mine")
    (tmp_path / "link.toml").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "\udcff").mkdir()
    (tmp_path / "\udcff" / "net.pt").write_bytes(b"")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = deploy("init", *arguments, cwd=tmp_path, code=2)
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert ".partial" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.toml").read_text() == "mine"


def test_the_readme_names_every_command_and_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert {"init", "report", "compare"} <= commands
    assert [name for name in sorted(commands) if f"dtvit-deploy {name}" not in text] == []
    assert [code for code in (0, 1, 2, 3, 70, 130, 143) if f"**{code}**" not in text] == []
    assert "docs/recipe.md" in text

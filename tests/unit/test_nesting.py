"""Text that is nested deeper than any file of this project is refused before a parser sees it, in time that grows with its length alone."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import Manifest, read_json
from dtvit_deploy.artifacts.nesting import DEEPEST, require_shallow_json, require_shallow_toml
from dtvit_deploy.calibration.ranges import RangeTable
from dtvit_deploy.errors import InputError
from dtvit_deploy.recipe.reading import load_recipe
from dtvit_deploy.report.schema import Report

DEEP_TOML = {
    "a dotted key": "a" + ".a" * 20_000 + " = 1",
    "a dotted key with quotes and spaces": " . ".join(['"a.b"', "'c'"] * 200) + " = 1",
    "the name of a table": "[a" + ".a" * 20_000 + "]",
    "the name of an array of tables": "[[a" + ".b" * 500 + "]]",
    "arrays": "a = " + "[" * 10_000,
    "inline tables": "a = " + "{b = " * 500,
    "both in turn": "a = " + "[{b = " * 500,
    "behind a string that ends in a quote of its own": 'a = ["""x"""", ' + "[" * 500,
    "behind a literal string that ends in two": "a = ['''x''''', " + "[" * 500,
    "behind a string that ends in an escaped backslash": 'a = ["x\\\\", ' + "[" * 500,
    "behind a string that holds brackets": 'c = "]]]"\na = ' + "[" * 500,
}
FLAT_TOML = {
    "numbers with points": "a = [" + "0.5, " * 1000 + "]",
    "points in a string": 'a = "' + "." * 1000 + '"',
    "brackets in a string of several lines": 'a = """\n' + "[" * 1000 + '\n"""',
    "brackets in a literal string": "a = '''" + "{" * 1000 + "'''",
    "brackets in a comment": "# " + "[" * 1000,
    "escaped quotes": 'a = "' + '\\"[' * 1000 + '"',
    "quotes around one that is escaped": 'a = """""\\""' + "[" * 1000 + '"""',
    "a backslash at the end of a literal string": "a = ['\\', '" + "[" * 1000 + "']",
    "many short keys": "a.b.c = 1\n" * 1000,
}


@pytest.mark.parametrize("text", DEEP_TOML.values(), ids=DEEP_TOML)
def test_a_deep_recipe_is_refused_in_one_sentence_that_is_short(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"is not a recipe: it is nested more than {DEEPEST} deep$"):
        load_recipe(path)


@pytest.mark.parametrize("text", FLAT_TOML.values(), ids=FLAT_TOML)
def test_what_only_looks_deep_is_taken(text: str) -> None:
    require_shallow_toml(text)


@pytest.mark.parametrize("kind", [Manifest, Report, RangeTable, dict], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":[', '{"options":{"b":['])
def test_deep_json_is_refused_whatever_it_is_said_to_be(kind: type, opening: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text(opening * 100_000)
    with pytest.raises(InputError, match=f"nested more than {DEEPEST} deep"):
        read_json(path, kind)


def test_the_last_level_that_is_taken_and_the_first_that_is_not() -> None:
    require_shallow_json(b"[" * DEEPEST + b"]" * DEEPEST)
    require_shallow_json(json.dumps({"a": "[" * 1000, 'b"': '\\"[[' * 100}).encode())
    with pytest.raises(ValueError, match="nested"):
        require_shallow_json(b"[" * (DEEPEST + 1))
    require_shallow_toml("a" + ".a" * DEEPEST + "=1")
    with pytest.raises(ValueError, match="nested"):
        require_shallow_toml("a" + ".a" * (DEEPEST + 1) + "=1")


@pytest.mark.parametrize("unit", ["\\n", '\\"', "\\\\", "a", "[", '""', '","', "'", '"["'], ids=repr)
@pytest.mark.parametrize("opening", ['["', "[", 'a = """', "a = '''", 'a = "'])
def test_no_text_takes_many_times_its_length_in_memory(opening: str, unit: str) -> None:
    text = "[]" * DEEPEST + opening + unit * 30_000
    tracemalloc.start()
    try:
        for refuse in (lambda: require_shallow_toml(text), lambda: require_shallow_json(text.encode())):
            with contextlib.suppress(ValueError):
                refuse()
        assert tracemalloc.get_traced_memory()[1] < 6 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ['"' * 200_001, "'" * 200_001, '"\\' * 100_000, "x" * 200_000, '"""' * 66_667, "[]" * 100_000])
def test_no_text_takes_longer_than_its_length(text: str) -> None:
    """A quadratic pattern would take minutes on these; the limit leaves room for a busy machine."""
    begun = time.process_time()
    require_shallow_toml(text)
    require_shallow_json(text.encode())
    assert time.process_time() - begun < 5

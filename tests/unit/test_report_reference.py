"""What is published of reports is read out of their types: no field lacks its words or its unit, and reports keep to the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect

from commandline import deploy
from dtvit_deploy.artifacts.bounds import Amount, Count, Milliseconds, Share, unit
from dtvit_deploy.artifacts.described import attributes, unit_of
from dtvit_deploy.report import as_data
from dtvit_deploy.report.reference import Field, Kind, json_schema, kinds, page
from dtvit_deploy.report.schema import SCHEMA
from reports import assert_valid
from timed_reports import timed_report

DOCS = Path(__file__).parents[2] / "docs"
FIELDS = [(kind, field) for kind in kinds() for field in kind.fields]


def named(one: object) -> str:
    return one.name if isinstance(one, Kind | Field) else ""


def test_the_page_is_that_of_the_types() -> None:
    assert (DOCS / "report.md").read_text() == page(), "out of date: make docs"


def test_the_published_schema_is_what_the_command_prints() -> None:
    done = deploy("report", "--schema")
    assert done.returncode == 0
    assert done.stdout == (DOCS / "report.schema.json").read_text(), "out of date: make docs"
    assert json.loads(done.stdout) == json.loads(json.dumps(json_schema()))


def test_the_schema_is_printed_by_itself(tmp_path: Path) -> None:
    done = deploy("report", "--schema", tmp_path, code=2)
    assert "give --schema by itself" in done.stderr


@pytest.mark.parametrize("kind", kinds(), ids=named)
def test_every_type_says_what_it_is(kind: Kind) -> None:
    assert len(kind.text) > 8, f"{kind.name} has no docstring"
    assert "**kwargs" not in kind.text


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=named)
def test_every_field_says_what_it_means_and_in_which_unit(kind: Kind, field: Field) -> None:
    assert len(field.text) > 2, f"{kind.name}.{field.name} has no line among the attributes of its docstring"
    assert field.unit is not None, f"{kind.name}.{field.name} is a number: say its unit beside its type, or at the end of its name"


def test_two_types_of_one_name_would_be_one_section() -> None:
    names = [kind.name for kind in kinds()]
    assert sorted(names) == sorted(set(names)) == sorted(name for name in names if name in json_schema()["$defs"])


class _Sample(msgspec.Struct):
    """Any.

    Attributes:
        one, two: of both.
            More of both.
        three: has a colon: here.

    Not an attribute: this.
    """

    one: Share
    two: tuple[Milliseconds | None, ...]
    three_ms: float
    four: dict[str, Annotated[Amount, unit("W")]]
    five: float
    six: str
    seven: Annotated[Count, unit("B")]


def test_a_unit_stands_beside_a_type_however_deep_or_at_the_end_of_a_name() -> None:
    found = {one.name: unit_of(one.name, one.type) for one in _fields(_Sample)}
    assert found == {"one": "1", "two": "ms", "three_ms": "ms", "four": "W", "five": None, "six": "", "seven": "B"}


def test_attributes_end_where_the_docstring_goes_on() -> None:
    assert attributes(_Sample) == {"one": "of both. More of both.", "two": "of both. More of both.", "three": "has a colon: here."}


def _fields(cls: type) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(cls)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


class TestSchema:
    def test_a_report_keeps_to_it(self) -> None:
        assert_valid(_data())

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("schema",), SCHEMA - 1),
            (("subjects", 1, "latency", "p50"), -1.0),
            (("subjects", 1, "latency", "status"), "perhaps"),
            (("subjects", 1, "rung"), "believed"),
            (("subjects", 1, "latency", "more"), 1),
            (("subjects", 0, "sha256"), None),
        ],
    )
    def test_what_this_version_would_not_read_does_not(self, path: tuple[Any, ...], value: object) -> None:
        data = _data()
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        pytest.importorskip("jsonschema", reason="jsonschema is not installed: make setup")
        with pytest.raises(AssertionError, match=str(path[0])):
            assert_valid(data)


def _data() -> Any:
    return json.loads(json.dumps(as_data(timed_report(seed=1))))

"""Whether a report keeps to the schema that is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


def assert_valid(report: dict[str, Any]) -> None:
    """Every error at once, with its place in the report."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: make setup")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    wrong = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(report)]
    assert not wrong, wrong

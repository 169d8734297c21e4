"""One idea a file: one that has grown beyond 300 lines holds several, unless there is a reason for its length."""

from __future__ import annotations

from pathlib import Path

import dtvit_deploy

PACKAGE = Path(dtvit_deploy.__file__).parent
MOST_LINES = 300
LONGER = {
    "export/tensorrt/on_device_build.py": "it is copied to a device as it stands, where nothing else of the package is",
}
"""By path in the package, why a file is longer than others may be."""


def lengths() -> dict[str, int]:
    """Lines of every module, by its path in the package."""
    return {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}


def test_no_file_is_longer_than_300_lines_without_a_reason() -> None:
    assert {name: lines for name, lines in lengths().items() if lines > MOST_LINES and name not in LONGER} == {}


def test_no_reason_outlives_the_length_that_it_was_given_for() -> None:
    found = lengths()
    assert [name for name in LONGER if found.get(name, 0) <= MOST_LINES] == []

"""The emulated cores, where `make test-arm64` has set them up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from arm64.emulated import Machine
from arm64.environment import Environment

VARIABLE = "DTVIT_DEPLOY_ARM64"
"""Names the folder; a run of all tests does not, since these take minutes."""


@pytest.fixture(scope="session")
def environment() -> Environment:
    folder = os.environ.get(VARIABLE)
    if folder is None:
        pytest.skip("needs an emulated ARM64 core, which `make test-arm64` sets up")
    found = Environment(Path(folder))
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture
def machine(environment: Environment, tmp_path: Path) -> Callable[[str, str], Machine]:
    """A core by its name, with a release of ONNX Runtime."""

    def made(core: str, onnx_runtime: str) -> Machine:
        folder = tmp_path / f"{core}-{onnx_runtime}"
        folder.mkdir(exist_ok=True)
        return Machine(environment, core, onnx_runtime, folder)

    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of those that passed, which nobody sees otherwise."""
    reports = terminalreporter.getreports("passed")
    figures = [str(value) for report in reports for name, value in report.user_properties if name == "figures"]
    if figures:
        terminalreporter.section("ONNX Runtime on an emulated ARM64 core (qemu)")
        for line in sorted(figures):
            terminalreporter.write_line(line)

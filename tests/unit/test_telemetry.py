"""What reports home is switched off before it can be imported, here and in every process that is started from here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dtvit_deploy
from dtvit_deploy.process import telemetry
from dtvit_deploy.process.child import child_command

TOLD = """
import os
try:
    import openvino_telemetry
    print("imported")
except ImportError:
    print("not imported", *(os.environ.get(name) for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")))
"""
QUIET = "not imported 1 1"


def said(command: list[str], folder: Path, **variables: str) -> str:
    """What a process prints that could import a reporter: there is one in the folder."""
    (folder / "openvino_telemetry.py").write_text("")
    kept = {name: value for name, value in os.environ.items() if name not in telemetry.VARIABLES}
    env = kept | variables | {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(dtvit_deploy.__file__).parents[1])])}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_anything_of_the_package_is_enough(tmp_path: Path) -> None:
    assert said([sys.executable, "-c", TOLD], tmp_path) == "imported"  # so that the others say something
    assert said([sys.executable, "-c", f"import dtvit_deploy.errors\n{TOLD}"], tmp_path) == QUIET


def test_a_process_that_is_started_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert said(child_command(TOLD), tmp_path) == QUIET


@pytest.mark.parametrize("value", ["0", "", "false"])
def test_a_variable_that_says_less_is_not_left_at_that(tmp_path: Path, value: str) -> None:
    told = said([sys.executable, "-c", f"import dtvit_deploy\n{TOLD}"], tmp_path, ORT_DISABLE_TELEMETRY=value)
    assert told == QUIET


def test_a_variable_that_says_more_stays(tmp_path: Path) -> None:
    code = "import dtvit_deploy, os; print(os.environ['HF_HUB_OFFLINE'])"
    assert said([sys.executable, "-c", code], tmp_path, HF_HUB_OFFLINE="1") == "1"


def test_what_was_imported_before_is_left_alone_and_told(tmp_path: Path) -> None:
    code = "import openvino_telemetry, sys; from dtvit_deploy import telemetry; print(telemetry.state()['OpenVINO and NNCF'])"
    assert said([sys.executable, "-c", code], tmp_path) == "on (openvino_telemetry was imported before dtvit_deploy)"


def test_the_state_is_what_is_and_not_what_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(how.startswith("off (") for how in telemetry.state().values())
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert telemetry.state()["ONNX Runtime"] == "on (ORT_DISABLE_TELEMETRY was changed)"

"""The names that users' code may rely on. A change here is a change for them: it belongs in the CHANGELOG."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

import dtvit_deploy

PUBLIC = {
    "dtvit_deploy": "Artifact BuildOptions CoreMlOptions Cpu Data DeployError Device Export Flavour Gates InputError Int8 Limits"
    " Method MissingError Model Parity Precision PreprocessingChanges Profile Recipe Report Run Target TensorRt"
    " TensorSpec __version__ calibrate evaluate export load_artifact load_recipe profile run verify",
    "dtvit_deploy.artifacts.artifact": "Artifact Link Manifest called encode_json load_artifact manifest_path read_json"
    " sha256_of write_json",
    "dtvit_deploy.errors": "CorruptError DeployError InputError MismatchError MissingError",
    "dtvit_deploy.artifacts.evidence": "Rung",
    "dtvit_deploy.runtimes.base": (
        "Availability DeviceTimed Elsewhere MissingOperatorError OnDevice Planned Profiled Runtime Session SessionOptions"
    ),
    "dtvit_deploy.artifacts.signature": "Signature TensorSpec",
    "dtvit_deploy.artifacts.staging": "replacing staged",
    "dtvit_deploy.artifacts.target": "Cpu Precision Target pairs",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these(module: str) -> None:
    loaded = importlib.import_module(module)
    own = (name for name, value in inspect.getmembers(loaded) if getattr(value, "__module__", None) == module and name[0] != "_")
    assert sorted(getattr(loaded, "__all__", own)) == PUBLIC[module].split()


def test_every_name_in_all_is_there() -> None:
    assert all(hasattr(dtvit_deploy, name) for name in dtvit_deploy.__all__)


def test_the_version_is_the_same_everywhere() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    assert toml.loads(pyproject.read_text())["project"]["version"] == dtvit_deploy.__version__

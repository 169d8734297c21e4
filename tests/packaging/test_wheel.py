"""The wheel holds what it should, and works where only its base dependencies are installed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFFLINE = re.compile("Failed to establish a new connection|name resolution|Network is unreachable")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `$DTVIT_DEPLOY_WHEEL` names, or one built now: from the source distribution, so that none but its files are in."""
    given = os.environ.get("DTVIT_DEPLOY_WHEEL")
    if given:
        return Path(given)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: set[str]) -> Message:
    (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of a new environment that holds the wheel and its base dependencies."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    run(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", str(wheel))
    return folder / "bin"


def run(*command: str) -> str:
    """Standard output of a command that must succeed, run away from the source tree and the user's own packages."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "COLUMNS")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted} | {"PYTHONNOUSERSITE": "1"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode and OFFLINE.search(done.stdout + done.stderr):
        pytest.skip("the package index cannot be reached from here")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands_of(help_text: str) -> list[str]:
    """The sub-commands that `--help` lists: indented by two, under "Commands:"."""
    listed = help_text.partition("Commands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (\w[\w-]*)", listed, re.MULTILINE)


class TestTheFile:
    def test_every_module_is_in_it(self, names: set[str]) -> None:
        source = {str(path.relative_to(ROOT)) for path in (ROOT / "dtvit_deploy").rglob("*.py")}
        assert source
        assert source <= names

    def test_type_checkers_may_use_it(self, names: set[str]) -> None:
        assert "dtvit_deploy/py.typed" in names

    def test_the_reports_templates_are_in_it(self, names: set[str]) -> None:
        templates = {path for path in (ROOT / "dtvit_deploy").rglob("*") if path.suffix in {".jinja", ".css", ".html", ".js"}}
        assert {str(path.relative_to(ROOT)) for path in templates} <= names

    def test_nothing_else_is_in_it(self, names: set[str]) -> None:
        assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"dtvit_deploy"}
        assert not [name for name in names if name.endswith((".pyc", ".safetensors", ".onnx")) or "test" in Path(name).name]

    def test_the_licence_is_in_it_word_for_word(self, wheel: Path, names: set[str], metadata: Message) -> None:
        (licence,) = (name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        with zipfile.ZipFile(wheel) as archive:
            assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert metadata["License-Expression"] == "Apache-2.0"

    def test_no_framework_is_a_base_dependency(self, metadata: Message) -> None:
        base = {requirement for requirement in metadata.get_all("Requires-Dist", []) if "extra ==" not in requirement}
        distributions = {re.split(r"[^\w-]", requirement)[0] for requirement in base}
        assert distributions == {"msgspec", "numpy", "rich", "tomli", "typer", "typing-extensions"}


class TestInAnEmptyEnvironment:
    def test_the_environment_is_empty(self, empty: Path) -> None:
        run(str(empty / "python"), "-c", "import importlib.util as i; assert not any(map(i.find_spec, ['torch', 'onnx', 'PIL']))")

    def test_the_package_imports_from_where_it_was_installed(self, empty: Path) -> None:
        where = run(str(empty / "python"), "-c", "import dtvit_deploy; print(dtvit_deploy.__file__)")
        assert Path(where).is_relative_to(empty.parent)

    def test_the_version_is_the_distributions(self, empty: Path, metadata: Message) -> None:
        assert run(str(empty / "dtvit-deploy"), "--version").split() == ["dtvit-deploy", metadata["Version"]]

    def test_it_runs_as_a_module_too(self, empty: Path) -> None:
        assert run(str(empty / "python"), "-m", "dtvit_deploy", "--version") == run(str(empty / "dtvit-deploy"), "--version")

    def test_the_questions_to_a_device_are_in_it(self, empty: Path) -> None:
        asked = "from dtvit_deploy.devices.probe import probe; from dtvit_deploy.devices.transport import Shell; from pathlib import Path"
        assert run(str(empty / "python"), "-c", f"{asked}; print(probe(Shell(Path('/'))).system)").strip() == platform.system()

    def test_every_command_explains_itself(self, empty: Path) -> None:
        commands = commands_of(run(str(empty / "dtvit-deploy"), "--help"))
        assert {"models", "export", "verify", "evaluate", "profile", "run", "doctor"} <= set(commands)
        for command in commands:
            assert "Usage:" in run(str(empty / "dtvit-deploy"), command, "--help"), command

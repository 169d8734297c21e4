"""Files in the current folder are data: what has a library's name there is not run, and the user's own network is when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dtvit_deploy
from commandline import tree

NAMES = ("json", "re", "numpy", "msgspec", "typer", "onnx", "onnxruntime", "signal", "tomllib", "__future__", "readline", "hashlib")
TRAP = "from pathlib import Path\nPath(__file__).with_name('it-ran').write_text(__name__)\n"
NETWORK = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (torch.zeros(1, 3, 2, 2),)
"""
COMMANDS = (["models"], ["verify", "none.onnx"], ["run", "recipe.toml", "-o", "out"], ["report", "report.json"], ["doctor"])


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "__init__.py").write_text(TRAP)
    (tmp_path / "recipe.toml").write_text("[model]\nseed = 1\n")
    (tmp_path / "report.json").write_text("{}")
    return tmp_path


def module(folder: Path, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", *options, "-m", "dtvit_deploy", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_python_m_runs_nothing_of_it(words: list[str], here: Path) -> None:
    before = tree(here)
    done = module(here, *words)
    assert tree(here) == before, done.stderr
    assert done.returncode in (0, 2, 3)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [("-P",), ("-I",)], ids=lambda options: options[0])
def test_with_a_path_that_is_safe_already_nothing_is_taken_from_it(options: tuple[str, ...], here: Path) -> None:
    if options == ("-P",) and sys.version_info < (3, 11):
        pytest.skip("Python 3.11 brought -P")
    assert module(here, "--version", options=options).stdout == f"dtvit-deploy {dtvit_deploy.__version__}\n"
    assert not (here / "it-ran").exists()


def test_the_package_is_found_where_it_lies_in_the_current_folder_alone(tmp_path: Path) -> None:
    """A checkout that was not installed."""
    (tmp_path / "dtvit_deploy").symlink_to(Path(dtvit_deploy.__file__).parent)
    (tmp_path / "json.py").write_text(TRAP)
    packages = [path for path in sys.path if "site-packages" in path]
    code = (
        f"import runpy, sys; sys.path[:] = [{str(tmp_path)!r}] + [p for p in sys.path if p] + {packages!r}; sys.argv = ['-m', '--version'];"
    )
    code += " runpy.run_module('dtvit_deploy', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-B", "-E", "-s", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == f"dtvit-deploy {dtvit_deploy.__version__}\n", done.stderr
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.slow
def test_the_users_own_network_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    done = module(tmp_path, "export", "-m", "mine:make", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "mine.make.fp32.onnx").is_file()

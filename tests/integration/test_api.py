"""The commands as functions: the page that tells of them runs as it stands, and what they refuse is said as the command line says it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dtvit_deploy
from dtvit_deploy import Data, InputError, Model, Profile, Recipe, Run

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)), (torch.zeros(1, 3, 8, 8),)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    (tmp_path / "called.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    yield Recipe(model=Model(name="called:make"), data=Data(samples=2), profile=Profile(seconds=0.1, samples=2))
    sys.modules.pop("called", None)


@pytest.mark.slow
def test_the_pages_example_runs(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "examples").symlink_to(PAGE.parents[1] / "examples")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "digits").symlink_to(digits)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(PAGE), "exec"), {})
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".json", ".onnx", ".onnx"]


@pytest.mark.slow
def test_artefacts_go_from_one_function_to_the_next_by_themselves_or_by_their_paths(recipe: Recipe, tmp_path: Path) -> None:
    artifacts = dtvit_deploy.export(recipe, tmp_path / "out")
    for given in (artifacts, [tmp_path / "out"], [str(artifacts[0].path)]):
        report = dtvit_deploy.verify(given, recipe)
        assert report.verdict is not None
        assert report.verdict.passed, report.verdict.reason
    timed = dtvit_deploy.profile(artifacts, recipe)
    assert [subject.latency is not None for subject in timed.subjects] == [True, True]
    report = dtvit_deploy.run(recipe, tmp_path / "all", workers=1)
    assert (report.command, (tmp_path / "all" / "report.json").is_file()) == ("run", True)


def test_what_makes_no_sense_is_refused_as_a_recipes_file_would_be(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.threads: expected a whole number of at least 1"):
        dtvit_deploy.export(Recipe(model=recipe.model, run=Run(threads=0)), tmp_path / "out")
    with pytest.raises(InputError, match="no model was given"):
        dtvit_deploy.export(Recipe(), tmp_path / "out")
    with pytest.raises(InputError, match="no artefacts were given"):
        dtvit_deploy.verify([])
    assert not (tmp_path / "out").exists()


def test_every_public_name_is_on_the_page() -> None:
    named = set(re.findall(r"\b\w+\b", PAGE.read_text()))
    assert {name for name in dtvit_deploy.__all__ if name[0] != "_"} - {"Artifact"} <= named

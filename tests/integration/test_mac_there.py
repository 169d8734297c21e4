"""Core ML's packages on a Mac that is reached as a device: opened with the units that were asked for, fed there, judged here.

The Mac is this machine, whose Python has a coremltools with recorded answers. No agent ever ran on macOS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from commandline import deploy
from devices import killed_later
from dtvit_deploy.artifacts.artifact import Artifact, load_artifact
from dtvit_deploy.devices.inventory import Device
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.remote.place import Place
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.mil.runtime import MilRuntime
from mac import Mac

pytest.importorskip("coremltools")
NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 4)).eval(), (torch.zeros(1, 3, 16, 16),)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("work")
    (folder / "mine.py").write_text(NETWORK)
    deploy("export", "-m", "mine:make", "-t", "coreml", "-p", "fp32", "-o", "out", cwd=folder)
    return load_artifact(folder / "out" / "mine.make.fp32.mlpackage")


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mac]:
    board = Mac(tmp_path / "mac")
    monkeypatch.setenv("PATH", str(board.programs), prepend=os.pathsep)
    with killed_later(board):
        yield board


def reached(mac: Mac) -> Place:
    return Place(Device(name="mini", address=None, python=str(mac.python)), lambda text: None)


@pytest.mark.parametrize(("runtime", "units"), [("coreml", "ALL"), ("coreml-cpu", "CPU_ONLY"), ("coreml-ne", "CPU_AND_NE")])
def test_a_package_answers_there_with_the_units_that_were_asked_for(mac: Mac, package: Artifact, runtime: str, units: str) -> None:
    (spec,) = package.manifest.signature.inputs
    feeds = [{spec.name: np.random.default_rng(seed).standard_normal(spec.shape, np.float32)} for seed in range(3)]
    with MilRuntime().load(package, SessionOptions()) as session:
        answers = [dict(session.run(feed)) for feed in feeds]
    mac.records(list(zip(feeds, answers, strict=True)))
    with reached(mac) as place:
        (there,) = place.ask([(package, runtime)], feeds, threads=1)
        with there.load(package, SessionOptions()) as found:
            for feed, answer in zip(feeds, answers, strict=True):
                for name, values in found.run(feed).items():
                    np.testing.assert_array_equal(values, answer[name])
            assert found.conditions["system"] == "macOS 15.1"
            assert found.conditions["chip"] == "Apple M2 Pro"
            assert found.conditions["runtime"] == f"{runtime} 9.0"
    assert mac.opened == {units}


def test_what_the_mac_says_of_feeds_is_said_here(mac: Mac, package: Artifact) -> None:
    (spec,) = package.manifest.signature.inputs
    mac.records([])
    with reached(mac) as place, pytest.raises(InputError, match="gave no"):
        place.ask([(package, "coreml")], [{spec.name: np.zeros(spec.shape, np.float32)}], threads=1)


def test_a_mac_without_coremltools_is_told_what_to_install(mac: Mac, package: Artifact) -> None:
    for path in (mac.folder / "packages").glob("coremltools*"):
        path.rename(mac.folder / path.name)
    (spec,) = package.manifest.signature.inputs
    with reached(mac) as place, pytest.raises(MissingError, match="coremltools") as told:
        place.ask([(package, "coreml")], [{spec.name: np.zeros(spec.shape, np.float32)}], threads=1)
    assert "pip install coremltools" in str(told.value.remedy)

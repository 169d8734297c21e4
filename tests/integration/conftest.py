"""What the integration tests share: a cache of their own, the digits as images, one calibration of the digits checkpoint, and a device."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from commandline import deploy
from devices import Board, killed_later
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.remote.asking import Asked
from jobs import asked_for, export_small, small_feeds

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "examples" / "digits" / "digits.safetensors"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the session, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("DTVIT_DEPLOY_CACHE")
    os.environ["DTVIT_DEPLOY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DTVIT_DEPLOY_CACHE"]
    else:
        os.environ["DTVIT_DEPLOY_CACHE"] = before


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """What ``make`` writes to a path, made by one of the processes that share a test run, for all of them."""
    base = factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / name
        if not path.exists():
            unfinished = folder / f"unfinished-{name}"
            make(unfinished)
            unfinished.rename(path)
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as class-folder trees: ``train`` and ``held-out``."""
    data = ROOT / "examples" / "digits" / "data.py"
    return once(tmp_path_factory, "digits", lambda folder: subprocess.run([sys.executable, data, folder], check=True))


@pytest.fixture(scope="session")
def ranges(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path) -> Path:
    """The range table of the digits checkpoint, from 300 of its train images."""
    asked = ("--data", digits / "train", "--evaluation", digits / "held-out", "--samples", 300)
    return once(tmp_path_factory, "ranges.json", lambda path: deploy("calibrate", "-c", checkpoint, *asked, "-o", path))


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    return CHECKPOINT


@pytest.fixture(scope="session")
def vouch() -> Callable[[Path, Manifest], Artifact]:
    """Give a changed file a manifest that vouches for it, so that only a comparison can find the change."""

    def vouched(path: Path, manifest: Manifest) -> Artifact:
        digest = sha256_of(path)
        *before, last = manifest.lineage
        lineage = (*before, msgspec.structs.replace(last, sha256=digest))
        write_json(manifest_path(path), msgspec.structs.replace(manifest, sha256=digest, lineage=lineage))
        return load_artifact(path)

    return vouched


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """A small network as ONNX and OpenVINO in FP32, FP16 and INT8."""
    folder = once(tmp_path_factory, "exported", export_small)
    return [load_artifact(path.with_suffix("")) for path in sorted((folder / "out").glob("mine*.json"))]


@pytest.fixture(scope="session")
def feeds() -> list[Feeds]:
    """Six, of that network."""
    return small_feeds()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A device that is this machine."""
    board = Board(tmp_path / "board")
    with killed_later(board):
        yield board


@pytest.fixture
def asked(tmp_path: Path, exported: list[Artifact], feeds: list[Feeds]) -> Asked:
    """Answers of two ONNX artefacts."""
    return asked_for(tmp_path, exported[:3:2], feeds)

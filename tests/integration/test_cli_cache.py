"""The cache shows what it holds, and lets go of it, and of nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from commandline import deploy
from dtvit_deploy.artifacts.cache import Cache


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three entries, one of them not used for ten days, and a file of the user's own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(root))
    for stage, key in (("onnx", 1), ("onnx", 2), ("int8-float16", 3)):
        entry = Cache(root).entry(stage, key, lambda folder: (folder / "model").write_bytes(bytes(500_000)) and None)
    old = time.time() - 10 * 86400
    os.utime(entry, (old, old))
    (root / "mine.txt").write_text("mine")
    return root


def test_it_shows_what_is_kept_by_stage(root: Path) -> None:
    said = deploy("cache").stdout
    assert "3 entries, 1.50 MB" in said
    assert "10 d ago" in said
    rows = json.loads(deploy("cache", "--json").stdout)
    assert sorted((row["stage"], row["bytes"]) for row in rows) == [("int8-float16", 500_000), ("onnx", 500_000), ("onnx", 500_000)]
    assert [row["stage"] for row in json.loads(deploy("cache", "--older-than", "9d", "--json").stdout)] == ["int8-float16"]


def test_it_lets_go_of_what_was_not_used_for_so_long_and_then_of_all(root: Path) -> None:
    deploy("cache", "--prune", "--older-than", "9d")
    assert {path.name.rpartition("-")[0] for path in root.iterdir() if path.is_dir()} == {"onnx"}
    deploy("cache", "--prune")
    assert [path.name for path in root.iterdir()] == ["mine.txt"]
    assert "0 entries" in deploy("cache").stdout


def test_what_is_no_time_is_refused_and_nothing_goes(root: Path) -> None:
    done = deploy("cache", "--prune", "--older-than", "yesterday", code=2)
    assert "--older-than 'yesterday' is no time" in done.stderr
    assert len(json.loads(deploy("cache", "--json").stdout)) == 3


def test_where_there_is_none_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTVIT_DEPLOY_CACHE", str(tmp_path / "absent"))
    assert "0 entries" in deploy("cache").stdout
    assert not (tmp_path / "absent").exists()

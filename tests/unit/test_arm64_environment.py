"""Where an emulated ARM64 core cannot be had, the reason is said, and tests skip with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arm64 import environment
from arm64.environment import CORES, MISSING, Environment, UnavailableError, set_up


def test_nothing_there_names_what_sets_it_up(tmp_path: Path) -> None:
    assert Environment(tmp_path).missing == f"{tmp_path} holds no emulated ARM64 core: `make test-arm64` sets it up"


def test_a_machine_without_debian_s_tools_leaves_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get, apt-cache, dpkg is not on this machine"):
        set_up(tmp_path / "arm64")
    script = [sys.executable, environment.__file__, str(tmp_path / "arm64")]
    done = subprocess.run(script, capture_output=True, text=True, check=True, env={"PATH": str(tmp_path)})
    assert "no emulated ARM64 core here" in done.stderr
    assert Environment(tmp_path / "arm64").missing == (tmp_path / "arm64" / MISSING).read_text().strip()


def test_only_one_of_the_cores_says_that_it_has_fp16_arithmetic() -> None:
    assert [core for core, (_, features) in CORES.items() if "asimdhp" in features.split()] == ["cortex-a76"]

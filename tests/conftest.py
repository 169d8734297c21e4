"""What holds for every test: the vendors are quiet, a computation takes one thread, no example is too slow, what is long may wait."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything that counts cores: files run side by side, and threads that wait for each other actively take what others would use.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the base install has none; what needs it skips
    pass
else:
    # A busy machine takes any time for an example, and to think of one.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-thorough` what shows once more, on more images or at more moments, what shorter tests show too."""
    if "DTVIT_DEPLOY_THOROUGH" not in os.environ:
        for item in items:
            if "thorough" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes long; `make test-thorough` runs it"))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a device's programs (`captured.program`), which is searched before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder

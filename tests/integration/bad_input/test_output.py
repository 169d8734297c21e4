"""Places that cannot be written, at once or in the end: one clear message, and nothing left behind."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import refused, tree


class TestOutput:
    """Refused before any work: in less time than it takes to load PyTorch."""

    @pytest.mark.parametrize(
        ("out", "reason"),
        [
            ("networks.py", "networks.py is not a folder"),
            ("networks.py/below", "networks.py is not a folder"),
            ("/proc/out", "cannot write to the folder /proc/out"),
            ("/sys/out", "cannot write to the folder /sys/out"),
        ],
    )
    def test_one_that_cannot_be_written_is_refused_at_once(self, out: str, reason: str, work: Path) -> None:
        for command in (("export", "-m", "networks:net"), ("verify", "net/networks.net.fp32.onnx")):
            said = refused(*command, "-o", out, cwd=work, out=False)
            assert reason in said
            assert "try: choose another output folder" in said

    def test_a_cache_that_cannot_be_written_is_refused_with_a_way_out(self, work: Path) -> None:
        said = refused("export", "-m", "networks:net", cwd=work, DTVIT_DEPLOY_CACHE=str(work / "networks.py"))
        assert "networks.py cannot be written" in said
        assert "--no-cache" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class TestAFullDisk:
    def test_under_the_output(self, work: Path, small_disk: Path) -> None:
        said = refused("export", "-m", "networks:large", "-o", small_disk / "new" / "out", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new/out: No space left on device" in said
        assert "try: free some space" in said
        assert tree(small_disk) == {}

    def test_under_the_cache(self, work: Path, small_disk: Path) -> None:
        said = refused("export", "-m", "networks:large", cwd=work, DTVIT_DEPLOY_CACHE=str(small_disk))
        assert f"the cache {small_disk} cannot be written: No space left on device" in said
        assert {name for name in tree(small_disk) if not name.startswith("machine")} == set()  # there, empty files are locked

    def test_under_a_report(self, work: Path, small_disk: Path) -> None:
        (small_disk / "ballast").write_bytes(bytes((1 << 20) - 8192))
        said = refused("verify", "net/networks.net.fp32.onnx", "-o", small_disk / "new", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new: No space left on device" in said
        assert list(tree(small_disk)) == ["ballast"]

    @pytest.mark.thorough
    def test_under_the_report_of_a_run(self, work: Path, small_disk: Path) -> None:
        (small_disk / "ballast").write_bytes(bytes((1 << 20) - (80 << 10)))
        (work / "recipe.toml").write_text('[model]\nname = "networks:net"\n[data]\nevaluation = "images"\n')
        said = refused("run", "recipe.toml", "-o", small_disk / "new", cwd=work, out=False)
        assert f"cannot write to the folder {small_disk}/new: No space left on device" in said
        assert list(tree(small_disk)) == ["ballast"]

    def test_a_limit_on_the_size_of_files(self, work: Path) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        said = refused("export", "-m", "networks:large", cwd=work, limit=limit)
        assert "File too large" in said

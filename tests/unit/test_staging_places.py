"""Places that cannot be written, and disks that fill up: said in one sentence, with nothing left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.staging import replacing, staged
from dtvit_deploy.errors import InputError
from staged_files import run, tree, write


class TestTheFolderCannotBeWritten:
    def test_a_file_is_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file")
        for folder in (tmp_path / "out", tmp_path / "out" / "deeper" / "still"):
            with pytest.raises(InputError, match=f"{tmp_path / 'out'} is not a folder") as caught, staged(folder):
                pytest.fail("the block must not be entered")
            assert caught.value.remedy == "choose another output folder"
        assert tree(tmp_path) == {"out": "a file"}

    def test_a_folder_is_in_the_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is a folder"), replacing(tmp_path):
            pytest.fail("the block must not be entered")

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that refuses even root: /proc and /sys")
    @pytest.mark.parametrize("folder", ["/proc/out", "/sys/out/deeper"])
    def test_the_file_system_refuses(self, folder: str) -> None:
        with pytest.raises(InputError, match=f"cannot write to the folder {folder}"), staged(Path(folder)):
            pytest.fail("the block must not be entered")

    @pytest.mark.parametrize("name", ["seen", "seen/unseen/out"])
    def test_the_user_may_not(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "seen" / "unseen").mkdir(parents=True)
        (tmp_path / "seen" / "unseen").chmod(0)
        (tmp_path / "seen").chmod(0o555)
        result = run(
            """
            if os.geteuid() == 0:
                os.seteuid(65534)  # root may write everywhere
            try:
                with staged(out):
                    print("entered")
            except InputError as error:
                print(error, "|", error.remedy)
            """,
            tmp_path / name,
        )
        assert result.stdout == f"cannot write to the folder {tmp_path / name}: Permission denied | choose another output folder\n"
        (tmp_path / "seen").chmod(0o755)
        (tmp_path / "seen" / "unseen").chmod(0o755)

    def test_a_process_that_can_open_nothing_more_leaves_nothing(self, tmp_path: Path) -> None:
        result = run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                with staged(out):
                    print("entered")
            except InputError as error:
                print(error)
            """,
            tmp_path / "out",
        )
        assert result.stdout == f"cannot write to the folder {tmp_path / 'out'}: Too many open files\n", result.stderr
        assert tree(tmp_path) == {}


class TestTheDiskIsFull:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of one megabyte."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if shutil.which("mount") is None or subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], stderr=subprocess.DEVNULL
        ):
            pytest.skip("a small file system can only be mounted by root")
        yield disk
        subprocess.check_call(["umount", disk])

    def test_it_is_said_and_the_space_is_given_back(self, small: Path) -> None:
        with pytest.raises(InputError, match="No space left on device") as caught, staged(small / "out") as stage:
            (stage / "model.onnx").write_bytes(bytes(2 << 20))
        assert "free some space" in str(caught.value.remedy)
        assert isinstance(caught.value.__cause__, OSError)
        assert tree(small) == {}
        assert shutil.disk_usage(small).used == 0

    def test_it_is_said_of_a_writer_that_says_something_else(self, small: Path) -> None:
        def write_as_torch_does(path: Path) -> None:
            try:
                path.write_bytes(bytes(2 << 20))
            except OSError:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0") from None

        with pytest.raises(InputError, match="No space left on device"), staged(small / "out") as stage:
            write_as_torch_does(stage / "program.pt2")

    def test_it_is_said_of_a_writer_that_takes_its_file_away(self, tmp_path: Path) -> None:
        as_safetensors_does = RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")
        with pytest.raises(InputError, match="No space left on device"):
            write(tmp_path, {}, failing=as_safetensors_does)

    def test_an_error_on_a_disk_with_room_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="unexpected pos"):
            write(tmp_path, {}, failing=RuntimeError("unexpected pos 64 vs 0"))

    def test_a_limit_on_the_size_of_files_is_said(self, tmp_path: Path) -> None:
        result = run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
            try:
                with staged(out) as stage:
                    (stage / "model.onnx").write_bytes(bytes(1 << 20))
            except InputError as error:
                print(error, "|", error.remedy)
            """,
            tmp_path / "out",
        )
        assert "File too large | raise the limit" in result.stdout, result.stderr
        assert tree(tmp_path) == {}

"""Output is whole or absent, whether the block that writes it ends well or fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import write_json
from dtvit_deploy.artifacts.staging import replacing, staged
from dtvit_deploy.errors import InputError, MissingError
from staged_files import tree, write


class TestTheBlockEndsWell:
    def test_a_set_of_files_arrives_with_its_sub_folders(self, tmp_path: Path) -> None:
        with staged(tmp_path / "a" / "out") as stage:
            (stage / "model.onnx").write_text("weights")
            (stage / "parity").mkdir()
            (stage / "parity" / "layers.json").write_text("{}")
            assert not (tmp_path / "a" / "out" / "model.onnx").exists()
        assert tree(tmp_path) == {"a/out/model.onnx": "weights", "a/out/parity/layers.json": "{}"}

    def test_older_files_of_the_same_name_are_replaced_and_others_stay(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_text("old")
        (tmp_path / "notes.txt").write_text("the user's")
        with staged(tmp_path) as stage:
            (stage / "model.onnx").write_text("new")
        assert tree(tmp_path) == {"model.onnx": "new", "notes.txt": "the user's"}

    def test_one_file_keeps_its_suffix_while_it_is_written(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "out" / "plot.png") as part:
            assert part.name == "plot.png"  # matplotlib takes the format from it, numpy appends its own to any other
            part.write_text("picture")
        assert tree(tmp_path) == {"out/plot.png": "picture"}

    def test_a_manifest_gets_its_name_before_what_it_describes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = []
        replace = Path.replace

        def watched(self: Path, target: Path) -> Path:
            moved.append(target.name)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", watched)
        with staged(tmp_path) as stage:
            for name in ("model.fp32.onnx.json", "model.fp32.onnx", "model.fp16.onnx.json", "model.fp16.onnx"):
                (stage / name).touch()
        assert moved == ["model.fp16.onnx.json", "model.fp16.onnx", "model.fp32.onnx.json", "model.fp32.onnx"]

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_files_are_as_readable_as_the_umask_says(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            with staged(tmp_path) as stage:
                (stage / "plain").touch()
                os.close(os.open(stage / "private", os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors makes them
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}

    def test_a_forgotten_write_is_a_defect_and_not_an_empty_success(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="nothing was written"), replacing(tmp_path / "file"):
            pass
        assert tree(tmp_path) == {}

    def test_json_is_written_through_it(self, tmp_path: Path) -> None:
        write_json(tmp_path / "new" / "report.json", {"b": 1, "a": 2})
        assert tree(tmp_path) == {"new/report.json": '{\n  "a": 2,\n  "b": 1\n}\n'}


class TestTheBlockFails:
    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit, MissingError])
    def test_nothing_stays_of_it_and_the_failure_is_the_callers(self, tmp_path: Path, failure: type[BaseException]) -> None:
        with pytest.raises(failure, match="why"):
            write(tmp_path / "a" / "b", {"half": "…"}, failing=failure("why"))
        assert tree(tmp_path) == {}
        assert tmp_path.is_dir()

    def test_what_was_there_before_stays(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model.onnx").write_text("old")
        with pytest.raises(ValueError, match="why"):
            write(tmp_path / "out", {"model.onnx": "new"}, failing=ValueError("why"))
        assert tree(tmp_path) == {"out/model.onnx": "old"}

    def test_an_empty_folder_of_the_user_stays(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(ValueError, match="why"):
            write(tmp_path / "out" / "deeper", {"half": "…"}, failing=ValueError("why"))
        assert tree(tmp_path) == {"out/": ""}

    def test_a_file_that_the_block_could_not_read_is_not_blamed_on_the_output(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), staged(tmp_path / "out"):
            (tmp_path / "input").read_text()

    @pytest.mark.parametrize("older", [True, False])
    def test_a_set_that_cannot_all_be_moved_is_not_moved_at_all(self, tmp_path: Path, older: bool) -> None:
        if older:
            (tmp_path / "a").write_text("old")
        (tmp_path / "b").mkdir()  # in the way of the file of that name
        before = tree(tmp_path)
        with pytest.raises(InputError, match="cannot write b to the folder"):
            write(tmp_path, {"a": "new", "a2/c": "new", "b": "new"})
        assert tree(tmp_path) == before

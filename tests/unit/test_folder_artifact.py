"""An artefact may be a folder: it has one digest, is replaced as a whole, and is never half old and half new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dtvit_deploy.artifacts.artifact import Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.staging import staged
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError

OLD = {"model.xml": "the old graph", "model.bin": "the old weights", "extra/vocabulary.txt": "one word"}
NEW = {"model.xml": "the new graph", "model.bin": "the new weights"}
NAME = "model.fp32.openvino"


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def make(path: Path, files: dict[str, str]) -> Path:
    """A folder artefact with its manifest."""
    digest = sha256_of(fill(path, files))
    tensor = TensorSpec("x", (1, 2))
    link = Link(kind="openvino", sha256=digest)
    signature = Signature((tensor,), (tensor,))
    manifest = Manifest(model="any", format="openvino", precision=Precision.FP32, sha256=digest, signature=signature, lineage=(link,))
    write_json(manifest_path(path), manifest)
    return path


def texts(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}


class TestDigest:
    def test_it_is_that_of_names_and_contents_and_of_nothing_else(self, tmp_path: Path) -> None:
        one = fill(tmp_path / "one", OLD)
        other = fill(tmp_path / "elsewhere" / "two", dict(reversed(OLD.items())))  # written in another order, at another time
        (other / "empty").mkdir()
        os.utime(other / "model.xml", (0, 0))
        assert sha256_of(one) == sha256_of(other)

    @pytest.mark.parametrize(
        "change",
        [
            {"model.bin": "the old weightz"},
            {"model.bin": ""},
            {"added.txt": ""},
            {".hidden": "x"},
            {"extra/vocabulary.txt": "one wordmodel.bin"},
        ],
        ids=str,
    )
    def test_any_change_inside_changes_it(self, tmp_path: Path, change: dict[str, str]) -> None:
        assert sha256_of(fill(tmp_path / "one", OLD)) != sha256_of(fill(tmp_path / "two", OLD | change))

    def test_a_file_that_went_away_or_moved_changes_it(self, tmp_path: Path) -> None:
        before = sha256_of(fill(tmp_path, OLD))
        (tmp_path / "model.bin").rename(tmp_path / "extra" / "model.bin")
        moved = sha256_of(tmp_path)
        (tmp_path / "extra" / "model.bin").unlink()
        assert len({before, moved, sha256_of(tmp_path)}) == 3

    def test_bytes_cannot_wander_from_a_name_into_a_content(self, tmp_path: Path) -> None:
        assert sha256_of(fill(tmp_path / "one", {"ab": "c"})) != sha256_of(fill(tmp_path / "two", {"a": "bc"}))


class TestLoading:
    def test_it_is_found_with_what_was_written_of_it_and_its_size_is_that_of_all_files(self, tmp_path: Path) -> None:
        found = load_artifact(make(tmp_path / NAME, OLD))
        assert (found.name, found.manifest.format) == (NAME, "openvino")
        assert found.bytes == sum(map(len, OLD.values()))

    def test_a_path_that_ends_in_a_slash_is_the_same(self, tmp_path: Path) -> None:
        make(tmp_path / NAME, OLD)
        assert load_artifact(Path(f"{tmp_path / NAME}/")).name == NAME

    @pytest.mark.parametrize("file", OLD)
    def test_one_in_which_a_file_was_changed_is_not_mistaken_for_it(self, tmp_path: Path, file: str) -> None:
        path = make(tmp_path / NAME, OLD)
        (path / file).write_text("something else")
        with pytest.raises(InputError, match="was changed after export"):
            load_artifact(path)

    def test_whoever_gives_a_file_of_it_is_told_to_give_the_folder(self, tmp_path: Path) -> None:
        path = make(tmp_path / NAME, OLD)
        with pytest.raises(InputError, match=r"model\.xml has no manifest") as caught:
            load_artifact(path / "model.xml")
        assert caught.value.remedy == f"give {path}, the whole folder"

    def test_what_is_neither_a_file_nor_a_folder_is_none(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / NAME)  # opening it would wait for ever
        with pytest.raises(InputError, match="there is no artefact at"):
            load_artifact(tmp_path / NAME)


class TestReplacing:
    def test_nothing_of_the_older_one_stays(self, tmp_path: Path) -> None:
        make(tmp_path / NAME, OLD)
        (tmp_path / "notes.txt").write_text("the user's")
        with staged(tmp_path) as stage:
            make(stage / NAME, NEW)
        assert texts(load_artifact(tmp_path / NAME).path) == NEW
        assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, f"{NAME}.json", "notes.txt"]

    def test_a_folder_without_a_manifest_is_merged_as_ever(self, tmp_path: Path) -> None:
        fill(tmp_path / "pictures", {"one.png": "1"})
        with staged(tmp_path) as stage:
            fill(stage / "pictures", {"two.png": "2"})
        assert texts(tmp_path) == {"pictures/one.png": "1", "pictures/two.png": "2"}

    @pytest.mark.parametrize("there", [False, True], ids=["the first", "over another"])
    def test_one_that_cannot_be_moved_leaves_all_as_it_was(self, tmp_path: Path, there: bool) -> None:
        if there:
            make(tmp_path / NAME, OLD)
        (tmp_path / "z.onnx").mkdir()
        (tmp_path / "z.onnx" / "the user's").touch()
        before = texts(tmp_path)

        def replace() -> None:
            with staged(tmp_path) as stage:
                make(stage / NAME, NEW)
                (stage / "z.onnx").write_text("in whose place a folder is")

        with pytest.raises(InputError, match=r"cannot write z\.onnx"):
            replace()
        assert texts(tmp_path) == before

    def test_a_file_in_its_place_is_no_folder_to_replace(self, tmp_path: Path) -> None:
        (tmp_path / NAME).write_text("the user's")

        def replace() -> None:
            with staged(tmp_path) as stage:
                make(stage / NAME, NEW)

        with pytest.raises(InputError, match="cannot write"):
            replace()
        assert texts(tmp_path) == {NAME: "the user's"}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from dtvit_deploy.artifacts.staging import staged

source, out, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def watch(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

with staged(out) as stage:
    shutil.copytree(source, stage, dirs_exist_ok=True)
    sys.addaudithook(watch)
"""


@pytest.mark.parametrize("there", [False, True], ids=["the first", "over another"])
def test_killed_at_every_single_step_it_is_absent_or_whole(tmp_path: Path, there: bool) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    make(tmp_path / "new" / NAME, NEW)
    seen: set[str] = set()
    for step in range(50):
        out = tmp_path / f"out-{step}"
        out.mkdir()
        if there:
            make(out / NAME, OLD)
        code = subprocess.run([sys.executable, str(script), str(tmp_path / "new"), str(out), str(step)], check=False).returncode
        seen.add(state(out))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        with staged(out):  # what was left behind goes with the next write
            pass
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert state(out) == "new"
    assert seen == ({"old", "absent", "new"} if there else {"absent", "new"})


def state(out: Path) -> str:
    """What a reader finds: never anything in between."""
    if not (out / NAME).exists():
        return "absent"
    found = texts(load_artifact(out / NAME).path)
    return "old" if found == OLD else "new" if found == NEW else "mixed"

"""What is kept on a device is whole, private and of bounded age; what is not what it should be is not there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from dtvit_deploy.agent import keeping, store
from dtvit_deploy.agent.jobs import begin
from dtvit_deploy.agent.keeping import MOST_RESULTS, WEEK, clean, prune
from dtvit_deploy.agent.lock import locked
from dtvit_deploy.agent.store import Store
from dtvit_deploy.artifacts.artifact import Link, Manifest
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.formats.job.job import Blob, Job, State, Subject, encode_job

CONTENT = bytes(range(256)) * 1000
BLOB = Blob(sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT))


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "device")


def aged(path: Path, seconds: float) -> Path:
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))
    return path


def finished(kept: Store, name: str, size: int = 10) -> Path:
    folder = kept.jobs / name
    folder.mkdir()
    with (folder / "results").open("wb") as file:
        file.truncate(size)
    return folder


class TestABlob:
    def test_comes_whole_and_private(self, kept: Store) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        assert kept.missing([BLOB]) == {}
        assert kept.blob(BLOB.sha256).read_bytes() == CONTENT
        assert stat.S_IMODE(kept.root.stat().st_mode) == 0o700

    @pytest.mark.parametrize("first", [0, 1, 1000, len(CONTENT) - 1])
    def test_that_broke_off_goes_on_from_there(self, kept: Store, first: int) -> None:
        with pytest.raises(MissingError, match="did not come"):
            kept.put(BLOB, 0, io.BytesIO(CONTENT[:first]))
        assert kept.missing([BLOB]) == {BLOB.sha256: first}
        kept.put(BLOB, first, io.BytesIO(CONTENT[first:]))
        assert kept.missing([BLOB]) == {}

    def test_that_is_another_is_refused_and_nothing_of_it_stays(self, kept: Store) -> None:
        with pytest.raises(InputError, match="altered on its way"):
            kept.put(BLOB, 0, io.BytesIO(CONTENT[:-1] + b"x"))
        assert list(kept.blobs.iterdir()) == []

    def test_that_was_damaged_is_not_there(self, kept: Store) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        kept.blob(BLOB.sha256).write_bytes(CONTENT[:-1])
        assert kept.missing([BLOB]) == {BLOB.sha256: 0}
        assert not kept.blob(BLOB.sha256).exists()

    @pytest.mark.parametrize("damage", ["longer", "as long", "another file"])
    def test_that_was_verified_and_changed_since_is_read_again_and_found_out(self, kept: Store, damage: str) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        path = kept.blob(BLOB.sha256)
        if damage == "another file":
            path.unlink()
        path.write_bytes(CONTENT + b"x" if damage == "longer" else CONTENT[::-1])
        assert kept.missing([BLOB]) == {BLOB.sha256: 0}

    def test_is_read_once_and_again_after_something_failed(self, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        read: list[Path] = []
        digest = store._digest
        monkeypatch.setattr(store, "_digest", lambda path: read.append(path) or digest(path))
        for _ in range(3):
            assert kept.missing([BLOB]) == {}
        assert read == []
        kept.doubt()
        assert kept.missing([BLOB]) == {}
        assert read == [kept.blob(BLOB.sha256)]

    def test_without_a_list_of_what_was_verified_or_with_a_strange_one_is_read(self, kept: Store) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        for text in ("", "[]", "[" * 100_000, f'{{"{BLOB.sha256}": 3}}', "nonsense"):
            (kept.root / "verified.json").write_text(text)
            assert kept.missing([BLOB]) == {}
            kept.blob(BLOB.sha256).write_bytes(CONTENT[::-1])
            assert kept.missing([BLOB]) == {BLOB.sha256: 0}
            kept.put(BLOB, 0, io.BytesIO(CONTENT))

    def test_in_a_folder_that_others_can_write_is_read_each_time(self, tmp_path: Path) -> None:
        stick = Store(tmp_path / "stick", private=False)
        stick.put(BLOB, 0, io.BytesIO(CONTENT))
        assert not (stick.root / "verified.json").exists()

    def test_of_which_less_is_there_than_the_host_believes_is_refused(self, kept: Store) -> None:
        with pytest.raises(MissingError, match="should be on the device"):
            kept.put(BLOB, 5, io.BytesIO(CONTENT[5:]))

    def test_that_is_longer_than_was_said_is_not_read_further(self, kept: Store) -> None:
        stream = io.BytesIO(CONTENT + b"more")
        kept.put(BLOB, 0, stream)
        assert stream.tell() == len(CONTENT)

    def test_for_which_there_is_no_room_is_refused_before_it_comes(self, kept: Store) -> None:
        stream = io.BytesIO(b"x")
        with pytest.raises(MissingError, match=r"disk is full: .* MB are free"):
            kept.put(Blob(sha256="a" * 64, bytes=1 << 49), 0, stream)
        assert stream.tell() == 0

    def test_that_fills_the_disk_says_so(self, kept: Store) -> None:
        class Full(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(MissingError, match="disk is full"):
            kept.put(BLOB, 0, cast(BinaryIO, Full()))


def test_a_job_whose_blobs_do_not_all_fit_is_refused_before_the_first_of_them_comes(kept: Store) -> None:
    signature = Signature((TensorSpec("image", (1, 3)),), (TensorSpec("logits", (1, 3)),))
    link = Link(kind="onnx", sha256=BLOB.sha256)
    manifest = Manifest(model="m", format="onnx", precision=Precision.FP32, sha256=BLOB.sha256, signature=signature, lineage=(link,))
    blobs = tuple(Blob(sha256=name * 64, bytes=1 << 48) for name in "ab")
    subject = Subject(name="net", runtime="onnxruntime", manifest=manifest, files={blob.sha256[:1]: blob.sha256 for blob in blobs})
    with pytest.raises(MissingError, match="disk is full"):
        begin(kept, encode_job(Job(agent="c" * 64, blobs=blobs, subjects=(subject,), tasks=(State(),))), "me", wait=True)
    assert list(kept.blobs.iterdir()) == []


def test_a_folder_that_others_can_write_is_refused(kept: Store) -> None:
    kept.root.chmod(0o777)
    with pytest.raises(InputError, match="can be written by others"):
        Store(kept.root)


def test_a_file_in_the_folders_place_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "device").write_text("")
    with pytest.raises(MissingError, match="cannot be made"):
        Store(tmp_path / "device")


class TestPruning:
    def test_takes_what_nobody_asked_for_in_a_week(self, kept: Store) -> None:
        old, new = aged(finished(kept, "old"), WEEK + 60), finished(kept, "new")
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        aged(kept.blob(BLOB.sha256), WEEK + 60)
        prune(kept)
        assert (old.exists(), new.exists(), kept.blob(BLOB.sha256).exists()) == (False, True, False)

    def test_takes_the_oldest_results_beyond_a_gigabyte(self, kept: Store) -> None:
        old, new = aged(finished(kept, "old", MOST_RESULTS // 2 + 1), 60), finished(kept, "new", MOST_RESULTS // 2)
        prune(kept)
        assert (old.exists(), new.exists()) == (False, True)

    def test_takes_nothing_that_a_job_needs_which_goes_on(self, kept: Store) -> None:
        running = finished(kept, "running")
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        lock = locked(running)
        assert lock is not None
        aged(running, WEEK + 60)
        aged(kept.blob(BLOB.sha256), WEEK + 60)
        prune(kept)
        os.close(lock)
        assert running.exists()
        assert kept.blob(BLOB.sha256).exists()

    def test_takes_nothing_that_the_next_job_needs_though_it_came_in_1970(self, kept: Store) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        os.utime(kept.blob(BLOB.sha256), (0, 0))
        prune(kept, {BLOB.sha256})
        assert kept.missing([BLOB]) == {}

    def test_by_a_clock_that_was_set_back_takes_nothing(self, kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = finished(kept, "job")
        monkeypatch.setattr(keeping.time, "time", lambda: 60.0)  # 1970
        prune(kept)
        assert folder.exists()


class TestCleaning:
    def test_leaves_nothing(self, kept: Store) -> None:
        kept.put(BLOB, 0, io.BytesIO(CONTENT))
        assert clean(kept) >= len(CONTENT)
        assert not kept.root.exists()

    def test_is_refused_while_a_job_goes_on(self, kept: Store) -> None:
        lock = locked(finished(kept, "running"))
        assert lock is not None
        with pytest.raises(InputError, match="goes on there"):
            clean(kept)
        os.close(lock)
        assert store.size_of(kept.jobs / "running" / "results") == 10

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dtvit_deploy.artifacts import cache as module
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def write(text: str = "done", size: int = 0) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "result").write_bytes(text.encode() + bytes(size))

    return build


def unused(folder: Path) -> None:
    raise AssertionError(f"{folder} is built again")


def looked_into(folder: Path) -> bool:
    raise AssertionError(f"{folder} is read")


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir())


class TestEntries:
    def test_one_is_built_once_and_found_again(self, cache: Cache) -> None:
        first = cache.entry("onnx", {"b": 1, "a": (1, 2)}, write())
        assert (first / "result").read_text() == "done"
        assert cache.entry("onnx", {"a": [1, 2], "b": 1}, unused) == first
        assert Cache(cache.root).entry("onnx", {"a": [1, 2], "b": 1}, unused) == first

    def test_another_key_or_stage_is_another_entry(self, cache: Cache) -> None:
        entries = {cache.entry(stage, key, write()) for stage in ("onnx", "float16") for key in ({"a": 1}, {"a": 2}, {"a": "1"})}
        assert len(entries) == 6

    def test_the_folder_is_private(self, cache: Cache) -> None:
        entry = cache.entry("program", 1, write())
        assert cache.root.stat().st_mode & 0o077 == 0
        assert entry.stat().st_mode & 0o077 == 0

    def test_a_build_starts_in_an_empty_folder_that_nobody_else_takes_for_the_result(self, cache: Cache) -> None:
        def build(folder: Path) -> None:
            assert not list(folder.iterdir())
            assert folder.name.startswith(".")
            assert cache.find("onnx", lambda entry: True) is None
            write()(folder)

        assert cache.entry("onnx", 1, build).name.startswith("onnx-")

    def test_an_entry_is_found_by_what_it_holds(self, cache: Cache) -> None:
        cache.entry("program", 1, write("one"))
        second = cache.entry("program", 2, write("two"))
        cache.entry("onnx", 2, write("two"))
        assert cache.find("program", lambda entry: (entry / "result").read_text() == "two") == second
        assert cache.find("program", lambda entry: False) is None
        assert Cache(cache.root / "nowhere").find("program", lambda entry: True) is None


class TestEntriesByContent:
    """For what is built each time, and then known by what it is."""

    def entry(self, cache: Cache, text: str) -> Path:
        return cache.entry_by_content("program", write(text), lambda part: (part / "result").read_text())

    def test_equal_content_is_one_entry_and_other_content_another(self, cache: Cache) -> None:
        first = self.entry(cache, "a")
        os.utime(first, (1000, 1000))
        assert self.entry(cache, "b") != first == self.entry(cache, "a")
        assert first.stat().st_mtime > 1000  # used just now, so that it is not the next to go
        assert len(names(cache)) == 2
        assert cache.find("program", lambda entry: (entry / "result").read_text() == "a") == first

    def test_one_that_was_damaged_meanwhile_is_replaced(self, cache: Cache) -> None:
        first = self.entry(cache, "a")
        (first / "result").write_text("b")
        assert (self.entry(cache, "a") / "result").read_text() == "a"
        assert names(cache) == [first.name]

    def test_killed_before_the_entry_has_its_name_leaves_what_the_next_build_removes(self, cache: Cache) -> None:
        body = """
        import os, signal, sys
        from pathlib import Path
        from dtvit_deploy.artifacts.cache import Cache
        build = lambda part: (part / "result").write_text("a")
        Cache(Path(sys.argv[1])).entry_by_content("program", build, lambda part: os.kill(os.getpid(), signal.SIGKILL))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(body), cache.root], check=False)
        assert done.returncode == -signal.SIGKILL
        (left,) = names(cache)
        assert left.startswith(".program-")
        assert names(cache) != [self.entry(cache, "a").name]
        assert len(names(cache)) == 1


class TestWhoElseMayWrite:
    """Programs are unpickled from the cache: whoever can write it could run what they like."""

    @pytest.fixture
    def to_another(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
        """Give a folder to another user, as far as this one can."""

        def give(folder: Path) -> None:
            if os.geteuid() == 0:
                os.chown(folder, 12345, -1)
            else:
                monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

        return give

    def test_a_folder_that_others_can_only_read_is_fine_and_stays_so(self, cache: Cache) -> None:
        cache.root.mkdir()
        cache.root.chmod(0o755)
        entry = cache.entry("program", 1, write())
        assert cache.find("program", lambda _: True) == entry
        assert cache.root.stat().st_mode & 0o7777 == 0o755

    def test_what_a_umask_of_002_made_is_mended(self, cache: Cache) -> None:
        before = os.umask(0o002)
        try:
            cache.root.mkdir()
            entry = cache.entry("program", 1, write())
            entry.chmod(0o775)  # as copied from another place
        finally:
            os.umask(before)
        assert cache.entry("program", 1, unused) == entry
        assert (cache.root.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o755, 0o755)

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775, 0o702])
    def test_one_that_was_opened_to_others_is_refused_and_not_changed(self, cache: Cache, mode: int) -> None:
        cache.entry("program", 1, write())
        cache.root.chmod(mode)
        for use in (
            lambda: cache.entry("program", 1, unused),
            lambda: cache.entry("program", 2, unused),
            lambda: cache.find("program", bool),
            lambda: cache.beside("fonts"),
        ):
            with pytest.raises(InputError, match=rf"the cache {cache.root} can be written by others \(mode {mode:o}\)") as caught:
                use()
            assert f"chmod go-w {cache.root}" in str(caught.value.remedy)
        assert cache.root.stat().st_mode & 0o7777 == mode
        assert len(names(cache)) == 1

    def test_one_of_another_user_is_refused(self, cache: Cache, to_another: Callable[[Path], None]) -> None:
        cache.root.mkdir(mode=0o755)
        to_another(cache.root)
        for use in (lambda: cache.entry("program", 1, unused), lambda: cache.find("program", bool)):
            with pytest.raises(InputError, match=f"the cache {cache.root} belongs to another user"):
                use()

    def test_so_is_a_folder_beside_the_entries(self, cache: Cache) -> None:
        folder = cache.beside("fonts")
        assert cache.beside("fonts") == folder == cache.root / "fonts"
        folder.chmod(0o777)
        with pytest.raises(InputError, match=r"fonts can be written by others \(mode 777\)"):
            cache.beside("fonts")

    @pytest.mark.parametrize("how", ["another's", "open to all"])
    def test_an_entry_that_others_put_there_is_not_even_looked_into(
        self, cache: Cache, how: str, to_another: Callable[[Path], None]
    ) -> None:
        entry = cache.entry("program", 1, write())
        if how == "another's":
            cache.root.chmod(0o755)
            to_another(entry)
        else:
            entry.chmod(0o777)
        for use in (lambda: cache.entry("program", 1, unused), lambda: cache.find("program", looked_into)):
            with pytest.raises(InputError, match="programs are loaded from it, and would run what others put there"):
                use()
        with pytest.raises(InputError, match="would run what others"):
            cache.entry_by_content("program", write(), lambda part: 1)
        assert names(cache) == [entry.name]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to root")
    def test_what_root_owns_is_believed_since_root_can_do_everything(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = cache.entry("program", 1, write())
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert cache.entry("program", 1, unused) == entry

    def test_a_file_in_the_way_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "file").chmod(0o664)
        with pytest.raises(InputError, match="cannot be written"):
            Cache(tmp_path / "file").entry("onnx", 1, write())
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o664


class TestFailures:
    @pytest.mark.parametrize("error", [ValueError("no"), InputError("no"), KeyboardInterrupt()])
    def test_a_build_that_fails_leaves_nothing_and_can_be_tried_again(self, cache: Cache, error: BaseException) -> None:
        def fail(folder: Path) -> None:
            (folder / "half").write_text("ha")
            raise error

        with pytest.raises(type(error)) as caught:
            cache.entry("onnx", 1, fail)
        assert caught.value is error
        assert names(cache) == []
        assert cache.entry("onnx", 1, write()).is_dir()

    def test_a_full_disk_is_the_caches_affair(self, cache: Cache) -> None:
        def fail(folder: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(InputError, match=rf"the cache {cache.root} cannot be written: No space left on device"):
            cache.entry("onnx", 1, fail)
        assert names(cache) == []

    def test_a_file_that_the_work_itself_misses_is_not(self, cache: Cache) -> None:
        def read(folder: Path) -> None:
            Path("/nowhere/checkpoint.pt").read_bytes()

        with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt"):
            cache.entry("onnx", 1, read)

    def test_a_file_in_the_way_is_named_with_a_way_out(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(InputError, match=f"the cache {root} cannot be written") as caught:
                Cache(root).entry("onnx", 1, write())
            assert caught.value.remedy == "set DTVIT_DEPLOY_CACHE to a folder of yours, or use --no-cache"

    def test_a_read_only_file_system_is_named(self) -> None:
        with pytest.raises(InputError, match="the cache /proc/cache cannot be written"):
            Cache(Path("/proc/cache")).entry("onnx", 1, write())

    def test_what_is_there_is_used_even_if_it_cannot_be_touched(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = cache.entry("onnx", 1, write())

        def denied(path: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "utime", denied)
        assert cache.entry("onnx", 1, unused) == entry


PROGRAM = """
import sys, time
from pathlib import Path
from dtvit_deploy.artifacts.cache import Cache

def build(folder):
    (folder / "result").write_text("ha")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "result").write_text(sys.argv[2])

print((Cache(Path(sys.argv[1])).entry("onnx", 1, build) / "result").read_text(), flush=True)
"""


def start(cache: Cache, text: str) -> subprocess.Popen[str]:
    """Another process, halfway through the same build."""
    command = [sys.executable, "-c", PROGRAM, str(cache.root), text]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    return process


class TestOtherProcesses:
    def test_all_may_build_the_same_and_the_first_result_stays(self, cache: Cache) -> None:
        processes = [start(cache, text) for text in "abc"]
        assert len(names(cache)) == 3
        found = [process.communicate("\n")[0] for process in processes]
        assert found == ["a\n"] * 3
        assert [process.returncode for process in processes] == [0, 0, 0]
        assert len(names(cache)) == 1
        assert (cache.entry("onnx", 1, unused) / "result").read_text() == "a"

    def test_what_a_living_one_builds_is_left_alone_and_what_a_killed_one_left_is_removed(self, cache: Cache) -> None:
        living, killed = start(cache, "living"), start(cache, "killed")
        killed.kill()
        killed.communicate()
        assert len(names(cache)) == 2
        cache.entry("other", 1, write())
        assert len([name for name in names(cache) if name.startswith(".")]) == 1
        assert living.communicate("\n")[0] == "living\n"
        assert len(names(cache)) == 2

    def test_the_lock_tells_and_not_a_process_number(self, cache: Cache) -> None:
        cache.root.mkdir()
        left, held = (cache.root / f".onnx-{'0' * 32}-{digit * 8}" for digit in "12")
        for folder in (left, held):
            folder.mkdir()
        descriptor = os.open(held, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            cache.entry("onnx", 1, write())
        finally:
            os.close(descriptor)
        assert (left.exists(), held.exists()) == (False, True)


class TestLimit:
    @pytest.fixture(autouse=True)
    def _limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LIMIT", 10_000)

    def fill(self, cache: Cache, count: int = 3) -> list[Path]:
        entries = []
        for key in range(count):
            entries.append(cache.entry("onnx", key, write(size=3000)))
            os.utime(entries[-1], (1000 + key, 1000 + key))
        return entries

    def test_the_least_recently_used_go(self, cache: Cache) -> None:
        first, second, third = self.fill(cache)
        assert cache.size() == 3 * 3004
        cache.entry("onnx", 0, unused)  # used just now
        fourth = cache.entry("onnx-simplified", 3, write(size=3000))
        assert [entry.exists() for entry in (first, second, third, fourth)] == [True, False, True, True]
        assert cache.size() == 3 * 3004

    def test_what_was_used_within_the_hour_stays_beyond_the_limit(self, cache: Cache) -> None:
        """A plan that is being carried out builds on it, and each of its processes would else remove what another has made."""
        first, second, third = self.fill(cache)
        cache.hold([first, tmp := cache.root / "onnx-gone"])
        cache.entry("onnx", "large", write(size=20_000))
        assert [entry.exists() for entry in (first, second, third, tmp)] == [True, False, False, False]

    def test_thousands_of_entries_are_not_measured_at_each_one_more(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LIMIT", 1 << 30)
        self.fill(cache)
        measured: list[Path] = []
        monkeypatch.setattr(module, "size_of", lambda folder: measured.append(folder) or 3000)
        cache.entry("onnx", "one more", write(size=3000))
        assert len(measured) == 1

    def test_the_newest_stays_even_if_it_alone_is_too_large(self, cache: Cache) -> None:
        entries = self.fill(cache)
        large = cache.entry("onnx", "large", write(size=20_000))
        assert names(cache) == [large.name]
        assert not any(entry.exists() for entry in entries)

    def test_one_that_is_removed_is_never_seen_by_half(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        entries = self.fill(cache)
        seen: list[int] = []

        def look(folder: Path, ignore_errors: bool) -> None:
            seen.append(sum(entry.exists() for entry in entries))  # a process may be killed from here on

        monkeypatch.setattr(shutil, "rmtree", look)
        cache.entry("onnx", 3, write(size=3000))
        assert seen[-1] == 2

    def test_what_others_build_is_not_counted_and_not_removed(self, cache: Cache) -> None:
        process = start(cache, "other")
        self.fill(cache)
        cache.entry("onnx", "large", write(size=20_000))
        assert process.communicate("\n")[0] == "other\n"

    def test_a_folder_that_holds_more_than_the_cache_keeps_the_rest(self, cache: Cache) -> None:
        mine = [cache.root / name for name in ("my-thesis", ".ssh-keys", ".config", f"notes-{'0' * 31}")]
        for folder in mine:
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(bytes(20_000))
        self.fill(cache, 5)
        assert all((folder / "file").exists() for folder in mine)
        assert cache.size() == 3 * 3004


class TestWhere:
    def test_the_users_own_choice_comes_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("DTVIT_DEPLOY_CACHE", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert Cache.default().root == tmp_path / ".cache" / "dtvit-deploy"
        monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
        assert Cache.default().root == Path("/var/cache/dtvit-deploy")
        monkeypatch.setenv("DTVIT_DEPLOY_CACHE", "~/fast disk")
        assert Cache.default().root == tmp_path / "fast disk"

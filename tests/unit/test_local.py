"""How many threads can really run at once here: affinity, a container's limit and other work all count."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtvit_deploy.devices import local


def group(root: Path, **files: str) -> Path:
    """A file system that says which control groups this process is in (``proc``), and what each file of them holds."""
    for name, text in files.items():
        path = root / ("proc/self/cgroup" if name == "proc" else f"sys/fs/cgroup/{name.replace('__', '/').replace('_max', '.max')}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestQuota:
    def test_a_container_that_sees_its_own_group_as_the_root(self, tmp_path: Path) -> None:
        assert local.quota(group(tmp_path, proc="0::/\n", cpu_max="150000 100000\n")) == 1.5

    def test_a_service_is_bound_by_the_narrowest_group_on_the_way_to_it(self, tmp_path: Path) -> None:
        root = group(tmp_path, proc="0::/jobs/mine\n", jobs__cpu_max="50000 100000\n", jobs__mine__cpu_max="300000 100000\n")
        assert local.quota(root) == 0.5

    def test_the_older_version_has_two_files_in_a_hierarchy_of_its_own(self, tmp_path: Path) -> None:
        root = group(tmp_path, proc="4:memory:/elsewhere\n2:cpu,cpuacct:/docker/abc\n0::/\n")
        folder = root / "sys/fs/cgroup/cpu/docker/abc"
        folder.mkdir(parents=True)
        (folder / "cpu.cfs_quota_us").write_text("200000\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")
        assert local.quota(root) == 2.0
        (folder / "cpu.cfs_quota_us").write_text("-1\n")
        assert local.quota(root) is None

    @pytest.mark.parametrize("files", [{}, {"proc": "0::/\n"}, {"proc": "0::/\n", "cpu_max": "max 100000\n"}, {"cpu_max": "1 0\n"}])
    def test_where_nothing_bounds_it_there_is_none(self, tmp_path: Path, files: dict[str, str]) -> None:
        assert local.quota(group(tmp_path, **files)) is None

    def test_this_machine_is_read_without_a_fault(self) -> None:
        bound = local.quota()
        assert bound is None or bound > 0


class TestCrowded:
    @pytest.fixture(autouse=True)
    def four_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local, "cores", lambda: 4)
        self.load(monkeypatch, 0.2)

    def load(self, monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (amount, 0.0, 0.0), raising=False)

    def test_a_core_for_each_is_enough(self, tmp_path: Path) -> None:
        assert local.crowded(4, tmp_path) == ""

    def test_more_than_the_process_may_use(self, tmp_path: Path) -> None:
        assert local.crowded(5, tmp_path).startswith("5 threads, and this process may use 4 cores: ")

    def test_more_than_the_container_gets(self, tmp_path: Path) -> None:
        root = group(tmp_path, proc="0::/\n", cpu_max="100000 100000\n")
        assert local.crowded(2, root).startswith("2 threads, and the container gets 1 core: ")

    def test_more_than_other_work_leaves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load(monkeypatch, 2.9)
        assert local.crowded(2, tmp_path).startswith("2 threads, and other work takes 2.9 of 4 cores: ")

    def test_one_thread_is_the_least_that_there_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load(monkeypatch, 99.0)
        assert local.crowded(1, group(tmp_path, proc="0::/\n", cpu_max="10000 100000\n")) == ""

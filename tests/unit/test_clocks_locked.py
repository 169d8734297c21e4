"""Clocks are held still while a latency is taken, and given back, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import captured
from clocks import guards_of, said, until
from dtvit_deploy.devices.clocks.guard import RECORD, give_back_left
from dtvit_deploy.devices.clocks.locking import locked
from dtvit_deploy.errors import MissingError

CPU = "/sys/devices/system/cpu"
POLICY = f"{CPU}/cpufreq/policy0"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[captured.Tree]:
    tree = captured.Tree(tmp_path / "board", captured.lines("intel-turbo.tree"))
    for folder in (tree.root / CPU[1:] / "cpufreq").glob("policy*"):
        for name, usual in (("base_frequency", "2400000"), ("scaling_min_freq", "400000"), ("scaling_max_freq", "4700000")):
            if not (folder / name).exists():
                (folder / name).write_text(f"{usual}\n")
    yield tree
    tree.close()


def test_clocks_are_at_one_value_meanwhile_and_what_they_were_afterwards(board: captured.Tree) -> None:
    before = said(board.root)
    with locked(board.root) as how:
        now = said(board.root)
        assert how == "locked at 2400 MHz, no turbo"
        changed = {name.removeprefix(str(board.root)): value for name, value in now.items() if value != before[name]}
        assert changed[f"{CPU}/intel_pstate/no_turbo"] == "1"
        assert changed[f"{POLICY}/scaling_governor"] == "performance"
        assert changed[f"{POLICY}/scaling_max_freq"] == changed[f"{POLICY}/scaling_min_freq"] == "2400000"
        (kept,) = json.loads((board.root / RECORD).read_text())
        assert {f"/{one['path']}": one["locked"] for one in kept["files"]}.items() >= changed.items()
    assert said(board.root) == before
    assert (board.root / RECORD).read_text() == ""


def test_they_are_given_back_when_what_is_measured_fails(board: captured.Tree) -> None:
    before = said(board.root)
    with pytest.raises(ZeroDivisionError), locked(board.root):
        _ = 1 / 0
    assert said(board.root) == before


HOLD = "import sys, time, pathlib; from dtvit_deploy.devices.clocks.locking import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])) as how:\n    print(how, flush=True); time.sleep(600)\n"


def holding(board: captured.Tree) -> subprocess.Popen[str]:
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(board.root)], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    assert held.stdout.readline() == "locked at 2400 MHz, no turbo\n"
    return held


def ended(held: subprocess.Popen[str]) -> None:
    held.wait()
    assert held.stdout is not None
    held.stdout.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_they_are_given_back_when_whoever_measures_is_killed(board: captured.Tree, how: signal.Signals) -> None:
    before = said(board.root)
    held = holding(board)
    held.send_signal(how)
    ended(held)
    until(lambda: said(board.root) == before)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the guard is found in Linux's /proc")
def test_what_two_killed_ones_left_the_next_command_gives_back(board: captured.Tree) -> None:
    before = said(board.root)
    held = holding(board)
    os.kill(guards_of(board.root)[0], signal.SIGKILL)
    held.kill()
    ended(held)
    assert said(board.root) != before
    with locked(board.root):  # which takes what was shipped for what there was, and not what was left locked
        pass
    assert said(board.root) == before


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the guard is found in Linux's /proc")
def test_a_guard_that_is_killed_meanwhile_is_told_and_what_it_held_is_given_back(board: captured.Tree) -> None:
    before = said(board.root)
    with pytest.raises(MissingError, match="clocks did not stay locked"), locked(board.root):
        os.kill(guards_of(board.root)[0], signal.SIGKILL)
    assert said(board.root) == before


def test_a_second_command_is_refused_and_takes_nothing_from_the_first(board: captured.Tree) -> None:
    before = said(board.root)
    with locked(board.root):
        now = said(board.root)
        assert give_back_left(board.root, patience=0) == []
        with pytest.raises(MissingError, match="another command has them locked now"), locked(board.root, patience=0.2):
            pass
        assert said(board.root) == now
    assert said(board.root) == before


def test_clocks_that_somebody_else_moved_meanwhile_were_not_locked(board: captured.Tree) -> None:
    before = said(board.root)
    with pytest.raises(MissingError, match=f"did not stay locked: {POLICY}/scaling_governor changed"), locked(board.root):
        board.put(f"{POLICY}/scaling_governor", "powersave")
    assert said(board.root) == before


@pytest.mark.parametrize(
    ("path", "content", "said_of_it"),
    [
        (f"{POLICY}/scaling_available_governors", "powersave schedutil", "has the governors powersave, schedutil, and not performance"),
        (f"{POLICY}/scaling_min_freq", "<closed>", "scaling_min_freq cannot be read"),
        (f"{POLICY}/cpuinfo_max_freq", "<none>", "does not tell its highest clock"),
    ],
)
def test_a_machine_that_cannot_is_refused_and_left_as_it_was(board: captured.Tree, path: str, content: str, said_of_it: str) -> None:
    (board.root / POLICY[1:] / "base_frequency").unlink()
    board.put(path, content)
    before = said(board.root)
    with pytest.raises(MissingError, match=said_of_it), locked(board.root):
        pass
    assert said(board.root) == before


def test_a_machine_without_clocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no policy in /sys/devices/system/cpu/cpufreq"), locked(tmp_path):
        pass


def test_without_intels_file_it_is_boost_that_is_off(tmp_path: Path) -> None:
    tree = captured.Tree(tmp_path / "board", captured.lines("amd-no-boost.tree"))
    for path, content in (("boost", "1"), ("policy0/scaling_max_freq", "4900000"), ("policy0/scaling_min_freq", "400000")):
        tree.put(f"{CPU}/cpufreq/{path}", content)
    tree.put(f"{POLICY}/cpuinfo_max_freq", "4900000")  # which is that of boost
    tree.put(f"{CPU}/cpu0/acpi_cppc/nominal_freq", "3400")
    before = said(tree.root)
    with locked(tree.root) as how:
        assert how == "locked at 3400 MHz, no turbo"
        assert (tree.root / CPU[1:] / "cpufreq/boost").read_text().strip() == "0"
    assert said(tree.root) == before
    tree.close()


def test_what_another_version_left_is_told_and_not_thrown_away(board: captured.Tree) -> None:
    record = board.root / RECORD
    record.parent.mkdir(parents=True)
    for content in ('[{"type":"crystal","hertz":32768}]', '[{"path":"a","before":"1","locked":"2"}]'):
        record.write_text(content)
        with pytest.raises(MissingError, match="could not be given back: what another version of dtvit-deploy left"), locked(board.root):
            pass
        assert record.read_text() == content


def test_who_is_about_to_give_back_is_waited_for(board: captured.Tree) -> None:
    before = said(board.root)
    held = holding(board)
    held.kill()
    with locked(board.root):
        pass
    assert said(board.root) == before
    ended(held)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_another_user_than_root_is_told_what_to_do_by_hand() -> None:
    with pytest.raises(MissingError, match="root alone may") as refused, locked():
        pass
    assert "sudo jetson_clocks" in str(refused.value.remedy)


def leftover(board: captured.Tree, path: str, before: str) -> Path:
    """A record of one file, as a killed guard leaves it."""
    record = board.root / RECORD
    record.parent.mkdir(parents=True, mode=0o755, exist_ok=True)
    record.write_text(json.dumps([{"type": "processor", "files": [{"path": path, "before": before, "locked": "1"}]}]))
    return record


def test_a_record_is_written_into_no_other_file_than_those_of_clocks(board: captured.Tree) -> None:
    board.put(f"{CPU}/cpufreq/boost", "0")
    leftover(board, f"{CPU[1:]}/cpufreq/boost", "1")
    assert give_back_left(board.root) == []
    assert (board.root / CPU[1:] / "cpufreq/boost").read_text() == "1"  # what is ours is given back
    victim = board.root / "victim"
    victim.write_text("as it was")
    for path in ("victim", f"{CPU[1:]}/cpufreq/../../../../../victim", f"../{board.root.name}/victim"):
        leftover(board, path, "written")
        give_back_left(board.root)
        assert victim.read_text() == "as it was"


@pytest.mark.parametrize("whose", ["folder", "record"])
def test_a_record_that_others_may_write_is_none_of_ours(board: captured.Tree, whose: str) -> None:
    board.put(f"{CPU}/cpufreq/boost", "0")
    record = leftover(board, f"{CPU[1:]}/cpufreq/boost", "1")
    (record if whose == "record" else record.parent).chmod(0o777)
    assert give_back_left(board.root) == []
    assert (board.root / CPU[1:] / "cpufreq/boost").read_text().strip() == "0"
    with pytest.raises(MissingError, match="others may write there"), locked(board.root):
        pass


@pytest.mark.parametrize("kind", ["bytes", "folder", "pipe", "link"])
def test_what_is_no_record_stops_no_measurement(board: captured.Tree, kind: str) -> None:
    record = leftover(board, "any", "1")
    record.unlink()
    if kind == "bytes":
        record.write_bytes(b"\xff\xfe\x00")
    elif kind == "folder":
        record.mkdir()
    elif kind == "pipe":
        os.mkfifo(record)
    else:
        record.symlink_to(board.root / "elsewhere")
    assert give_back_left(board.root) == []


def test_what_was_of_a_processor_that_is_gone_is_not_asked_for_any_more(board: captured.Tree) -> None:
    record = leftover(board, f"{CPU[1:]}/cpufreq/policy99/scaling_max_freq", "400000")
    assert give_back_left(board.root) == []
    assert record.read_text() == ""

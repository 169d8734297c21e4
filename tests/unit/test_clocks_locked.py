"""Clocks are held still while a latency is taken, and given back, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import captured
from dtvit_deploy.devices.clocks.guard import RECORD, give_back_left
from dtvit_deploy.devices.clocks.locking import locked
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.pipeline.figures import require_as_shipped
from dtvit_deploy.recipe.judging import Profile
from dtvit_deploy.recipe.tables import Recipe

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


def said(board: captured.Tree) -> dict[str, str]:
    """All that the tree says, but for the record."""
    return {str(path): path.read_text().strip() for path in board.root.rglob("*") if path.is_file() and path.name != "clocks.json"}


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.02)


def test_clocks_are_at_one_value_meanwhile_and_what_they_were_afterwards(board: captured.Tree) -> None:
    before = said(board)
    with locked(board.root) as how:
        now = said(board)
        assert how == "locked at 2400 MHz, no turbo"
        changed = {name.removeprefix(str(board.root)): value for name, value in now.items() if value != before[name]}
        assert changed[f"{CPU}/intel_pstate/no_turbo"] == "1"
        assert changed[f"{POLICY}/scaling_governor"] == "performance"
        assert changed[f"{POLICY}/scaling_max_freq"] == changed[f"{POLICY}/scaling_min_freq"] == "2400000"
        assert len(json.loads((board.root / RECORD).read_text())) >= len(changed)
    assert said(board) == before
    assert (board.root / RECORD).read_text() == ""


def test_they_are_given_back_when_what_is_measured_fails(board: captured.Tree) -> None:
    before = said(board)
    with pytest.raises(ZeroDivisionError), locked(board.root):
        _ = 1 / 0
    assert said(board) == before


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
    before = said(board)
    held = holding(board)
    held.send_signal(how)
    ended(held)
    until(lambda: said(board) == before)


def guard_of(board: captured.Tree) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"clocks.guard" in words and words.rstrip(b"\0").endswith(str(board.root).encode()):
            return int(folder.name)
    raise AssertionError("there is no guard")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the guard is found in Linux's /proc")
def test_what_two_killed_ones_left_the_next_command_gives_back(board: captured.Tree) -> None:
    before = said(board)
    held = holding(board)
    os.kill(guard_of(board), signal.SIGKILL)
    held.kill()
    ended(held)
    assert said(board) != before
    with locked(board.root):  # which takes what was shipped for what there was, and not what was left locked
        pass
    assert said(board) == before


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the guard is found in Linux's /proc")
def test_a_guard_that_is_killed_meanwhile_is_told_and_what_it_held_is_given_back(board: captured.Tree) -> None:
    before = said(board)
    with pytest.raises(MissingError, match="clocks did not stay locked"), locked(board.root):
        os.kill(guard_of(board), signal.SIGKILL)
    assert said(board) == before


def test_a_second_command_is_refused_and_takes_nothing_from_the_first(board: captured.Tree) -> None:
    before = said(board)
    with locked(board.root):
        now = said(board)
        assert give_back_left(board.root) == []
        with pytest.raises(MissingError, match="another command has them locked now"), locked(board.root):
            pass
        assert said(board) == now
    assert said(board) == before


def test_clocks_that_somebody_else_moved_meanwhile_were_not_locked(board: captured.Tree) -> None:
    before = said(board)
    with pytest.raises(MissingError, match=f"did not stay locked: {POLICY}/scaling_governor changed"), locked(board.root):
        board.put(f"{POLICY}/scaling_governor", "powersave")
    assert said(board) == before


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
    before = said(board)
    with pytest.raises(MissingError, match=said_of_it), locked(board.root):
        pass
    assert said(board) == before


def test_a_machine_without_clocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no policy in /sys/devices/system/cpu/cpufreq"), locked(tmp_path):
        pass


def test_without_intels_file_it_is_boost_that_is_off(tmp_path: Path) -> None:
    tree = captured.Tree(tmp_path / "board", captured.lines("amd-no-boost.tree"))
    for path, content in (("boost", "1"), ("policy0/scaling_max_freq", "4900000"), ("policy0/scaling_min_freq", "400000")):
        tree.put(f"{CPU}/cpufreq/{path}", content)
    tree.put(f"{POLICY}/cpuinfo_max_freq", "4900000")  # which is that of boost
    tree.put(f"{CPU}/cpu0/acpi_cppc/nominal_freq", "3400")
    before = said(tree)
    with locked(tree.root) as how:
        assert how == "locked at 3400 MHz, no turbo"
        assert (tree.root / CPU[1:] / "cpufreq/boost").read_text().strip() == "0"
    assert said(tree) == before
    tree.close()


def test_on_devices_nobody_is_there_to_give_them_back() -> None:
    require_as_shipped(Recipe())
    with pytest.raises(InputError, match="of this machine alone"):
        require_as_shipped(Recipe(profile=Profile(lock_clocks=True)))

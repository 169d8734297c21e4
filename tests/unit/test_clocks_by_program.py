"""A Jetson's clocks and those of NVIDIA GPUs are held by NVIDIA's programs, and given back, whoever is killed: stand-ins, no hardware."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import captured
from clocks import ORIN, TWO_CARDS, UUIDS, change, guards_of, machine, said, state_of, until, with_program
from dtvit_deploy.devices.clocks.guard import RECORD, give_back_left
from dtvit_deploy.devices.clocks.locking import locked
from dtvit_deploy.devices.clocks.wanted import wanted
from dtvit_deploy.devices.state.jetson import clocks
from dtvit_deploy.errors import MissingError

on_linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the guard is found in Linux's /proc")


@pytest.fixture
def orin(tmp_path: Path) -> Iterator[Path]:
    """A Jetson, whose clocks are free."""
    listed = [line for line in captured.lines("agx-orin-r36.tree") if "<again>" not in line]
    tree = captured.Tree(tmp_path / "orin", listed)
    with_program(tree.root, "jetson_clocks", ORIN)
    yield tree.root
    tree.close()


@pytest.fixture
def computer(tmp_path: Path) -> Iterator[Path]:
    """A PC with cpufreq and two GPUs."""
    tree = machine(tmp_path / "pc")
    yield tree.root
    tree.close()


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """A virtual machine that has GPUs and no cpufreq."""
    with_program(tmp_path / "cloud", "nvidia-smi", TWO_CARDS)
    return tmp_path / "cloud"


def cards(root: Path) -> list[tuple[bool, int | None]]:
    """Persistence mode and locked clock of each GPU."""
    return [(card["persistent"], card["lock"]) for card in state_of(root)["cards"]]


def test_a_jetson_is_held_by_its_own_program_and_its_files_are_left_alone(orin: Path) -> None:
    before = said(orin)
    with locked(orin) as how:
        assert how == "locked at CPU 2201 MHz, GPU 1300 MHz, EMC 3199 MHz by jetson_clocks"
        now = said(orin)
        assert [name for name in before if now[name] != before[name]] == [str(orin / "var/state.json")]
        held = state_of(orin)["clocks"]
        assert held["cpu0"] == {"low": 2201600, "high": 2201600, "idle": 0}
        assert (held["GPU"]["low"], held["EMC"]["held"]) == (1300500000, 1)
    assert said(orin) == before
    assert (orin / RECORD).read_text() == ""


def test_a_processor_and_its_gpus_are_held_together_and_the_driver_stays(computer: Path) -> None:
    before = said(computer)
    with locked(computer) as how:
        assert how == "locked at 2400 MHz, no turbo; GPU 0 1095 MHz; GPU 1 2520 MHz"
        assert cards(computer) == [(True, 1095), (True, 2520)]  # without persistence mode the first would have forgotten it
    assert said(computer) == before


def test_what_is_not_locked_is_said_beside_what_is(cloud: Path) -> None:
    with locked(cloud) as how:
        assert how == "locked at GPU 0 1095 MHz; GPU 1 2520 MHz; processor as shipped"
    old, other = TWO_CARDS["cards"]
    change(cloud, cards=[old | {"capability": "6.1"}, other | {"capability": "12.0"}])
    with locked(cloud) as how:
        assert how == "locked at GPU 1 2520 MHz; processor as shipped; GPU 0 as shipped"
        assert cards(cloud) == [(False, None), (True, 2520)]
    change(cloud, cards=[old | {"default": "[N/A]", "most": "[N/A]"}])
    with pytest.raises(MissingError, match="no NVIDIA GPU that nvidia-smi could lock"), locked(cloud):
        pass


def test_a_driver_that_does_not_tell_compute_capability_is_asked_without(cloud: Path) -> None:
    change(cloud, unknown=["compute_cap"])
    assert wanted(cloud).how == "locked at GPU 0 1095 MHz; GPU 1 2520 MHz; processor as shipped"


HOLD = "import sys, time, pathlib; from dtvit_deploy.devices.clocks.locking import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])) as how:\n    print(how, flush=True); time.sleep(600)\n"


def holding(root: Path) -> subprocess.Popen[str]:
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    assert held.stdout.readline().startswith("locked at ")
    return held


def ended(held: subprocess.Popen[str]) -> None:
    held.wait()
    assert held.stdout is not None
    held.stdout.close()


@pytest.mark.parametrize("kind", ["orin", "computer"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_all_of_it_is_given_back_when_whoever_measures_is_killed(kind: str, how: signal.Signals, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(kind)
    before = said(root)
    held = holding(root)
    assert said(root) != before
    held.send_signal(how)
    ended(held)
    until(lambda: (root / RECORD).read_text() == "")
    assert said(root) == before


@on_linux
@pytest.mark.parametrize("kind", ["orin", "computer"])
def test_what_two_killed_ones_left_the_next_command_gives_back(kind: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(kind)
    before = said(root)
    held = holding(root)
    os.kill(guards_of(root)[0], signal.SIGKILL)
    held.kill()
    ended(held)
    assert said(root) != before
    assert give_back_left(root) == []
    assert said(root) == before


@on_linux
@pytest.mark.parametrize("kind", ["orin", "computer"])
def test_a_guard_that_is_killed_meanwhile_is_told_and_what_it_held_is_given_back(kind: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(kind)
    before = said(root)
    with pytest.raises(MissingError, match="did not stay locked: the process that held them was ended"), locked(root):
        os.kill(guards_of(root)[0], signal.SIGKILL)
    assert said(root) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refuses": ["GPU"]}, r"jetson_clocks left them not locked: GPU: Error: Failed to max GPU frequency!"),
        ({"user": "me"}, r"jetson_clocks does not tell them: Error: Run this script\(.*\) as a root user"),
    ],
)
def test_a_jetson_that_does_not_take_it_is_refused_by_its_own_words_and_left_as_it_was(
    orin: Path, changes: dict[str, Any], words: str
) -> None:
    change(orin, **changes)
    before = said(orin)
    with pytest.raises(MissingError, match=words), locked(orin):
        pass
    assert said(orin) == before


def test_a_jetson_whose_program_is_missing_is_not_taken_for_a_processor_alone(orin: Path) -> None:
    (orin / "usr/bin/jetson_clocks").unlink()
    before = said(orin)
    with pytest.raises(MissingError, match="this is a Jetson, and jetson_clocks is not there"), locked(orin):
        pass
    assert said(orin) == before


def test_one_gpu_that_does_not_take_it_undoes_the_processor_and_the_other(computer: Path) -> None:
    first, second = TWO_CARDS["cards"]
    change(computer, cards=[first, second | {"refuses": True}])  # which nvidia-smi takes for no failure
    before = said(computer)
    with pytest.raises(MissingError, match=r"nvidia-smi -lgc 2520,2520 for GPU 1: Treating as warning"), locked(computer):
        pass
    assert said(computer) == before


def test_what_cannot_be_given_back_is_told_kept_and_given_back_by_the_next_command(orin: Path, cloud: Path) -> None:
    for root, stuck, words in ((orin, ["EMC"], r"jetson_clocks: EMC"), (cloud, True, r"GPU 1 \(nvidia-smi -rgc: .*GPU is lost")):
        before = state_of(root)
        with pytest.raises(MissingError, match=f"could not be given back: {words}"), locked(root):
            change(root, stuck=stuck)
        assert (root / RECORD).read_text() != ""
        with pytest.raises(MissingError, match="what an earlier command left could not be given back"), locked(root):
            pass
        change(root, stuck=[])
        with locked(root):
            pass
        assert state_of(root) == before | {"stuck": []}
        assert (root / RECORD).read_text() == ""


def test_clocks_that_somebody_else_moved_meanwhile_were_not_locked(orin: Path, cloud: Path) -> None:
    free, first = state_of(orin)["clocks"], TWO_CARDS["cards"][0]
    with (
        pytest.raises(MissingError, match="did not stay locked: jetson_clocks: cpu0, jetson_clocks: cpu1, jetson_clocks: GPU"),
        locked(orin),
    ):
        change(orin, clocks=free)
    with pytest.raises(MissingError, match=r"did not stay locked: jetson_clocks: GPU changed"), locked(orin):
        change(orin, clocks=state_of(orin)["clocks"] | {"GPU": {"low": 918000000, "high": 918000000}})  # by another power mode
    change(orin, clocks=free)
    for other, words in (({"lock": 1410, "persistent": True}, r"its clock \(1410 MHz\)"), ({"lock": 1095}, "its persistence mode")):
        with pytest.raises(MissingError, match=f"did not stay locked: GPU 0: {words} changed"), locked(cloud):
            change(cloud, cards=[first | other, *state_of(cloud)["cards"][1:]])
        assert cards(cloud) == [(False, None), (True, None)]


def test_a_gpu_that_is_slower_than_it_was_locked_to_is_idle(cloud: Path) -> None:
    with locked(cloud):
        first, second = state_of(cloud)["cards"]
        change(cloud, cards=[first | {"lock": 210}, second])
    assert cards(cloud) == [(False, None), (True, None)]


def test_a_gpu_is_known_by_its_uuid_whatever_is_plugged_in_meanwhile(cloud: Path) -> None:
    assert [one.uuid for one in wanted(cloud).settings if hasattr(one, "uuid")] == list(UUIDS)
    settings = wanted(cloud).settings
    change(cloud, cards=[{"uuid": UUIDS[0].replace("8", "7"), "persistent": True, "most": 900, "lock": None}, *TWO_CARDS["cards"]])
    assert [one.lock(cloud) for one in settings] == ["", ""]
    assert cards(cloud) == [(True, None), (True, 1095), (True, 2520)]
    assert [one.give_back(cloud) for one in settings] == [[], []]


def test_what_moves_by_itself_is_not_what_was_set() -> None:
    free, held = (clocks(captured.told(f"jetson_clocks-orin-{name}.txt")) for name in ("free", "locked"))
    assert [(one.name, one.highest, one.is_fixed, one.set) for one in free] == [
        ("cpu0", 2201, False, "MinFreq=729600 IdleStates: WFI=1 c7=1"),
        ("GPU", 1300, False, "MinFreq=306000000"),
        ("EMC", 3199, False, "MinFreq=204000000 FreqOverride=0"),
    ]
    assert [(one.name, one.is_fixed) for one in held] == [("cpu0", True), ("cpu1", True), ("GPU", True), ("EMC", True)]

"""A process beside a measurement reads the device's state, and its end in the middle is seen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import captured
from dtvit_deploy.devices.state import watcher
from dtvit_deploy.devices.state.watcher import Watch, watching
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, measure, stated
from dtvit_deploy.harness.state.blocks import take_blocks
from dtvit_deploy.harness.state.record import Watched
from dtvit_deploy.runtimes.fake import FakeClock
from processes import lives, seconds_of

QUICK = MeasureOptions(min_samples=64, min_seconds=0.0, warmup_seconds=0.0)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[captured.Tree]:
    tree = captured.Tree(tmp_path / "board", captured.lines("agx-orin-r36.tree"))
    yield tree
    tree.close()


def process_of(watch: Watch) -> subprocess.Popen[bytes]:
    assert watch._process is not None
    return watch._process


def measured(watch: Watch, during: Callable[[], None] = lambda: None) -> Measurement:
    """Sixty-four samples of a clock that is not this machine's, during more than a second that is; something happens in the middle."""
    left, clock = iter(range(10**6)), FakeClock()

    def run() -> None:
        time.sleep(0.02)
        clock.advance(0.01)
        if next(left) == 40:
            during()

    found = measure({"one": run}, QUICK, clock.now, begins=watch.begins)["one"]
    watch.ends()
    return found


def test_what_a_device_says_is_recorded_before_during_and_after(board: captured.Tree) -> None:
    with watching(root=board.root) as watch:
        assert watch.rails
        found = stated(measured(watch), watch.finished())
    state = found.state
    assert state is not None
    assert (found.status, found.reasons) == ("VALID", ())
    assert state.before["model"] == state.after["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert min(state.times_s) < 0 < 1 < state.sampled_s <= max(state.times_s)
    assert sum(0 <= at <= state.sampled_s for at in state.times_s) >= 2
    series = {one.name: one.values for one in state.channels}
    assert set(series["VDD_GPU_SOC"]) == {3210.816}
    assert set(series["gpu-thermal (thermal_zone1)"]) == {None}
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measurement) == found


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("/sys/class/hwmon/hwmon1/oc3_event_cnt", "5", "throttled: over-current oc3 of soctherm_oc counted 1"),
        ("/sys/class/hwmon/hwmon3/curr2_crit_alarm", "1", "throttled: over-current curr2 of ina3221 (VDD_CPU_CV)"),
        ("/sys/class/thermal/cooling_device4/cur_state", "1", "throttled: cooling by cpu-throttle-alert (cooling_device4)"),
        ("/sys/class/thermal/thermal_zone0/temp", "99500", "temperature: cpu-thermal (thermal_zone0) reached 99.5 °C"),
    ],
)
def test_a_trip_or_an_over_current_in_the_middle_makes_it_invalid(board: captured.Tree, path: str, content: str, reason: str) -> None:
    with watching(root=board.root) as watch:
        found = stated(measured(watch, lambda: board.put(path, content)), watch.finished())
    assert found.status == "INVALID"
    assert found.reasons[0].startswith(reason)


def test_a_clock_that_goes_down_after_the_work_and_a_fan_leave_it_valid(board: captured.Tree) -> None:
    with watching(root=board.root) as watch:
        found = measured(watch, lambda: board.put("/sys/class/thermal/cooling_device0/cur_state", "3"))
        board.put("/sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "115200")
        assert stated(found, watch.finished()).status == "VALID"


def test_a_watcher_that_is_killed_in_the_middle_makes_it_invalid(board: captured.Tree) -> None:
    with watching(root=board.root) as watch:
        found = stated(measured(watch, lambda: os.kill(process_of(watch).pid, signal.SIGKILL)), watch.finished())
    assert found.status == "INVALID"
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("watcher: it was ended by SIGKILL after a reading")
    assert found.energy == ()


def test_a_watcher_that_does_not_end_makes_it_invalid(board: captured.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(root=board.root) as watch:
        monkeypatch.setattr(watcher, "_PATIENCE", 0.3)
        found = measured(watch, lambda: os.kill(process_of(watch).pid, signal.SIGSTOP))
        one = stated(found, watch.finished())
    assert one.status == "INVALID"
    assert one.reasons[0].startswith("watcher: it did not end within 0 s when it was told to after a reading")


def test_a_watcher_that_is_killed_while_energy_is_taken_makes_it_invalid(board: captured.Tree) -> None:
    with watching(root=board.root) as watch:
        found = measured(watch)
        until = time.monotonic() + 60
        while watch._lines()[-1][0] < watch._end and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(process_of(watch).pid, signal.SIGKILL)
        process_of(watch).wait()
        one = stated(found, watch.finished())
    assert [reason.partition(" after")[0] for reason in one.reasons] == ["watcher: it was ended by SIGKILL"]
    assert one.state is not None
    assert one.state.times_s[-1] > one.state.sampled_s  # it had seen all samples, and nobody knows what changed


def test_a_watcher_whose_disk_is_full_makes_it_invalid(board: captured.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have so many bytes, and no more."""
    plain = watcher.child_command

    def bounded(code: str, *words: str) -> list[str]:
        limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
        return plain(f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {limit}; {code}", *words)

    monkeypatch.setattr(watcher, "child_command", bounded)
    with watching(root=board.root, interval=0.01) as watch:
        one = stated(measured(watch), watch.finished())
    assert one.status == "INVALID"
    assert any(reason.startswith("watcher: it ended with status ") for reason in one.reasons)


def test_a_counter_that_cannot_be_is_missing_and_the_record_is_read(board: captured.Tree) -> None:
    board.put("/sys/class/hwmon/hwmon1/oc3_event_cnt", "1" * 18)
    board.put("/sys/class/powercap/intel-rapl:0/name", "package-0")
    board.put("/sys/class/powercap/intel-rapl:0/energy_uj", "9" * 17)
    board.put("/sys/class/powercap/intel-rapl:0/max_energy_range_uj", "9" * 18)
    with watching(root=board.root) as watch:
        one = stated(measured(watch), watch.finished())
    assert one.state is not None
    series = {channel.name: (set(channel.values), channel.limit) for channel in one.state.channels}
    assert series["over-current oc3 of soctherm_oc"] == series["package-0"] == ({None}, None)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Measurement) == one


def test_a_watcher_that_cannot_start_makes_it_invalid(board: captured.Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, why in (("raise SystemExit(7)", "ended with status 7"), (None, "could not be started")):
        command = ["/nonexistent/python"] if code is None else [sys.executable, "-c", code]
        monkeypatch.setattr(watcher, "child_command", lambda *_, command=command: command)
        with watching(root=board.root) as watch:
            assert not watch.rails
            found = stated(measured(watch), watch.finished())
        assert (found.status, len(found.samples_ms)) == ("INVALID", 64)
        assert why in found.reasons[0]


def test_where_no_file_can_be_its_end_is_the_same(board: captured.Tree, tmp_path: Path) -> None:
    with watching(tmp_path / "absent", board.root) as watch:
        found = stated(measured(watch), watch.finished())
    assert found.reasons == ("watcher: it could not be started: No such file or directory",)


def test_nothing_is_left_of_it_whatever_ends_the_measurement(board: captured.Tree, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with contextlib.suppress(KeyboardInterrupt), watching(tmp_path / "own", board.root) as watch:
        process = process_of(watch)
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL
    with watching(tmp_path / "own", board.root) as watch:
        process = process_of(watch)
        watch.finished()
    assert process.returncode == 0
    assert list((tmp_path / "own").iterdir()) == []


def test_it_ends_with_the_process_that_measures(board: captured.Tree) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dtvit_deploy.devices.state.watcher import watching\n"
        "with watching(root=Path(sys.argv[1])) as watch:\n"
        "    print(watch._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(board.root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        other = int(process.stdout.readline())
        process.kill()
    until = time.monotonic() + 60
    while lives(other) and time.monotonic() < until:
        time.sleep(0.05)
    assert not lives(other)


def test_energy_of_a_real_process_is_read_of_a_simulated_rail(board: captured.Tree) -> None:
    """The rail delivers 3 W more while something runs: 1 A at 3 V."""
    board.put("/sys/class/hwmon/hwmon3/in3_input", "3000")
    rail, part = board.root / "sys/class/hwmon/hwmon3/curr3_input", board.root / "part"

    def delivers(milliamperes: int) -> None:
        part.write_text(f"{milliamperes}\n")
        part.replace(rail)  # a kernel's file is never half written

    def run() -> None:
        delivers(2000)
        time.sleep(0.05)

    def rest(seconds: float) -> None:
        delivers(1000)
        time.sleep(seconds)

    with watching(root=board.root, interval=0.1) as watch:
        found = measured(watch)
        blocks = take_blocks([run], 1.2, since=watch.origin, wait=rest, rounds=3)
        one = stated(found, watch.finished(), blocks)
    (energy,) = one.energy
    assert energy.rail == "VIN_SYS_5V0"
    assert energy.millijoules == pytest.approx(3000 * 0.05, rel=0.2)  # how long an inference takes is the machine's load, too
    assert (energy.busy_mw, energy.idle_mw) == (pytest.approx(6000, rel=0.02), pytest.approx(3000, rel=0.02))
    assert sum("no energy of" in note for note in one.notes) == 3  # of rails that told the same all the time


def test_a_tree_without_anything_is_watched_too(tmp_path: Path) -> None:
    with watching(root=tmp_path) as watch:
        found = stated(measured(watch), watch.finished())
    assert found.status == "VALID"
    assert isinstance(found.state, Watched)
    assert found.state.channels == ()


def test_a_reading_takes_next_to_no_time_of_a_processor(board: captured.Tree) -> None:
    with watching(root=board.root, interval=0.01) as watch:
        process = process_of(watch).pid
        began, before = seconds_of(process), len(watch._lines())
        until = time.monotonic() + 60
        while len(watch._lines()) < before + 100 and time.monotonic() < until:
            time.sleep(0.1)
        took, readings = seconds_of(process) - began, len(watch._lines()) - before
    assert readings > 20
    assert took / readings < 0.004  # 0.4 ms where it was measured; it reads twice a second


def test_a_mode_that_is_changed_in_the_middle_makes_it_invalid(board: captured.Tree) -> None:
    policies = [f"/sys/devices/system/cpu/cpufreq/policy{number}/scaling_governor" for number in (0, 4)]
    with watching(root=board.root) as watch:
        found = stated(measured(watch, lambda: [board.put(path, "powersave") for path in policies] and None), watch.finished())
    assert found.reasons == ("settings: governor was schedutil and became powersave",)

"""Where a device has more than can be watched, what judges is watched first, and the rest is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dtvit_deploy.devices.state import everything
from dtvit_deploy.devices.state.choosing import MOST, MOST_TEMPERATURES, chosen
from dtvit_deploy.devices.state.source import Source
from dtvit_deploy.harness.state.judging import remarks
from dtvit_deploy.harness.state.record import Channel, Kind, Watched


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def test_a_hundred_thermal_zones_cost_no_counter_no_cooling_device_and_no_rail(tmp_path: Path) -> None:
    for number in range(100):
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", f"cpu-{number}-thermal")
        put(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", "40000")
    put(tmp_path, "sys/class/thermal/thermal_zone99/trip_point_0_type", "hot")
    put(tmp_path, "sys/class/thermal/thermal_zone99/trip_point_0_temp", "95000")
    put(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "0")
    put(tmp_path, "sys/class/thermal/cooling_device0/type", "cpufreq-cpu0")
    put(tmp_path, "sys/class/thermal/cooling_device0/cur_state", "0")
    put(tmp_path, "sys/class/powercap/intel-rapl:0/name", "package-0")
    put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "1")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2000000")
    found = everything.watched(tmp_path)
    kinds = [channel.kind for one in found.sources for channel in one.channels]
    assert {kind: kinds.count(kind) for kind in ("events", "flag", "energy", "clock", "temperature")} == {
        "events": 1,
        "flag": 1,
        "energy": 1,
        "clock": 1,
        "temperature": MOST_TEMPERATURES,
    }
    assert "cpu-99-thermal (thermal_zone99)" in [channel.name for one in found.sources for channel in one.channels]  # it has a trip point
    assert len(found.dropped) == 100 - MOST_TEMPERATURES
    assert found.told.startswith(f"{100 - MOST_TEMPERATURES} channels, cpu-29-thermal (thermal_zone29), ")
    assert found.told.endswith(" others")


def source(kinds: Sequence[Kind], harm: bool = False, every: float = 0.0, ended: list[str] | None = None, name: str = "a") -> Source:
    channels = tuple(Channel(name=f"{name}{place}", kind=kind, source="x", harm=harm) for place, kind in enumerate(kinds))
    return Source(channels, lambda: list(map(float, range(len(kinds)))), every, lambda: (ended if ended is not None else []).append(name))


def test_of_a_source_with_more_than_can_be_watched_what_judges_is_left_with_its_own_values() -> None:
    half = MOST // 2
    many = source(["clock"] * half, name="c")
    judges = source(["flag"] * (MOST - 2), harm=True, name="f")
    found = chosen([many, judges])
    assert [len(one.channels) for one in found.sources] == [2, MOST - 2]
    assert found.sources[0].read() == [0.0, 1.0]
    assert (found.dropped[0], len(found.dropped)) == ("c2", half - 2)


def test_a_source_of_which_nothing_is_left_is_closed_and_the_costly_are_read_last() -> None:
    ended: list[str] = []
    slow = source(["flag"], harm=True, every=2.0, ended=ended, name="slow")
    found = chosen([slow, source(["events"] * (MOST - 1), harm=True, ended=ended, name="e"), source(["power"], ended=ended, name="rail")])
    assert ended == ["rail"]
    assert [one.every for one in found.sources] == [0.0, 2.0]
    assert (found.told, chosen([slow]).told) == ("1 channel, rail0", "")


def test_what_is_not_watched_is_a_note_of_the_figure() -> None:
    assert remarks(Watched(before={"not watched": "21 channels, a, b, c and 18 others"})) == [
        "not watched: 21 channels, a, b, c and 18 others"
    ]

"""A device tells its temperature and its clock, as far as its sensors answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dtvit_deploy.devices.state import thermal, throttling
from dtvit_deploy.devices.state.everything import facts


def sensor(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_boards_sensors_are_told(tmp_path: Path) -> None:
    sensor(tmp_path, "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    for number, text in enumerate(("48500\n", "51250\n", "-256000\n", "nonsense", "")):
        sensor(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", text)
    for number, text in enumerate(("729600\n", "2201600\n", "0\n")):
        sensor(tmp_path, f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq", text)
    found = facts(tmp_path)
    assert found["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found["temperature"] == "51.2 °C at the hottest of 2 sensors"
    assert found["clock"] == "730 to 2202 MHz"


def test_what_has_no_sensors_says_nothing_of_them(tmp_path: Path) -> None:
    assert {"model", "temperature", "clock", "device"} & facts(tmp_path).keys() == set()
    assert facts(tmp_path)["cores"].isdecimal()


@pytest.mark.parametrize(
    ("sensors", "told"),
    [
        ({}, {}),
        ({"thermal/cooling_device0": ("cpufreq-cpu0", "0", "7"), "thermal/cooling_device1": ("pwm-fan", "3", "4")}, {"throttled": "no"}),
        ({"thermal/cooling_device0": ("cpufreq-cpu0", "2", "7")}, {"throttled": "cooling by cpufreq-cpu0 (cooling_device0)"}),
        (
            {"thermal/cooling_device0": ("Processor", "1", "10"), "thermal/cooling_device1": ("gpu-throttle-alert", "1", "1")},
            {"throttled": "cooling by Processor (cooling_device0); cooling by gpu-throttle-alert (cooling_device1)"},
        ),
        ({"thermal/cooling_device0": ("pwm-fan", "3", "4")}, {}),  # a fan slows nothing down
    ],
)
def test_what_slows_it_down_is_told_and_a_fan_does_not(
    tmp_path: Path, sensors: dict[str, tuple[str, str, str]], told: dict[str, str]
) -> None:
    for folder, values in sensors.items():
        for name, text in zip(("type", "cur_state", "max_state"), values, strict=True):
            sensor(tmp_path, f"sys/class/{folder}/{name}", f"{text}\n")
    assert {name: value for name, value in facts(tmp_path).items() if "throttle" in name} == told


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ("0", "no"),
        ("50000", "no"),  # that it once was
        ("50005", "under-voltage now; throttled now"),
        ("a", "ARM clock capped now; soft temperature limit now"),
        ("nonsense", None),
    ],
)
def test_the_firmware_of_a_raspberry_pi_is_read_for_this_moment(tmp_path: Path, bits: str, told: str | None) -> None:
    sensor(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", f"{bits}\n")
    found = facts(tmp_path)
    assert found.get("throttled") == told
    assert "throttle events" not in found  # the firmware keeps that it once was, and not how often


def test_events_of_heat_and_of_over_current_are_counted(tmp_path: Path) -> None:
    for core, count in enumerate((3, 4)):
        sensor(tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{count}\n")
    sensor(tmp_path, "sys/class/hwmon/hwmon2/oc1_event_cnt", "5\n")
    assert facts(tmp_path)["throttle events"] == "12 since it started"


CPU = "sys/devices/system/cpu/cpu{}"


def packages(root: Path, counts: dict[int, int], package: dict[int, int] | None = None) -> None:
    for cpu, count in counts.items():
        sensor(root, f"{CPU.format(cpu)}/thermal_throttle/package_throttle_count", f"{count}\n")
        if package is not None:
            sensor(root, f"{CPU.format(cpu)}/topology/physical_package_id", f"{package[cpu]}\n")


def counted(root: Path) -> tuple[list[str], Callable[[], list[float | None]]]:
    found = throttling.sources(root)
    return [channel.name for one in found for channel in one.channels], lambda: [value for one in found for value in one.read()]


def test_each_package_counts_by_itself(tmp_path: Path) -> None:
    packages(tmp_path, {0: 100, 1: 100, 2: 5, 3: 5}, {0: 0, 1: 0, 2: 1, 3: 1})
    names, read = counted(tmp_path)
    assert names == [f"thermal throttling of package {number}, counted on 2 CPUs" for number in (0, 1)]
    assert read() == [100.0, 5.0]
    packages(tmp_path, {2: 55, 3: 55})
    assert read() == [100.0, 55.0]


def test_a_smaller_count_does_not_rise_behind_a_larger_one_where_nobody_tells_the_packages(tmp_path: Path) -> None:
    packages(tmp_path, {0: 100, 1: 100, 2: 5, 3: 5})
    names, read = counted(tmp_path)
    assert names == ["thermal throttling of a package, counted on 4 CPUs"]
    assert read() == [100.0]
    packages(tmp_path, {2: 55, 3: 55})
    assert read() == [150.0]


def test_a_cpu_that_goes_away_and_comes_back_keeps_nothing_from_being_counted(tmp_path: Path) -> None:
    packages(tmp_path, {0: 7, 1: 7}, {0: 0, 1: 0})
    _, read = counted(tmp_path)
    file = tmp_path / CPU.format(1) / "thermal_throttle/package_throttle_count"
    file.unlink()
    assert read() == [7.0]
    packages(tmp_path, {0: 500})
    assert read() == [500.0]
    packages(tmp_path, {1: 500})
    assert read() == [993.0]  # an event may be told twice by one that was away, and is never lost
    for cpu in (0, 1):
        (tmp_path / CPU.format(cpu) / "thermal_throttle/package_throttle_count").unlink()
    assert read() == [None]


def test_cooling_devices_of_one_kind_are_one_where_every_cpu_has_its_own(tmp_path: Path) -> None:
    for number in range(128):
        sensor(tmp_path, f"sys/class/thermal/cooling_device{number}/type", "Processor\n")
        sensor(tmp_path, f"sys/class/thermal/cooling_device{number}/cur_state", "0\n")
    names, read = counted(tmp_path)
    assert (names, read()) == (["cooling by Processor (any of 128)"], [0.0])
    sensor(tmp_path, "sys/class/thermal/cooling_device101/cur_state", "2\n")
    assert read() == [1.0]


def test_a_disks_trip_point_is_not_the_devices(tmp_path: Path) -> None:
    for number, kind in enumerate(("nvme", "nvme0", "iwlwifi_1", "battery", "cpu-thermal", "acpitz")):
        for name, text in (("type", kind), ("temp", "84000"), ("trip_point_0_type", "hot"), ("trip_point_0_temp", "83000")):
            sensor(tmp_path, f"sys/class/thermal/thermal_zone{number}/{name}", f"{text}\n")
    assert [one.channels[0].limit for one in thermal.sources(tmp_path)] == [None, None, None, None, 83.0, 83.0]


def test_a_pcs_firmware_tells_the_power_mode(tmp_path: Path) -> None:
    sensor(tmp_path, "sys/firmware/acpi/platform_profile", "balanced\n")
    assert facts(tmp_path)["power mode"] == "balanced"

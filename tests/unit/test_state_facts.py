"""A device tells its temperature and its clock, as far as its sensors answer."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_a_pcs_firmware_tells_the_power_mode(tmp_path: Path) -> None:
    sensor(tmp_path, "sys/firmware/acpi/platform_profile", "balanced\n")
    assert facts(tmp_path)["power mode"] == "balanced"

"""A device tells its temperature and its clock, as far as its sensors answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtvit_deploy.agent.state import state


def sensor(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_boards_sensors_are_told(tmp_path: Path) -> None:
    sensor(tmp_path, "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    for number, text in enumerate(("48500\n", "51250\n", "-256000\n", "nonsense", "")):
        sensor(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", text)
    for number, text in enumerate(("729600\n", "2201600\n", "0\n")):
        sensor(tmp_path, f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_cur_freq", text)
    found = state(tmp_path)
    assert found["model"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found["temperature"] == "51.2 °C at the hottest of 2 sensors"
    assert found["clock"] == "730 to 2202 MHz"


def test_what_has_no_sensors_says_nothing_of_them(tmp_path: Path) -> None:
    assert {"model", "temperature", "clock", "device"} & state(tmp_path).keys() == set()
    assert state(tmp_path)["cores"].isdecimal()


@pytest.mark.parametrize(
    ("sensors", "told"),
    [
        ({}, {}),
        ({"thermal/cooling_device0": ("cpufreq-cpu0", "0", "7"), "thermal/cooling_device1": ("pwm-fan", "3", "4")}, {"throttled": "no"}),
        ({"thermal/cooling_device0": ("cpufreq-cpu0", "2", "7")}, {"throttled": "cpufreq-cpu0 at 2 of 7"}),
        (
            {"thermal/cooling_device0": ("Processor", "1", "10"), "thermal/cooling_device1": ("gpu-throttle-alert", "1", "1")},
            {"throttled": "Processor at 1 of 10; gpu-throttle-alert at 1 of 1"},
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
    assert {name: value for name, value in state(tmp_path).items() if "throttle" in name} == told


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ("0", "no"),
        ("50000", "no"),  # that it once was
        ("50005", "under-voltage; throttled"),
        ("a", "its clock is capped; at its soft limit of temperature"),
        ("nonsense", "no"),
    ],
)
def test_the_firmware_of_a_raspberry_pi_is_read_for_this_moment(tmp_path: Path, bits: str, told: str) -> None:
    sensor(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", f"{bits}\n")
    assert state(tmp_path)["throttled"] == told


def test_events_of_heat_and_of_over_current_are_counted(tmp_path: Path) -> None:
    for core, count in enumerate((3, 4)):
        sensor(tmp_path, f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{count}\n")
    sensor(tmp_path, "sys/class/hwmon/hwmon2/oc1_event_cnt", "5\n")
    assert state(tmp_path)["throttle events"] == "12 since it started"


def test_a_jetsons_own_tool_and_a_pcs_firmware_tell_the_power_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor(tmp_path, "sys/firmware/acpi/platform_profile", "balanced\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state(tmp_path)["power mode"] == "balanced"
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
    tool.chmod(0o755)
    assert state(tmp_path)["power mode"] == "MAXN"

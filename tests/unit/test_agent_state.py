"""A device tells its temperature and its clock, as far as its sensors answer."""

from __future__ import annotations

from pathlib import Path

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

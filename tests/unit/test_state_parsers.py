"""What devices say of their state is read as documents describe it: every field of one line, and what is not so is missing, never wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import captured
from dtvit_deploy.devices import files
from dtvit_deploy.devices.state import apple, everything, jetson, raspberry, tegrastats, thermal
from dtvit_deploy.devices.state.everything import facts, sources

Told = dict[str, object]
OWN = {"processor", "architecture", "cores", "system", "python", "memory", "load", "cores allowed"}
"""Facts of the machine that the tests run on, which no capture has."""


def read_tree(root: Path) -> Told:
    """Channels with their values, and facts, of a tree."""
    found: Told = {}
    for one in sources(root):
        for channel, value in zip(one.channels, one.read(), strict=True):
            found[channel.name] = (value, channel.unit)
            if channel.limit is not None and channel.kind == "temperature":
                found[f"limit of {channel.name}"] = (channel.limit, channel.unit)
    return found | {name: value for name, value in facts(root).items() if name not in OWN}


def tree(root: Path, listed: list[str]) -> Told:
    root.mkdir()
    made = captured.Tree(root, listed)
    try:
        return read_tree(root)
    finally:
        made.close()


def cpu(path: str) -> str:
    return f"/sys/devices/system/cpu/{path}"


RAPL, HWMON, ZONE = "/sys/class/powercap/intel-rapl:", "/sys/class/hwmon/hwmon", "/sys/class/thermal/thermal_zone"
TREES: dict[str, dict[str, tuple[object, str]]] = {
    "nano-r32.tree": {
        "model": ("NVIDIA Jetson Nano Developer Kit", "/proc/device-tree/model"),
        "release": ("L4T 32.7.1", "/etc/nv_tegra_release"),
        "governor": ("schedutil", cpu("cpufreq/policy0/scaling_governor")),
        "clock driver": ("tegra-cpufreq", cpu("cpufreq/policy0/scaling_driver")),
        "clock": ("1479 to 1479 MHz", cpu("cpufreq/policy0/scaling_cur_freq")),
        "clock bounds": ("102 to 1479 MHz", cpu("cpufreq/policy0/scaling_min_freq")),
        "CPU clock up to 1479 MHz": ((1479.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "GPU clock (57000000.gpu)": ((76.8, "MHz"), "/sys/class/devfreq/57000000.gpu/cur_freq"),
        "temperature": ("44.5 °C at the hottest of 2 sensors", f"{ZONE}0/temp"),
        "AO-therm (thermal_zone0)": ((44.5, "°C"), f"{ZONE}0/temp"),
        "CPU-therm (thermal_zone1)": ((39.0, "°C"), f"{ZONE}1/temp"),
        "limit of CPU-therm (thermal_zone1)": ((97.0, "°C"), f"{ZONE}1/trip_point_1_temp"),
        "POM_5V_IN": ((2020.0, "mW"), "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"),
        "POM_5V_GPU": ((0.0, "mW"), "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input"),
        "POM_5V_CPU": ((121.0, "mW"), "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power2_input"),
    },
    "agx-xavier-r35.tree": {
        "throttled": ("no", "/sys/class/thermal/cooling_device1/cur_state"),
        "model": ("Jetson-AGX", "/proc/device-tree/model"),
        "release": ("L4T 35.4.1", "/etc/nv_tegra_release"),
        "governor": ("schedutil", ""),
        "clock": ("1190 to 2266 MHz", ""),
        "CPU clock up to 2266 MHz, highest of 2 policies": ((2265.6, "MHz"), cpu("cpufreq/policy2/scaling_cur_freq")),
        "GPU clock (17000000.gv11b)": ((318.75, "MHz"), "/sys/class/devfreq/17000000.gv11b/cur_freq"),
        "temperature": ("37.5 °C at the hottest of 1 sensors", ""),
        "CPU-therm (thermal_zone0)": ((37.5, "°C"), f"{ZONE}0/temp"),
        "GPU-therm (thermal_zone1)": ((None, "°C"), ""),
        "cooling by thermal-cpufreq-0 (cooling_device1)": ((0.0, ""), "/sys/class/thermal/cooling_device1/cur_state"),
        "GPU": ((765.76, "mW"), f"{HWMON}2/curr1_input"),
        "SOC": ((1683.968, "mW"), f"{HWMON}2/in3_input"),
    },
    "agx-orin-r36.tree": {
        "throttled": ("no", ""),
        "throttle events": ("4 since it started", f"{HWMON}1/oc3_event_cnt"),
        "model": ("NVIDIA Jetson AGX Orin Developer Kit", "/proc/device-tree/model"),
        "release": ("L4T 36.4.0", "/etc/nv_tegra_release"),
        "governor": ("schedutil", ""),
        "clock driver": ("tegra194-cpufreq", cpu("cpufreq/policy0/scaling_driver")),
        "clock": ("730 to 2202 MHz", ""),
        "CPU clock up to 2202 MHz, highest of 2 policies": ((2201.6, "MHz"), cpu("cpufreq/policy4/scaling_cur_freq")),
        "GPU clock (17000000.gpu)": ((306.0, "MHz"), "/sys/class/devfreq/17000000.gpu/cur_freq"),
        "temperature": ("48.1 °C at the hottest of 1 sensors", f"{ZONE}0/temp"),
        "cpu-thermal (thermal_zone0)": ((48.062, "°C"), f"{ZONE}0/temp"),
        "limit of cpu-thermal (thermal_zone0)": ((99.0, "°C"), f"{ZONE}0/trip_point_1_temp"),
        "gpu-thermal (thermal_zone1)": ((None, "°C"), ""),
        "cv0-thermal (thermal_zone2)": ((None, "°C"), ""),
        "cooling by cpu-throttle-alert (cooling_device4)": ((0.0, ""), "/sys/class/thermal/cooling_device4/cur_state"),
        "over-current oc1 of soctherm_oc": ((0.0, ""), f"{HWMON}1/oc1_event_cnt"),
        "over-current oc3 of soctherm_oc": ((4.0, ""), f"{HWMON}1/oc3_event_cnt"),
        "over-current curr2 of ina3221 (VDD_CPU_CV)": ((0.0, ""), f"{HWMON}3/curr2_crit_alarm"),
        "VDD_GPU_SOC": ((3210.816, "mW"), f"{HWMON}3/curr1_input"),
        "VDD_CPU_CV": ((458.688, "mW"), f"{HWMON}3/curr2_input"),
        "VIN_SYS_5V0": ((3491.84, "mW"), f"{HWMON}3/in3_input"),
        "VDDQ_VDD2_1V8AO": ((595.2, "mW"), f"{HWMON}4/curr2_input"),
    },
    "thor-r39.tree": {
        "model": ("NVIDIA Jetson AGX Thor Developer Kit", "/proc/device-tree/model"),
        "release": ("L4T 39.0.0", "/etc/nv_tegra_release"),
        "governor": ("schedutil", cpu("cpufreq/policy0/scaling_governor")),
        "clock": ("2601 to 2601 MHz", cpu("cpufreq/policy0/scaling_cur_freq")),
        "CPU clock up to 2601 MHz": ((2601.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "GPU clock (gpu-gpc-0)": ((1575.0, "MHz"), "/sys/class/devfreq/gpu-gpc-0/cur_freq"),
        "temperature": ("35.6 °C at the hottest of 2 sensors", ""),
        "cpu-thermal (thermal_zone0)": ((34.312, "°C"), f"{ZONE}0/temp"),
        "tj-thermal (thermal_zone1)": ((35.625, "°C"), f"{ZONE}1/temp"),
        "VDD_GPU": ((3984.0, "mW"), f"{HWMON}2/curr1_input"),
        "VDD_CPU_SOC_MSS": ((7968.0, "mW"), f"{HWMON}2/curr2_input"),
        "VIN": ((28710.0, "mW"), f"{HWMON}5/power1_input"),
    },
    "raspberry-pi-4.tree": {
        "throttled": ("under-voltage now; throttled now", "/sys/devices/platform/soc/soc:firmware/get_throttled"),
        "model": ("Raspberry Pi 4 Model B Rev 1.4", "/proc/device-tree/model"),
        "governor": ("ondemand", cpu("cpufreq/policy0/scaling_governor")),
        "clock driver": ("cpufreq-dt", cpu("cpufreq/policy0/scaling_driver")),
        "clock": ("1800 to 1800 MHz", cpu("cpufreq/policy0/scaling_cur_freq")),
        "clock bounds": ("600 to 1800 MHz", cpu("cpufreq/policy0/scaling_max_freq")),
        "CPU clock up to 1800 MHz": ((1800.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "temperature": ("61.3 °C at the hottest of 1 sensors", f"{ZONE}0/temp"),
        "cpu-thermal (thermal_zone0)": ((61.341, "°C"), f"{ZONE}0/temp"),
        "limit of cpu-thermal (thermal_zone0)": ((110.0, "°C"), f"{ZONE}0/trip_point_0_temp"),
        **{
            f"{name} {when}": ((float(on), ""), "/sys/devices/platform/soc/soc:firmware/get_throttled")
            for name, on in (("under-voltage", 1), ("ARM clock capped", 0), ("throttled", 1), ("soft temperature limit", 0))
            for when in ("now", "since it started")
        },
    },
    "raspberry-pi-5.tree": {
        "throttled": ("no", "/sys/devices/platform/soc/soc:firmware/get_throttled"),
        "model": ("Raspberry Pi 5 Model B Rev 1.0", "/proc/device-tree/model"),
        "governor": ("performance", cpu("cpufreq/policy0/scaling_governor")),
        "clock driver": ("cpufreq-dt", cpu("cpufreq/policy0/scaling_driver")),
        "clock": ("2400 to 2400 MHz", cpu("cpufreq/policy0/scaling_cur_freq")),
        "CPU clock up to 2400 MHz": ((2400.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "temperature": ("52.6 °C at the hottest of 1 sensors", f"{ZONE}0/temp"),
        "cpu-thermal (thermal_zone0)": ((52.65, "°C"), f"{ZONE}0/temp"),
        "limit of cpu-thermal (thermal_zone0)": ((110.0, "°C"), f"{ZONE}0/trip_point_0_temp"),
        **{
            f"{name} {when}": ((0.0, ""), "/sys/devices/platform/soc/soc:firmware/get_throttled")
            for name in raspberry.BITS.values()
            for when in ("now", "since it started")
        },
    },
    "intel-turbo.tree": {
        "throttled": ("no", ""),
        "throttle events": ("18 since it started", cpu("cpu1/thermal_throttle/core_throttle_count")),
        "governor": ("powersave", ""),
        "clock driver": ("intel_pstate", cpu("cpufreq/policy0/scaling_driver")),
        "energy preference": ("balance_performance", cpu("cpufreq/policy0/energy_performance_preference")),
        "clock": ("800 to 4700 MHz", cpu("cpufreq/policy8/scaling_cur_freq")),
        "clock bounds": ("400 to 4700 MHz", cpu("cpufreq/policy0/scaling_min_freq")),
        "turbo": ("on", cpu("intel_pstate/no_turbo")),
        "CPU clock up to 4700 MHz": ((4700.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "CPU clock up to 3500 MHz": ((800.0, "MHz"), cpu("cpufreq/policy8/scaling_cur_freq")),
        "temperature": ("62.0 °C at the hottest of 1 sensors", f"{ZONE}0/temp"),
        "x86_pkg_temp (thermal_zone0)": ((62.0, "°C"), f"{ZONE}0/temp"),
        "coretemp Package id 0": ((63.0, "°C"), f"{HWMON}4/temp1_input"),
        "limit of coretemp Package id 0": ((100.0, "°C"), f"{HWMON}4/temp1_crit"),
        "coretemp, hottest of 2 cores (/sys/class/hwmon/hwmon4)": ((61.0, "°C"), f"{HWMON}4/temp2_input"),
        "thermal throttling of a core, counted on 2 CPUs": ((7.0, ""), cpu("cpu1/thermal_throttle/core_throttle_count")),
        "thermal throttling of a package, counted on 2 CPUs": ((11.0, ""), ""),
        "cooling by Processor (cooling_device0)": ((0.0, ""), "/sys/class/thermal/cooling_device0/cur_state"),
        "cooling by intel_powerclamp (cooling_device8)": ((0.0, ""), "/sys/class/thermal/cooling_device8/cur_state"),
        "package-0": ((128340025531.0, "µJ"), f"{RAPL}0/energy_uj"),
        "package-0 core": ((60311200400.0, "µJ"), f"{RAPL}0:0/energy_uj"),
        "psys": ((201001772311.0, "µJ"), f"{RAPL}1/energy_uj"),
        "time that programs waited for a processor": ((812.345678, "s"), "/proc/pressure/cpu"),
        "time that programs waited for memory": ((0.001234, "s"), "/proc/pressure/memory"),
        "time that programs waited for a disk": ((45.0, "s"), "/proc/pressure/io"),
    },
    "amd-no-boost.tree": {
        "governor": ("performance", cpu("cpufreq/policy0/scaling_governor")),
        "clock driver": ("amd-pstate-epp", cpu("cpufreq/policy0/scaling_driver")),
        "energy preference": ("performance", cpu("cpufreq/policy0/energy_performance_preference")),
        "clock": ("3400 to 3400 MHz", cpu("cpufreq/policy0/scaling_cur_freq")),
        "turbo": ("off", cpu("cpufreq/boost")),
        "CPU clock up to 3400 MHz": ((3400.0, "MHz"), cpu("cpufreq/policy0/scaling_cur_freq")),
        "temperature": ("55.1 °C at the hottest of 2 sensors", f"{HWMON}2/temp1_input"),
        "k10temp Tctl": ((55.125, "°C"), f"{HWMON}2/temp1_input"),
        "k10temp Tccd1": ((49.75, "°C"), f"{HWMON}2/temp3_input"),
        "energy counters": (
            "/sys/class/powercap/intel-rapl:0/energy_uj and others may be read by root alone, so that energy is unknown",
            f"{RAPL}0/energy_uj",
        ),
        "time that the machine below took (steal)": ((0.0, "s"), "/proc/stat"),
    },
    "container.tree": {
        "memory limit": ("2,048 MiB, by its control group", "/sys/fs/cgroup/memory.max"),
        "times that its control group was stopped": ((7.0, ""), "/sys/fs/cgroup/cpu.stat"),
        "time that the machine below took (steal)": ((0.0, "s"), "/proc/stat"),
    },
    "container-v1.tree": {
        "memory limit": ("512 MiB, by its control group", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        "times that its control group was stopped": ((2.0, ""), "/sys/fs/cgroup/cpu/cpu.stat"),
    },
    "virtual-machine.tree": {
        "time that the machine below took (steal)": ((42.0, "s"), "/proc/stat"),
        "time that programs waited for a processor": ((99.0, "s"), "/proc/pressure/cpu"),
    },
}
"""Everything that is read of each tree, with the file that it is of; none where several files say it."""
TEGRASTATS: dict[str, tuple[dict[str, float], dict[str, float | None]]] = {
    "tegrastats-nano-r32.txt": (
        {"POM_5V_IN": 2020, "POM_5V_GPU": 0, "POM_5V_CPU": 121, "EMC clock": 204, "GPU clock": 76, "CPU clock, highest core": 204},
        {"PLL": 36, "CPU": 39, "GPU": 38, "AO": 44.5, "thermal": 38.5},
    ),
    "tegrastats-xavier-r35.txt": (
        {"GPU": 0, "CPU": 331, "SOC": 828, "CV": 0, "VDDRQ": 165, "SYS5V": 1493}
        | {"EMC clock": 1600, "GPU clock": 318, "CPU clock, highest core": 1190},
        {"AUX": 36, "CPU": 37.5, "Tboard": 36, "AO": 36, "Tdiode": 38.5, "GPU": None},
    ),
    "tegrastats-orin-r35.txt": (
        {"VDD_GPU_SOC": 3205, "VDD_CPU_CV": 400, "VIN_SYS_5V0": 3527, "VDDQ_VDD2_1V8AO": 602}
        | {"EMC clock": 2133, "GPU clock": 408, "CPU clock, highest core": 2201},
        {"CPU": 48.062, "Tboard": 37, "SOC2": 44.093, "Tdiode": 39.25, "SOC0": 45.062, "tj": 48.062, "SOC1": 44.781}
        | dict.fromkeys(("CV0", "CV1", "CV2", "GPU")),
    ),
    "tegrastats-orin-super-r36.txt": (
        {"VDD_IN": 14556, "VDD_CPU_GPU_CV": 8520, "VDD_SOC": 2421, "EMC clock": 3199, "GPU clock": 1020, "CPU clock, highest core": 1728},
        {"cpu": 49.031, "soc2": 48.062, "soc0": 48.218, "gpu": 49.437, "tj": 49.437, "soc1": 49.062},
    ),
    "tegrastats-thor-r39.txt": (
        {"VDD_GPU": 7953, "VDD_CPU_SOC_MSS": 6000, "VIN_SYS_5V0": 4100, "VIN": 28710}
        | {"EMC clock": 4266, "GPU clock": 1574, "CPU clock, highest core": 2601},
        {"cpu": 34.312, "tj": 35.625, "soc012": 33.5, "soc345": None, "gpu": None},
    ),
}
"""Rails and clocks, and temperatures, of each line; None of a unit that sleeps."""
TOOLS: list[tuple[Callable[[str | None], object], str, object, str]] = [
    (jetson.power_mode, "nvpmodel-nano-r32.txt", "5W (1)", "NV Power Mode: 5W"),
    (jetson.power_mode, "nvpmodel-orin-super-r36.txt", "MAXN_SUPER (2)", "NV Power Mode: MAXN_SUPER"),
    (jetson.power_mode, "nvpmodel-thor-r39.txt", "120W (1)", "NV Power Mode: 120W"),
    (jetson.locked, "jetson_clocks-orin-locked.txt", "locked", "GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000"),
    (
        jetson.locked,
        "jetson_clocks-orin-free.txt",
        "not locked: cpu0, GPU, EMC",
        "GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000",
    ),
    (jetson.locked, "jetson_clocks-not-root.txt", "", ""),
    (raspberry.bits, "vcgencmd-throttled.txt", 0x50005, "throttled=0x50005"),
    (raspberry.bits, "vcgencmd-fine.txt", 0, "throttled=0x0"),
    (apple.low_power, "pmset-macos-13.txt", "on", " lowpowermode         1"),
    (apple.low_power, "pmset-macos-26.txt", "high power", " powermode            2"),
    (apple.supply, "pmset-batt.txt", "Battery Power", "Now drawing from 'Battery Power'"),
    (apple.limited, "pmset-therm-quiet.txt", 0.0, ""),
    (apple.limited, "pmset-therm-limited.txt", 1.0, "\tCPU_Speed_Limit \t= 74"),
    (apple.build, "sw_vers-macos-13.txt", "macOS 13.6.1 (22G313)", "BuildVersion:\t\t22G313"),
    (apple.build, "sw_vers-macos-26.txt", "macOS 26.1 (25B78)", "BuildVersion:\t\t25B78"),
    (apple.pressure, "notifyutil-nominal.txt", 0.0, "com.apple.system.thermalpressurelevel 0"),
    (apple.pressure, "notifyutil-heavy.txt", 1.0, "com.apple.system.thermalpressurelevel 2"),
]
"""A parser, a capture, what is read of it, and the line that it is read of."""
METRICS = {
    "CPU power": (4312.0, "CPU Power: 4312 mW"),
    "ANE power": (0.0, "ANE Power: 0 mW"),
    "Combined power": (4347.0, "Combined Power (CPU + GPU + ANE): 4347 mW"),
    "E-Cluster clock": (1017.0, "E-Cluster HW active frequency: 1017 MHz"),
    "P-Cluster clock": (3204.0, "P-Cluster HW active frequency: 3204 MHz"),
    "GPU clock": (444.0, "GPU HW active frequency: 444 MHz"),
    "thermal pressure level": (1.0, "Current pressure level: Moderate"),
}


@pytest.mark.parametrize("name", sorted(TREES))
def test_every_field_of_a_device_is_of_the_file_that_it_is_said_to_be_of(name: str, tmp_path: Path) -> None:
    listed = captured.lines(name)
    assert tree(tmp_path / "all", listed) == {field: value for field, (value, _) in TREES[name].items()}
    for number, path in enumerate(sorted({path for _, path in TREES[name].values() if path})):
        without = tree(tmp_path / str(number), [line for line in listed if not line.startswith(f"{path} = ")])
        for field, (value, of) in TREES[name].items():
            if of == path:
                assert without.get(field) != value, f"{field} is said to be of {path}, and is the same without it"


def test_every_tree_is_read() -> None:
    assert {path.name for path in captured.FOLDER.glob("*.tree")} == TREES.keys()
    tools = {name for _, name, _, _ in TOOLS} | TEGRASTATS.keys() | {"powermetrics-m2.txt"}
    others = {path.name for path in captured.FOLDER.glob("nvidia-smi-*.txt")}  # of which a file of their own tells
    assert {path.name for path in captured.FOLDER.glob("*.txt")} == tools | others


@pytest.mark.parametrize("name", sorted(TEGRASTATS))
def test_every_figure_of_tegrastats_is_read(name: str) -> None:
    line = captured.told(name)
    found = tegrastats.values(line)
    rest, heat = TEGRASTATS[name]
    expected = rest | {f"{unit} temperature": degrees for unit, degrees in heat.items()}
    assert {one.name: found.get(one.name) for one in tegrastats.channels(line)} == expected
    assert tegrastats.values(line.rstrip()) == {}  # which was cut


@pytest.mark.parametrize(("parser", "name", "value", "line"), TOOLS)
def test_every_tool_is_read_by_the_line_that_says_it(parser: Callable[[str | None], object], name: str, value: object, line: str) -> None:
    said = captured.told(name)
    assert parser(said) == value
    assert not parser(None)
    if line:
        assert f"{line}\n" in said
        assert parser(said.replace(f"{line}\n", "")) != value


def test_a_sample_of_powermetrics_is_read_when_the_next_has_begun() -> None:
    said = captured.told("powermetrics-m2.txt")
    assert apple.whole_samples(said) == ([], said)
    assert apple.whole_samples(said + said + said) == ([said, said], said)
    assert apple.metrics(said) == {"GPU power": 35.0, **{name: value for name, (value, _) in METRICS.items()}}
    for name, (_, line) in METRICS.items():
        assert name not in apple.metrics(said.replace(f"{line}\n", ""))
    kinds = {one.name: (one.kind, one.harm) for one in apple.metric_channels(said)}
    assert kinds["CPU power"] == ("power", False)
    assert kinds["thermal pressure level"] == ("flag", True)


@pytest.mark.parametrize("header", ["(503.21ms elapsed)", "(300.01ms elapsed)", "(elapsed)"])
def test_a_sample_of_powermetrics_that_took_longer_than_was_asked_for_has_no_power(header: str) -> None:
    said = captured.told("powermetrics-m2.txt").replace("(203.21ms elapsed)", header)
    assert apple.metrics(said) == {name: value for name, (value, _) in METRICS.items() if "power" not in name}


@pytest.mark.parametrize(
    "change",
    [
        ("cpu1: Online=1 Governor=schedutil MinFreq=2201600", "cpu1: Online=1 Governor=schedutil MinFreq=?729600"),
        ("cpu1: Online=1 Governor=schedutil MinFreq=2201600", "cpu1: Online=1 Governor=schedutil 2201600"),
        ("cpu1", "c?u1"),
        ("\ncpu1: Online=1 Governor=schedutil MinFreq=2201600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=0 c7=0", ""),
        ("EMC MinFreq=204000000", "EMC MinFreq=2040?0000"),
        ("EMC MinFreq=204000000", "EMC MinFreq=2040 00000"),
        ("EMC MinFreq", "?MC MinFreq"),
        ("GPU MinFreq=1300500000 MaxFreq=1300500000", "GPU MinFreq=1300500000 MaxFreq="),
        ("Online CPUs: 0-1", "Online CPUs: 0-"),
        ("Online CPUs: 0-1", "Online CPUs: 0-3"),
        ("Online CPUs: 0-1\n", ""),
    ],
)
def test_of_a_line_that_is_damaged_nobody_says_that_clocks_are_locked(change: tuple[str, str]) -> None:
    said = captured.told("jetson_clocks-orin-locked.txt")
    assert change[0] in said
    assert jetson.locked(said.replace(*change)) == ""
    assert jetson.locked(said[: said.index("EMC")]) == ""


def test_processors_that_are_offline_and_units_beside_the_gpu_keep_nothing_from_being_locked() -> None:
    said = captured.told("jetson_clocks-orin-locked.txt")
    more = "cpu2: Online=0 Governor= MinFreq= MaxFreq= CurrentFreq=\nDLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000\n"
    assert jetson.locked(said.replace("GPU MinFreq", f"{more}GPU MinFreq")) == "locked"


@pytest.mark.parametrize("what", ["EMC_FREQ 8%@2 04", "EMC_FREQ 8%@2\t04", "GR3D_FREQ 0%@7 6", "POM_5V_IN 20 20/2020", "CPU@3 9C"])
def test_a_number_that_was_torn_apart_is_none(what: str) -> None:
    name = what.split()[0].partition("@")[0]
    called = {"EMC_FREQ": "EMC clock", "GR3D_FREQ": "GPU clock", "CPU": "CPU temperature"}.get(name, name)
    assert called not in tegrastats.values(f"RAM 1/2MB {what} APE 25\n")
    assert called not in tegrastats.values(f"RAM 1/2MB {what}\n")


def test_a_name_that_is_longer_than_any_is_no_channel() -> None:
    assert [one.name for one in tegrastats.channels(f"{'A' * 300} 5mW/5mW VDD_IN 6mW/6mW {'B' * 300}@40C\n")] == ["VDD_IN"]


def damaged(text: str, rng: random.Random) -> str:
    """Text as devices and lines spoil it. What puts one figure in the place of another cannot be seen, and is not among this."""
    kind, at = rng.randrange(9), rng.randrange(len(text))
    words = text.split(" ")
    place = rng.randrange(len(words))
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + rng.choice("\0\0xyz?µ ÿ\t") + text[at:]
    if kind == 2:
        return " ".join(words[:place] + words[place + 1 :])
    if kind == 3:
        return " ".join(words[: place + 1] + words[place:])
    if kind == 4:
        return " ".join([*words[:place], rng.choice(["off", "-256", "N/A", "nan", "-256C", "∞", "1e99", ""]), *words[place + 1 :]])
    if kind == 5:
        return text.replace(rng.choice(["mW", "C", "MHz", "%", "@", " = ", "=", ":", "0x"]), "", rng.randrange(1, 4))
    if kind == 6:
        return text + text
    if kind == 7:
        return "\n".join(rng.sample(text.split("\n"), text.count("\n") + 1))
    return " ".join(words[:place]) + "\n"


def figures(value: object) -> object:
    """A number, or those in a name, of which a letter that is spoilt is no wrong number."""
    return re.sub(r"\D", "", value) if isinstance(value, str) else value


MUTANTS = 2000


def readers() -> Iterator[tuple[str, Callable[[str], dict[str, object]]]]:
    def known(parser: Callable[[str | None], object], name: str) -> Callable[[str], dict[str, object]]:
        return lambda text: {name: value} if (value := parser(text)) not in (None, "") else {}

    for name in TEGRASTATS:
        yield captured.told(name), lambda text: dict(tegrastats.values(text))
    for parser, name, _, _ in TOOLS:
        if parser is not jetson.locked:  # of which each line that is missing is one clock less that could move
            yield captured.told(name), known(parser, name)
    yield captured.told("powermetrics-m2.txt"), lambda text: dict(apple.metrics(text))


def test_two_thousand_damaged_texts_give_no_wrong_number() -> None:
    rng = random.Random(0)
    every = list(readers())
    missing = 0
    for number in range(MUTANTS):
        text, read = every[number % len(every)]
        right, spoilt = read(text), damaged(text, rng)
        found = {name: value for name, value in read(spoilt).items() if name in right}
        assert all(figures(value) == figures(right[name]) for name, value in found.items()), spoilt
        missing += len(found) < len(right)
    assert MUTANTS / 10 < missing < MUTANTS  # else nothing was damaged


def test_two_thousand_damaged_files_give_no_wrong_number(tmp_path: Path) -> None:
    rng = random.Random(1)
    for file, capture in enumerate(TREES):
        listed = captured.lines(capture)
        right = tree(tmp_path / str(file), listed)
        made = captured.Tree(tmp_path / f"{file} again", listed)
        for _ in range(MUTANTS // len(TREES) // 10):
            changed = [line.partition(" = ") for line in rng.sample(listed, min(10, len(listed)))]
            for path, _, content in changed:
                if path.endswith(("_type", "type", "label", "name", "mode", "enable")) or "rail_name" in path or content.startswith("<"):
                    continue  # names: another name is another sensor
                asleep = "<again>" if path.startswith(("/sys/class/", "/sys/bus/")) else "<closed>"
                made.put(path, rng.choice(["", "-256000", "nonsense", f"{content}x", f"{content} 7", "1e3z", asleep, f"\\0{content}\\0"]))
            found = read_tree(made.root)
            for name, value in found.items():
                if isinstance(value, tuple) and name in right and value[0] is not None:
                    assert value == right[name] or " policies" in name or "hottest" in name or "limit of" in name, (name, value)
            for path, _, content in changed:
                made.put(path, content)
        made.close()


def test_a_file_that_says_to_try_again_is_missing_and_not_zero(tmp_path: Path) -> None:
    made = captured.Tree(tmp_path, ["/again = <again>", "/closed = <closed>", "/nul = 4\\0", "/long = 1234567890123456789012"])
    assert [files.number(tmp_path / name) for name in ("again", "closed", "absent", "nul", "long")] == [None, None, None, 4, None]
    made.close()


@pytest.mark.parametrize(
    ("points", "limit"),
    [
        ([("critical", 104500), ("passive", 99000)], 99.0),
        ([("active", 51000), ("hot", 97000)], 97.0),  # at an active one a fan starts
        ([("passive", -274000), ("critical", 0)], None),  # disabled
        ([("critical", 20800), ("passive", None), (None, 90000)], None),  # a placeholder, one that is not told, one without a kind
        ([], None),
    ],
)
def test_a_trip_point_is_one_at_which_a_device_does_less(points: list[tuple[str | None, int | None]], limit: float | None) -> None:
    assert thermal.trip(points) == limit


@pytest.mark.parametrize(
    ("file", "harms"),
    [
        ("curr1_alarm", True),
        ("curr2_max_alarm", True),
        ("curr2_crit_alarm", True),
        ("curr1_min_alarm", False),
        ("curr1_lcrit_alarm", False),
    ],
)
def test_an_alarm_is_one_of_too_much_current(tmp_path: Path, file: str, harms: bool) -> None:
    listed = [f"{HWMON}0/name = ina3221", f"{HWMON}0/{file} = 1"]
    every = sources(captured.Tree(tmp_path, listed).root)
    found = [(channel.kind, channel.harm, *one.read()) for one in every for channel in one.channels]
    assert found == ([("flag", True, 1.0)] if harms else [])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("agx-orin-r36.tree", "2 clocks, 3 temperatures, 4 rails"),
        ("intel-turbo.tree", "2 clocks, 3 temperatures, 3 rails"),
        ("raspberry-pi-4.tree", "1 clock, 1 temperature; no rail: no energy of an inference"),
        ("virtual-machine.tree", "neither clock nor temperature; no rail: no energy of an inference"),
    ],
)
def test_doctor_says_what_can_be_read_beside_a_latency(name: str, words: str, tmp_path: Path) -> None:
    made = captured.Tree(tmp_path, captured.lines(name))
    assert everything.told(made.root) == words
    made.close()

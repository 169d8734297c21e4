"""The report shows the state that a latency was taken in: tables, the energy of an inference, temperature and clock by the samples."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, stated, summarise
from dtvit_deploy.harness.state.energy import Energy
from dtvit_deploy.harness.state.record import Channel, Watched
from dtvit_deploy.report import as_data
from dtvit_deploy.report.html import render_html
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Report, Subject

pytest.importorskip("matplotlib")
LASTED, HOT_FROM = 60.0, 20.0
TIMES = np.arange(-3.0, LASTED + 3.5, 0.5)


def device(*, hot: bool) -> Watched:
    """A board whose clock falls by 30 % after twenty seconds, or does not."""
    working = (TIMES >= 0) & (TIMES <= LASTED)
    slow = working & (TIMES >= HOT_FROM) & hot
    heat = 45 + 40 * (1 - np.exp(-np.clip(TIMES, 0, None) / 12))
    series = {
        ("cpu-thermal", "temperature", "/sys/class/thermal/thermal_zone0/temp", False): heat,
        ("CPU clock up to 2202 MHz", "clock", "/sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", False): np.where(
            slow, 1541.0, np.where(working, 2201.6, 729.6)
        ),
        ("VDD_IN", "power", "/sys/class/hwmon/hwmon3/curr1_input", False): np.where(slow, 9e3, np.where(working, 14e3, 5e3)),
        ("over-current oc3", "events", "/sys/class/hwmon/hwmon1/oc3_event_cnt", True): np.where(slow | (TIMES > LASTED) & hot, 3.0, 1.0),
    }
    channels = [
        Channel(name=name, kind=kind, source=source, harm=harm, values=tuple(map(float, values)))  # type: ignore[arg-type]
        for (name, kind, source, harm), values in series.items()
    ]
    said = {"governor": "schedutil", "power mode": "MAXN (0)"}
    return Watched(
        times_s=tuple(map(float, TIMES)), sampled_s=LASTED, channels=tuple(channels), before=said, after=said | {"temperature": "85 °C"}
    )


def latency(seed: int, watched: Watched, *, hot: bool) -> Measurement:
    rng = np.random.default_rng(seed)
    stamps = np.linspace(0, LASTED - 0.1, 900)
    samples = 10 * (1 + seed) * rng.lognormal(sigma=0.02, size=900) * np.where((stamps >= HOT_FROM) & hot, 1 / 0.7, 1.0)
    warmup = Warmup(runs=20, seconds=0.3, change=0.01, first_ms=12.0)
    found = stated(summarise(samples.tolist(), stamps.tolist(), MeasureOptions(), warmup=warmup), watched)
    energy = Energy(
        rail="VDD_IN", source="/sys/class/hwmon/hwmon3/curr1_input", millijoules=91.5, low=90.25, high=92.75, busy_mw=14_000.0,
        idle_mw=5000.0, blocks=5, runs=1251, method="area under readings of power, in blocks between idle ones",
    )  # fmt: skip
    return msgspec.structs.replace(found, energy=(energy,))


def report(*, hot: bool, state: Watched | None = None) -> Report:
    watched = state or device(hot=hot)
    facts = {"sha256": "0" * 64, "precision": "fp32", "rung": Rung.ON_DEVICE, "conditions": {}}
    subjects = [
        Subject(name=name, file=name, latency=latency(seed, watched, hot=hot), **facts)  # type: ignore[arg-type]
        for seed, name in enumerate(("ONNX FP32", "ONNX FP16"))
    ]
    return Report(
        command="profile", model="net", created="2026-11-30", lineage=(), data={}, device={}, versions={}, subjects=tuple(subjects)
    )


def test_the_state_is_told_once_for_all_that_were_measured_in_it() -> None:
    text = render_markdown(report(hot=True))
    assert text.count("## Device state") == 1
    assert text.count("60.0 s of sampling") == 1
    assert "| cpu-thermal | °C | 45 | 81.7 | 84.7 | – | 121 | /sys/class/thermal/thermal_zone0/temp |" in text
    assert "| over-current oc3 | – | – | – | – | 2 | 121 | /sys/class/hwmon/hwmon1/oc3_event_cnt |" in text
    assert "| ONNX FP32 | VDD_IN | 91.5 | \\[90.2–92.8\\] | 14 | 5 | 1,251 | 5 |" in text


def test_a_device_that_becomes_hot_is_invalid_and_says_why() -> None:
    text = render_markdown(report(hot=True))
    assert "INVALID latency: ONNX FP32 (drift, spread, throttled, clock)" in text
    assert "throttled: over-current oc3 counted 2 while samples were taken" in text
    assert "clock: CPU clock up to 2202 MHz went -30%, 2202 → 1541 MHz, as the samples became slower or faster" in text
    assert "INVALID latency" not in render_markdown(report(hot=False))


def test_temperature_clock_and_power_are_drawn_beside_the_samples() -> None:
    page = render_html(report(hot=True))
    assert page.count("<figure>") == 2  # the latency itself, and its device
    assert all(word in page for word in ("°C", "MHz", "÷ p50", "seconds since sampling began"))


@pytest.mark.parametrize(
    ("watched", "pictures"),
    [
        (Watched(), 1),
        (Watched(sampled_s=1.0, times_s=(0.5,), channels=(Channel(name="a", kind="clock", source="b", values=(None,)),)), 1),
        (Watched(sampled_s=1.0, times_s=(0.1, 0.9), channels=(Channel(name="a", kind="clock", source="b", values=(1e15, -1e15)),)), 1),
        (Watched(sampled_s=1e12, times_s=(-1e15, 1e15), channels=(Channel(name="a", kind="clock", source="b", values=(1.0, 2.0)),)), 1),
        (Watched(sampled_s=1.0, times_s=(0.1, 0.9), channels=(Channel(name="$<\0", kind="power", source="b", values=(1.0, 2.0, 3.0)),)), 2),
        (Watched(sampled_s=0.0, times_s=(0.0, 0.0), channels=(Channel(name="a", kind="power", source="b", values=(1.0, 1.0)),)), 2),
        (Watched(channels=tuple(Channel(name=f"{n}", kind="temperature", source="b", values=(20.0, 30.0 + n)) for n in range(30))), 1),
    ],
)
def test_a_state_with_little_or_odd_in_it_renders(watched: Watched, pictures: int) -> None:
    found = msgspec.json.decode(msgspec.json.encode(as_data(report(hot=False, state=watched))), type=Report)
    page = render_html(found)
    assert page.count("<figure>") == pictures
    assert "Device state" in page or not (watched.before or watched.channels)

"""A report says of each device what it is and how it was before and after; which processor is whose is never left open."""

from __future__ import annotations

import msgspec
import pytest

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.cli import show
from dtvit_deploy.formats.job.results import Outcome
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, stated, summarise
from dtvit_deploy.harness.layers import LayerReport, ModuleDifference
from dtvit_deploy.harness.state.record import Watched
from dtvit_deploy.remote.told import state_around
from dtvit_deploy.report.compare import compare_reports
from dtvit_deploy.report.html import render_html
from dtvit_deploy.report.markdown import render_markdown
from dtvit_deploy.report.schema import Report, Subject

ORIN = {"device": "orin", "model": "Jetson Orin", "processor": "unknown", "architecture": "aarch64", "cores": "12", "power mode": "MAXN"}
PI = {"device": "pi", "model": "Raspberry Pi 5", "processor": "unknown", "architecture": "aarch64", "governor": "ondemand"}
MOVED = {"temperature": "41.0 °C → 63.5 °C", "clock": "2201 MHz → 1500 MHz", "throttled": "no → cpufreq-cpu0 at 2 of 7"}


def timed(conditions: dict[str, str]) -> Measurement:
    warmup = Warmup(runs=31, seconds=0.5, change=0.0, first_ms=9.0)
    found = summarise([5.0] * 64, [0.0] * 64, MeasureOptions(), warmup=warmup)
    return msgspec.structs.replace(found, conditions=conditions)


def subject(name: str, conditions: dict[str, str], **more: object) -> Subject:
    values: dict[str, object] = {"name": name, "file": "net.onnx", "sha256": "b" * 64, "precision": "fp32", "rung": Rung.ON_DEVICE}
    return Subject(conditions={"runtime": "onnxruntime 1.0", "threads": "1"} | conditions, **{**values, **more})  # type: ignore[arg-type]


def report(*subjects: Subject, command: str = "verify") -> Report:
    here = {"processor": "A CPU", "architecture": "x86_64", "cores": "8", "system": "Linux 6"}
    return Report(command=command, model="net", created="now", lineage=(), data={}, device=here, versions={}, subjects=subjects)


TWO = (subject("ONNX FP32 on orin", ORIN | MOVED), subject("ONNX FP32 on pi", PI))


def test_every_device_is_told_beside_this_machine_and_with_its_state() -> None:
    for text in (render_markdown(report(*TWO)), render_html(report(*TWO))):
        for part in ("Devices", "Jetson Orin", "Raspberry Pi 5", "MAXN", "ondemand", "A CPU", "63.5 °C", "cpufreq-cpu0 at 2 of 7"):
            assert part in text


def test_whose_processor_is_whose_is_said_in_the_report_and_at_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    told = "the reference on A CPU; on orin: Jetson Orin, aarch64; on pi: Raspberry Pi 5, aarch64"
    assert told in render_markdown(report(*TWO))
    show.report(report(*TWO))
    assert told in capsys.readouterr().out.replace("\n", " ")


def test_an_emulated_processor_is_told_as_one() -> None:
    emulated = subject("ONNX FP32 on arm", {"device": "arm", "architecture": "aarch64", "emulated processor": "qemu-aarch64"})
    assert "on arm: aarch64, emulated by qemu-aarch64" in render_markdown(report(emulated))


def test_without_devices_nothing_is_said_of_them() -> None:
    text = render_markdown(report(subject("ONNX FP32", {})))
    assert "## Devices" not in text
    assert "on A CPU" in text


def test_a_latency_carries_the_state_of_its_device() -> None:
    text = render_markdown(report(subject("ONNX FP32 on orin", ORIN, latency=timed(ORIN | MOVED)), command="profile"))
    assert text.count("63.5 °C") == 2  # beside the figure, and in the section
    assert "its latency was taken" in text


def test_a_state_that_was_watched_is_told_in_its_own_section_alone() -> None:
    watched = Watched(before={"temperature": "41.0 °C"}, after={"temperature": "63.5 °C"}, times_s=(0.0, 1.0), sampled_s=1.0)
    measured = stated(timed(ORIN | MOVED), watched)
    text = render_markdown(report(subject("ONNX FP32 on orin", ORIN, latency=measured), command="profile"))
    assert "its latency was taken" not in text
    assert text.count("63.5 °C") == 1


def test_layers_of_one_file_on_two_devices_have_two_titles(capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleDifference(module="stem", tensors=1, error=1e-6, floor=1e-6, inherited=0.0, suspect=False)
    walked = LayerReport(samples=1, program_tensors=1, layers=(), modules=(module,), first=None, verdict="all is well")
    found = report(*(msgspec.structs.replace(one, layers=walked) for one in TWO))
    show.report(found)
    out = capsys.readouterr().out
    for text in (out, render_markdown(found)):
        assert "ONNX FP32 on orin" in text
        assert "ONNX FP32 on pi" in text
    titles = [line for line in out.splitlines() if "error by torch module" in line]
    assert len(set(titles)) == len(titles) == 2


def test_another_power_mode_is_another_device() -> None:
    before = report(subject("ONNX FP32 on orin", ORIN, latency=timed(ORIN), bytes=9))
    after = report(subject("ONNX FP32 on orin", ORIN | {"power mode": "15W"}, latency=timed(ORIN), bytes=9))
    assert any("power mode was MAXN and is 15W" in gate.reason for gate in compare_reports(before, after).verdict.failed)
    assert compare_reports(before, before).verdict.passed


class TestStateAround:
    def test_what_stayed_is_told_once_and_what_changed_twice(self) -> None:
        outcome = Outcome(before={"temperature": "40", "governor": "schedutil"}, after={"temperature": "60", "governor": "schedutil"})
        assert state_around(outcome) == {"temperature": "40 → 60", "governor": "schedutil"}

    def test_what_is_told_on_one_side_alone_says_so(self) -> None:
        assert state_around(Outcome(after={"clock": "600 MHz"})) == {"clock": "not told → 600 MHz"}
        assert state_around(Outcome()) == {}

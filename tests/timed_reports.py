"""Reports of an artefact of 10 ms beside a torch of 20 ms, with noise that no machine is needed for."""

from __future__ import annotations

import msgspec
import numpy as np

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.state.record import Watched
from dtvit_deploy.report.schema import Report, Subject

DEVICE = {"device": "local", "processor": "A CPU", "architecture": "x86_64", "cores": "8", "governor": "performance"}
CONDITIONS = {"runtime": "onnxruntime 1.30", "provider": "CPUExecutionProvider", "threads": "1", "precision": "fp32"}


def timed_report(
    artefact: float = 1.0, machine: float = 1.0, *, seed: int, count: int = 300, noise: float = 0.01, torch: bool = True, **device: str
) -> Report:
    """A report in which the artefact, and the machine as a whole, take so many times as long as usual."""
    rng = np.random.default_rng(seed)
    artefacts = subject("ONNX FP32", latency(10 * artefact * machine, count, noise, rng), CONDITIONS, file="net.onnx")
    reference = {"runtime": "torch 2.13", "threads": "1", "precision": "fp32"}
    subjects = (subject("torch FP32", latency(20 * machine, count, noise, rng), reference),) if torch else ()
    return Report(
        command="profile", model="net", created=f"2026-11-30T10:00:{seed % 60:02}Z", lineage=(), data={}, versions={},
        device=DEVICE | device, subjects=(*subjects, artefacts),
    )  # fmt: skip


def set_to(report: Report, **settings: str) -> Report:
    """The report, each of whose latencies was taken on a device that told these settings; ``_`` stands for a blank."""
    facts = {"load": "0.10 over one minute"} | {
        key.replace("_", " ") if key != "jetson_clocks" else key: to for key, to in settings.items()
    }
    state = Watched(before=facts, after=facts, sampled_s=3.0, times_s=(-1.0, 0.5, 3.1))
    subjects = (
        one if one.latency is None else msgspec.structs.replace(one, latency=msgspec.structs.replace(one.latency, state=state))
        for one in report.subjects
    )
    return msgspec.structs.replace(report, subjects=tuple(subjects))


def subject(name: str, found: Measurement, conditions: dict[str, str], file: str = "") -> Subject:
    return Subject(
        name=name, file=file, sha256="b" * 64, precision="fp32", rung=Rung.EXECUTED, conditions=conditions, latency=found,
        bytes=10 if file else 0,
    )  # fmt: skip


def latency(median: float, count: int, noise: float, rng: np.random.Generator) -> Measurement:
    samples = median * np.exp(noise * rng.standard_normal(count))
    return summarise(samples.tolist(), [0.0] * count, MeasureOptions(), warmup=Warmup(runs=10, seconds=1.0, change=0.0, first_ms=median))

"""How often `compare` and `compare --history` are wrong of artefacts that did not change, and what of a creeping regression is found.

    python benchmarks/compare_alarms.py [--pairs 400]

Everything is simulated: runs of an artefact of 10 ms beside a torch of 20 ms, with noise of each sample, a clock that wanders by 5 % for
both, and for each process a level of its own, which no sample of a single process knows. Exit code 1 where more than 1 % of the series in
which processes lie as far apart as the band, or less, end in a false alarm, or where a regression of 1.5 % a run is not found by the
fourteenth.
"""

from __future__ import annotations

import argparse

import msgspec
import numpy as np

from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.report.compare import Comparison, compare_reports
from dtvit_deploy.report.schema import Report, Subject
from dtvit_deploy.report.series import Point, compare_with_series, judged, points

ALARMS = 0.01
"""Greatest share of false alarms of a series."""
WANDER = 0.05
PAIRS = ((300, 0.01, 0.0), (300, 0.01, 0.005), (300, 0.01, 0.01), (64, 0.03, 0.005), (64, 0.03, 0.01), (64, 0.03, 0.02))
SERIES = ((300, 0.01, 0.005), (300, 0.01, 0.01), (300, 0.01, 0.02), (64, 0.03, 0.02), (64, 0.03, 0.04))
"""Samples, their noise, and what differs between processes (standard deviations of logarithms)."""
LENGTHS = (3, 12, 30)
"""Earlier runs of a series."""
GROWTH, RUNS = 0.015, 14
"""Of the creeping regression: a run, and how many."""


def report(count: int, noise: float, process: float, rng: np.random.Generator, level: float = 1.0) -> Report:
    steps = rng.standard_normal(count + 39) * WANDER / np.sqrt(40)
    wander = np.convolve(steps, np.ones(40), "valid")
    mine, torch = np.exp(wander + noise * rng.standard_normal((2, count)))
    mine *= 10 * level * np.exp(process * rng.standard_normal())
    subjects = (subject("torch FP32", "", 20 * torch), subject("ONNX FP32", "net.onnx", mine))
    return Report(
        command="profile", model="net", created="now", lineage=(), data={}, device={}, versions={}, subjects=subjects,
    )  # fmt: skip


def subject(name: str, file: str, samples_ms: np.ndarray) -> Subject:
    return Subject(
        name=name,
        file=file,
        sha256="b" * 64,
        precision="fp32",
        rung=Rung.EXECUTED,
        conditions={"runtime": "any"},
        latency=latency(samples_ms),
    )


def latency(samples_ms: np.ndarray) -> Measurement:
    warmup = Warmup(runs=10, seconds=0.3, change=0.0, first_ms=20.0)
    options = MeasureOptions(drift_limit=1.0, spread_limit=1.0)
    return summarise(samples_ms.tolist(), [0.0] * len(samples_ms), options, warmup=warmup)


def outcome(found: Comparison) -> str:
    failed = any("p50" in gate.name for gate in found.verdict.failed)
    return "slower" if failed else "undecided" if found.undecided else "pass"


def of_two_reports(pairs: int) -> None:
    print("samples  noise  processes  called slower  undecided   (--slower 0.05: slower, undecided)")
    for count, noise, process in PAIRS:
        rng = np.random.default_rng(1)
        two = [(report(count, noise, process, rng), report(count, noise, process, rng)) for _ in range(pairs)]
        told = [outcome(compare_reports(*one)) for one in two]
        wide = [outcome(compare_reports(*one, slower=0.05)) for one in two]
        print(
            f"{count:7} {noise:6.1%} {process:10.1%} {told.count('slower'):9} of {pairs} {told.count('undecided'):10}"
            f"   ({wide.count('slower')}, {wide.count('undecided')})",
            flush=True,
        )


def of_series(pairs: int) -> bool:
    """Whether false alarms are as rare as they should be."""
    held = True
    print("samples  noise  processes  earlier runs  called slower  undecided")
    for count, noise, process in SERIES:
        rng = np.random.default_rng(2)
        made = [points(report(count, noise, process, rng))[0] for _ in range(200)]
        for length in LENGTHS:
            told = []
            for _ in range(pairs):
                earlier = [moved(made[place], process, str(at), rng) for at, place in enumerate(rng.integers(len(made), size=length))]
                told.append(outcome(compare_with_series(earlier, report(count, noise, process, rng))))
            print(
                f"{count:7} {noise:6.1%} {process:10.1%} {length:13} {told.count('slower'):9} of {pairs} {told.count('undecided'):10}",
                flush=True,
            )
            held &= process > 0.02 or told.count("slower") <= ALARMS * pairs
    return held


def moved(point: Point, process: float, name: str, rng: np.random.Generator) -> Point:
    """A point of another process: its interval, about another level; intervals take longer to make than series."""
    assert point.p50_ratio is not None
    assert point.p50_ratio_low is not None
    assert point.p50_ratio_high is not None
    width = np.log(point.p50_ratio_high / point.p50_ratio_low) / (2 * 1.96)
    times = 0.5 / point.p50_ratio * float(np.exp(process * rng.standard_normal() + width * rng.standard_normal()))
    return msgspec.structs.replace(
        point,
        report=name,
        p50_ratio=point.p50_ratio * times,
        p50_ratio_low=point.p50_ratio_low * times,
        p50_ratio_high=point.p50_ratio_high * times,
    )


def creeping(series: int) -> bool:
    """Whether all of the regressions were found in time."""
    held = True
    print(f"a regression of {GROWTH:.1%} a run, {RUNS} runs: the run that fails first, of {series} series")
    for process in (0.0, 0.005, 0.01):
        first = []
        for seed in range(series):
            rng = np.random.default_rng(seed)
            earlier: list[Point] = []
            for run in range(RUNS):
                found, new = judged(earlier, report(300, 0.01, process, rng, (1 + GROWTH) ** run))
                if not found.verdict.passed:
                    first.append(run + 1)
                    break
                earlier += new
        held &= len(first) == series
        told = f"median {np.median(first):.0f}, last {max(first)}" if first else "-"
        print(f"processes {process:.1%} apart: found in {len(first)}, {told}", flush=True)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400, help="reports, or series, of each kind")
    given = parser.parse_args()
    of_two_reports(given.pairs)
    right = [of_series(given.pairs), creeping(max(given.pairs // 10, 1))]
    return 0 if all(right) else 1


if __name__ == "__main__":
    raise SystemExit(main())

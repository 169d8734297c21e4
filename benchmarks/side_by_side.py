"""How often an A/B comparison is wrong: equal pairs that are called different, and 2 % that are not found.

    python benchmarks/side_by_side.py [--pairs 200] [--processes 6] [--rounds 200]
    python benchmarks/side_by_side.py --real A B [--pairs 40] [--seconds 3]

Without --real the machine is simulated: rounds that a wandering clock slows together, noise of each run, rare runs of half as long again,
and for each process and candidate a level of its own, as the layout of memory gives it. With --real, as many comparisons of A with A and
of A with B are measured on this machine, each in fresh processes. Exit code 1 where more than 1 % of equal pairs are called different, or
fewer than 80 % of the different ones are found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.ab import SideBySide, side_by_side

ALARMS, FOUND = 0.01, 0.80
"""Greatest share of equal pairs called different, least share of different ones found."""
DIFFERENCE = 0.02
WANDER, NOISE, LAYOUT = 0.05, 0.03, 0.005
"""Of the simulated machine, relative: its clock's slow wandering, the noise of single runs, and what differs between processes."""


def simulated(difference: float, processes: int, rounds: int, rng: np.random.Generator) -> SideBySide:
    """One comparison of a candidate of 10 ms with one that is slower by a share."""
    pairs = []
    for _ in range(processes):
        steps = rng.standard_normal(rounds + 39) * WANDER / np.sqrt(40)
        wander = np.convolve(steps, np.ones(40), "valid")
        noise = NOISE * rng.standard_normal((2, rounds)) + np.log(1.5) * (rng.random((2, rounds)) < 0.02)
        level = np.log([10, 10 * (1 + difference)]) + LAYOUT * rng.standard_normal(2)
        a, b = np.exp(level[:, None] + noise + wander)
        pairs.append((measurement(a), measurement(b)))
    return side_by_side(pairs)


def measurement(samples_ms: np.ndarray) -> Measurement:
    warmup = Warmup(runs=10, seconds=0.3, change=0.0, first_ms=20.0)
    return summarise(samples_ms.tolist(), [0.0] * len(samples_ms), MeasureOptions(), warmup=warmup)


def tried(name: str, count: int, compare: Callable[[], SideBySide]) -> float:
    """Share of comparisons that found a difference, of either sign."""
    began, found, widths = time.perf_counter(), [], []
    for _ in range(count):
        one = compare()
        found.append(one.found)
        widths.append(one.growth.high - one.growth.low)
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in ("slower", "faster", "alike", "undecided"))
    print(f"{name}: {counts} of {count}; median width of the interval {np.median(widths):.2%}; {time.perf_counter() - began:.0f} s")
    different = found.count("slower") + found.count("faster")
    return different / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", nargs=2, type=Path, metavar=("A", "B"))
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=200, help="of a simulated process")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a real one, for each candidate")
    asked = parser.parse_args()
    if asked.real:
        from dtvit_deploy.pipeline.ab import compare_side_by_side

        options = MeasureOptions(min_seconds=asked.seconds)
        count = asked.pairs or 40
        a, b = asked.real
        same = tried("A and A", count, lambda: compare_side_by_side(a, a, options, processes=asked.processes).outcome)
        other = tried("A and B", count, lambda: compare_side_by_side(a, b, options, processes=asked.processes).outcome)
    else:
        rng, count = np.random.default_rng(0), asked.pairs or 200
        print(f"simulated: {asked.processes} processes of {asked.rounds} rounds")
        print(f"relative: clock {WANDER:.1%}, single runs {NOISE:.1%}, processes {LAYOUT:.1%}")
        same = tried("equal", count, lambda: simulated(0.0, asked.processes, asked.rounds, rng))
        other = tried(f"{DIFFERENCE:.0%} slower", count, lambda: simulated(DIFFERENCE, asked.processes, asked.rounds, rng))
    print(f"called different: {same:.1%} of equal pairs (limit {ALARMS:.0%}), {other:.1%} of different ones (at least {FOUND:.0%})")
    return 0 if same <= ALARMS and other >= FOUND else 1


if __name__ == "__main__":
    sys.exit(main())

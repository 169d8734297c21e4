"""How often an A/B comparison is wrong: equal pairs that are called different, and 2 % that are not found.

    python benchmarks/side_by_side.py [--pairs 200] [--processes 6] [--rounds 200]
    python benchmarks/side_by_side.py --real [A B] [--pairs 40] [--seconds 3]

Without --real the machine is simulated: rounds that a wandering clock slows together, noise of each run, rare runs of half as long again,
and for each process and candidate a level of its own, as the layout of memory gives it. With --real, as many comparisons of A with A and
of A with B are measured on this machine by turns, each in fresh processes; where none are given, A is T (mix) for OpenVINO in FP32 and B
the same network with one convolution more, which takes about 2 %. How much it does is told of all pairs together. Exit code 1 where more
than 1 % of equal pairs are called different, or fewer than 80 % of the different ones are found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dtvit_deploy.harness.latency import Measurement, MeasureOptions, Warmup, summarise
from dtvit_deploy.harness.latency.ab import SideBySide, side_by_side

ALARMS, FOUND = 0.01, 0.80
"""Greatest share of equal pairs called different, least share of different ones found."""
DIFFERENCE = 0.02
WANDER, NOISE, LAYOUT = 0.05, 0.03, 0.005
"""Of the simulated machine, relative: its clock's slow wandering, the noise of single runs, and what differs between processes."""

CHANNELS = 24
"""Of the convolution that B has more."""
LONGER = f"""
import torch
from dtvit_deploy.models.dualtoken.network import DualTokenViT
from dtvit_deploy.models.registry import variant

class Longer(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.base = DualTokenViT(variant("dualtoken-vit-t-mix").config)
        self.more = torch.nn.Conv2d(3, channels, 7, 4, 3) if channels else None

    def forward(self, image):
        answer = self.base(image)
        return answer if self.more is None else answer + 1e-3 * self.more(image).mean((1, 2, 3), keepdim=True).flatten(1)

def made(channels):
    return Longer(channels).eval(), {{"image": torch.zeros(1, 3, 224, 224)}}

def with_none():
    return made(0)

def with_{CHANNELS}():
    return made({CHANNELS})
"""


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


def tried(name: str, outcomes: list[SideBySide]) -> float:
    """Share of comparisons that found a difference, of either sign."""
    found = [one.found for one in outcomes]
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in ("slower", "faster", "alike", "undecided"))
    difference, width = (np.median([take(one.growth) for one in outcomes]) for take in (lambda it: it.share, lambda it: it.high - it.low))
    print(f"{name}: {counts} of {len(found)}; median difference {difference:+.2%}, median width of its interval {width:.2%}")
    return (found.count("slower") + found.count("faster")) / len(found)


def real(asked: argparse.Namespace) -> tuple[float, float]:
    """Shares of comparisons of A with A and of A with B, measured by turns, that found a difference."""
    from dtvit_deploy.pipeline.ab import compare_side_by_side

    options, count = MeasureOptions(min_seconds=asked.seconds), asked.pairs or 40
    with tempfile.TemporaryDirectory() as folder:
        a, b = asked.real or made(Path(folder))
        equal, different, began = list[SideBySide](), list[SideBySide](), time.perf_counter()
        for turn in range(count):
            for other, outcomes in ((a, equal), (b, different)):
                outcomes.append(compare_side_by_side(a, other, options, processes=asked.processes).outcome)
            told = ", ".join(f"{one.growth.share:+.2%} {one.found}" for one in (equal[-1], different[-1]))
            print(f"{turn + 1} of {count} after {time.perf_counter() - began:.0f} s: {told}", file=sys.stderr)
    print(f"measured: {asked.processes} processes, each at least {asked.seconds:g} s for either")
    return tried("A and A", equal), tried("A and B", different)


def made(folder: Path) -> tuple[Path, Path]:
    """T (mix) as it is, and with one convolution more."""
    (folder / "longer.py").write_text(LONGER)
    found = []
    for channels in (0, CHANNELS):
        name, out = f"longer:with_{channels or 'none'}", folder / str(channels)
        command = [sys.executable, "-m", "dtvit_deploy", "export", "-m", name, "-t", "openvino", "-o", str(out)]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (artifact,) = out.glob("*.openvino")
        found.append(artifact)
    return found[0], found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", nargs="*", type=Path, metavar="A B")
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=200, help="of a simulated process")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a real one, for each candidate")
    asked = parser.parse_args()
    if asked.real is not None:
        same, other = real(asked)
    else:
        rng, count = np.random.default_rng(0), asked.pairs or 200
        print(f"simulated: {asked.processes} processes of {asked.rounds} rounds")
        print(f"relative: clock {WANDER:.1%}, single runs {NOISE:.1%}, processes {LAYOUT:.1%}")
        drawn = {share: [simulated(share, asked.processes, asked.rounds, rng) for _ in range(count)] for share in (0.0, DIFFERENCE)}
        same, other = tried("equal", drawn[0.0]), tried(f"{DIFFERENCE:.0%} slower", drawn[DIFFERENCE])
    print(f"called different: {same:.1%} of equal pairs (limit {ALARMS:.0%}), {other:.1%} of different ones (at least {FOUND:.0%})")
    return 0 if same <= ALARMS and other >= FOUND else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a second process gains an evaluation and a calibration that are cut into shards, and what a worker holds in memory.

    python benchmarks/shards.py [--model NAME | --checkpoint FILE] [--data FOLDER] [--images 1000] [--shard 125] [--threads 1]

Time: the same shards in a pool of one process and in one of two, each started from nothing and warmed by a small shard, as a ratio of the
wall times; the reference and an ONNX artefact are evaluated. Images are taken again and again where there are too few. Limit 1.7, where
there are two cores.
Memory: the peak of a worker that has scored so many images against that of one that has scored a fifth of them. Limit 1.15.
Figures and tables have to be those of a single pass in this process, to the last byte.
Ends with exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set, real_set
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.measure import Bench
from dtvit_deploy.pipeline.observation import Observation
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.scoring import accuracy
from dtvit_deploy.pipeline.shards import Sharding
from dtvit_deploy.runtimes.pairing import pairings

T = TypeVar("T")
R = TypeVar("R")

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
FASTER, LARGER = 1.7, 1.15
FEWER = 5
WARM_UP = 4
"""Samples that a pool computes before its time is taken: its processes import the frameworks on them."""


class Pool:
    """A pool of processes that tells how much memory the largest of them has held."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self.peak = 0.0

    def map(self, function: Callable[[T], R], shards: Sequence[T], /) -> Iterable[R]:
        for found, peak in self._pool.map(partial(_watched, function), shards):
            self.peak = max(self.peak, peak)
            yield found


def _watched(function: Callable[[T], R], shard: T) -> tuple[R, float]:
    """What is computed, and MiB that this process has held at most."""
    found = function(shard)
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def pool_of(processes: int) -> Iterator[Pool]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield Pool(pool)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--data", type=Path, default=None, help="images; the digits by default, or random numbers for --model")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--shard", type=int, default=125, help="images in a shard")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if asked.model is None and asked.checkpoint is None:
        asked.checkpoint = EXAMPLE / "digits.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        if asked.data is None and asked.model is None:
            subprocess.run([sys.executable, EXAMPLE / "data.py", folder], check=True)
            asked.data = Path(folder) / "train"
        entries = Cache(Path(folder) / "cache")
        program = program_stage(Model(name=asked.model, checkpoint=asked.checkpoint), entries)
        material = open_material(asked.data, program.artifact.manifest)
        pairing = pairings((onnx_stage(program, material.guard(), entries),))
        print(f"{asked.images} images in shards of {asked.shard}, {asked.threads} threads, {os.cpu_count()} cores")
        evaluated = _evaluation(Bench(program, pairing, _repeated(material, asked.images), asked.threads, Silent()), asked.shard)
        return max(evaluated, _calibration(program, asked))


def _repeated(material: Material, count: int) -> Material:
    """So many samples, the same ones again where there are fewer."""
    if material.images is None:
        return dataclasses.replace(material, ready=tuple(islice(cycle(material.ready), count)))
    images = tuple(islice(cycle(material.images.images), count))
    return dataclasses.replace(material, images=dataclasses.replace(material.images, images=images))


def _evaluation(bench: Bench, each: int) -> int:
    def evaluate(count: int, each: int = each, pool: Pool | None = None) -> bytes:
        some = dataclasses.replace(bench, material=bench.material.part(0, count))
        return msgspec.json.encode(accuracy(some) if pool is None else accuracy(some, Sharding(-(-count // each), pool.map)))

    total = len(bench.material)
    failed = _compared("evaluation", evaluate, total)
    peaks = []
    for count in (max(total // FEWER, 2 * each), total):
        with pool_of(1) as pool:
            evaluate(count, pool=pool)
        peaks.append(pool.peak)
    print(f"evaluation: a worker's peak is {peaks[0]:.0f} MiB, and {peaks[1]:.0f} MiB with {total} images")
    return max(failed, _judge("evaluation: peak of many / few", peaks[1] / peaks[0], peaks[1] / peaks[0] <= LARGER, LARGER))


def _calibration(program: ProgramEntry, asked: argparse.Namespace) -> int:
    @cache
    def chosen(count: int) -> CalibrationSet:
        manifest = program.artifact.manifest
        return real_set(asked.data, manifest, count, 0) if asked.data else random_set(manifest.signature, count, 0)

    def calibrate(count: int, each: int = asked.shard, pool: Pool | None = None) -> bytes:
        samples = chosen(count)
        observation = Observation(program, samples, percentile=99.99, threads=asked.threads)
        if pool is None:
            with tempfile.TemporaryDirectory() as folder:
                observation.run(Path(folder) / "ranges.json.unfinished", Silent())
        else:
            observation.gather(Sharding(-(-len(samples.samples) // each), pool.map), Silent())
        arrays: dict[str, Any] = observation.counts.histograms.arrays()
        return b"".join((observation.curve.tobytes(), *(array.tobytes() for array in arrays.values())))

    return _compared("calibration", calibrate, asked.images)


def _compared(what: str, compute: Callable[..., bytes], total: int) -> int:
    """Time with one process and with two; what they compute is what this process computes alone."""
    alone = compute(total)  # what is read once for all, such as the images' content, is read here
    seconds = []
    for processes in (1, 2):
        with pool_of(processes) as pool:
            compute(WARM_UP * processes, WARM_UP, pool)
            began = time.perf_counter()
            found = compute(total, pool=pool)
            seconds.append(time.perf_counter() - began)
        print(f"{what}: {seconds[-1]:.1f} s with {processes} of them, {total / seconds[-1]:.1f} images a second, {pool.peak:.0f} MiB each")
        if found != alone:
            print(f"{what}: NOT WHAT ONE PASS COMPUTES")
            return 1
    ratio = seconds[0] / seconds[1]
    return _judge(f"{what}: time of one / two", ratio, ratio >= FASTER or (os.cpu_count() or 1) < 2, FASTER)


def _judge(what: str, ratio: float, kept: bool, limit: float) -> int:
    print(f"{what} = {ratio:.2f}, limit {limit}" + ("" if kept else ": MISSED"))
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())

"""What calibration costs over plain inference, and whether its memory grows with the number of images.

    python benchmarks/calibration.py [--model NAME | --checkpoint FILE] [--data FOLDER] [--images 300] [--threads 1]

Time: one pass of calibration (four methods, their thresholds at every point of the convergence curve, saving on the way) against the
same program run plainly on the same images before and after it, as a ratio of the time for an image; images are decoded outside the
plain passes, and inside calibration. Limit 3.
Memory: peak of a process that calibrates on 1,000 images against one that does on 50. Limit 1.15.
Ends with exit code 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.calibrate import calibrate
from dtvit_deploy.pipeline.calibration_set import CalibrationSet, random_set, real_set
from dtvit_deploy.pipeline.observation import Observation
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.recipe.tables import Data, Int8, Recipe, Run
from dtvit_deploy.runtimes.base import Session, SessionOptions
from dtvit_deploy.runtimes.registry import open_session

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
SLOWER, LARGER = 3.0, 1.15
FEW, MANY = 50, 1000
IN_MEMORY = 50
"""Decoded images held at a time for the plain passes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--data", type=Path, default=None, help="at least 1,000 images; the digits, or random numbers for --model")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=int, default=None, help=argparse.SUPPRESS)  # the process whose memory is measured
    parser.add_argument("--cache", type=Path, default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak is not None:
        options = Recipe(
            model=Model(name=asked.model, checkpoint=asked.checkpoint),
            data=Data(calibration=asked.data),
            int8=Int8(random_data=asked.data is None, samples=asked.peak),
            run=Run(threads=asked.threads),
        )
        with tempfile.TemporaryDirectory() as folder:
            calibrate(options, Path(folder) / "ranges.json", Cache(asked.cache), Silent())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10))
        return 0
    if asked.model is None and asked.checkpoint is None:
        asked.checkpoint = EXAMPLE / "digits.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        if asked.data is None and asked.model is None:
            subprocess.run([sys.executable, EXAMPLE / "data.py", folder], check=True)
            asked.data = Path(folder) / "train"
        asked.cache = Path(folder) / "cache"
        program = program_stage(Model(name=asked.model, checkpoint=asked.checkpoint), Cache(asked.cache))
        return max(_time(program, asked), _memory(asked))


def _time(program: ProgramEntry, asked: argparse.Namespace) -> int:
    manifest = program.artifact.manifest
    chosen = real_set(asked.data, manifest, asked.images, 0) if asked.data else random_set(manifest.signature, asked.images, 0)
    count = len(chosen.samples)
    with open_session(program.artifact, SessionOptions(threads=asked.threads)) as session, tempfile.TemporaryDirectory() as folder:
        before = _plain(session, chosen)
        began = time.perf_counter()
        observation = Observation(program, chosen, percentile=99.99, threads=asked.threads)
        observation.run(Path(folder) / "ranges.json.unfinished", Silent())
        spent = time.perf_counter() - began
        after = _plain(session, chosen)
    plain = (before + after) / 2
    tensors = len(observation.counts.terms.tensors)
    print(f"time: plain {plain / count * 1e3:.1f} ms an image (before {before / count * 1e3:.1f}, after {after / count * 1e3:.1f})")
    print(f"time: calibration {spent / count * 1e3:.1f} ms an image: {count} images, {tensors} tensors, {asked.threads} threads")
    return _judge("time: calibration / plain", spent / plain, SLOWER)


def _plain(session: Session, chosen: CalibrationSet) -> float:
    """Seconds for all images, once a few have run unmeasured."""
    spent, feeds = 0.0, chosen.feeds(0)
    for feed in islice(chosen.feeds(0), 5):
        session.run(feed)
    while held := list(islice(feeds, IN_MEMORY)):
        began = time.perf_counter()
        for feed in held:
            session.run(feed)
        spent += time.perf_counter() - began
    return spent


def _memory(asked: argparse.Namespace) -> int:
    few, many = (_peak(count, asked) for count in (FEW, MANY))
    print(f"memory: peak {few:.0f} MiB for {FEW} images, {many:.0f} MiB for {MANY}")
    return _judge(f"memory: {MANY} images / {FEW}", many / few, LARGER)


def _peak(count: int, asked: argparse.Namespace) -> float:
    """MiB of a process of its own."""
    given: Iterable[tuple[str, object]] = (("--model", asked.model), ("--checkpoint", asked.checkpoint), ("--data", asked.data))
    options = [str(part) for name, value in given if value is not None for part in (name, value)]
    command = [sys.executable, __file__, "--peak", str(count), "--cache", str(asked.cache), "--threads", str(asked.threads), *options]
    return float(subprocess.check_output(command, text=True))


def _judge(what: str, ratio: float, limit: float) -> int:
    print(f"{what} = {ratio:.2f}, limit {limit}" + ("" if ratio <= limit else ": EXCEEDED"))
    return int(ratio > limit)


if __name__ == "__main__":
    sys.exit(main())

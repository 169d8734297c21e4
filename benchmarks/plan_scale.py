"""What a large plan costs whoever carries it out: 200 checkpoints, 12 artefacts each, 50 stretches of images, on 100 workers.

    python benchmarks/plan_scale.py [--recipes 200] [--stretches 50] [--workers 100]

The workers are simulated: a stage takes the time that it is said to take, on a clock of its own, and its result is a small file. What is
real is the rest: planning, keys, looking up and keeping results, and choosing what comes next. The share of the time that the workers are
at work is by that clock, on which a single worker does one thing after the other.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.execute import execute
from dtvit_deploy.plan.graph import Plan, Stage
from dtvit_deploy.plan.keys import key_of, kind_of
from dtvit_deploy.plan.performing import Order
from dtvit_deploy.plan.pool import Over
from dtvit_deploy.plan.stages import plan
from dtvit_deploy.recipe.tables import Data, Export, Int8, Recipe, Run

SECONDS = {"trace": 30.0, "observed": 20.0, "scores": 240.0, "parity": 60.0, "latency": 60.0, "report": 10.0}
"""By experience with S (mix) on one core, twelve artefacts, stretches of 1,000 images; the others take 15 s."""
LONGEST = 60.0
"""Seconds that planning may take."""


class Simulated:
    """So many workers, each at one stage at a time."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._running: list[tuple[float, int, Order]] = []
        self._begun = 0
        self.clock = self.worked = 0.0

    def room(self, stage: Stage, running: Collection[Stage]) -> bool:
        return len(self._running) < self._workers

    def begin(self, order: Order) -> None:
        seconds = SECONDS.get(order.stage.does, 15.0)
        self.worked += seconds
        self._begun += 1
        heapq.heappush(self._running, (self.clock + seconds, self._begun, order))

    def next(self) -> Over:
        self.clock, _, order = heapq.heappop(self._running)
        stage, given = order.stage, {name: Path(folder) for name, folder in order.given.items()}
        made = Cache(Path(order.cache)).entry(
            kind_of(stage), key_of(stage, given, order.missing), lambda folder: _write(folder, f"{stage.name} {sorted(given)}")
        )
        return Over(stage.name, str(made), None)


def _write(folder: Path, text: str) -> None:
    (folder / "result").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--stretches", type=int, default=50)
    parser.add_argument("--workers", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        recipes = _recipes(Path(scratch), asked.recipes, asked.stretches)
        tracemalloc.start()
        began = time.perf_counter()
        graph = plan(recipes, farm="tls://scheduler:8786").without_helpers()
        seconds, memory = time.perf_counter() - began, tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        artefacts = sum(stage.does == "build" for stage in graph)
        print(
            f"{len(recipes)} checkpoints, {artefacts} artefacts, {len(graph)} stages: planned in {seconds:.1f} s, {memory / 2**20:.0f} MiB"
        )
        for workers in (1, asked.workers):
            _carry_out(Plan(list(graph)), [recipe for _, recipe in recipes], Path(scratch) / f"cache{workers}", workers)
    print(f"planning: {seconds:.1f} s, limit {LONGEST:.0f}" + ("" if seconds <= LONGEST else ": MISSED"))
    return int(seconds > LONGEST)


def _carry_out(graph: Plan, recipes: list[Recipe], cache: Path, workers: int) -> None:
    pool, began = Simulated(workers), time.perf_counter()
    results = execute(graph, recipes, Cache(cache), pool, Silent())
    seconds = time.perf_counter() - began
    assert len(results.folders) == len(graph), results.failed
    share, hours = pool.worked / (workers * pool.clock), pool.clock / 3600
    print(
        f"{workers} workers: {hours:.1f} h by their clock, at work {share:.1%} of it; {seconds:.0f} s of it are this process's own,"
        f" {1000 * seconds / len(graph):.1f} ms a stage"
    )


def _recipes(folder: Path, count: int, stretches: int) -> list[tuple[str, Recipe]]:
    """Recipes of networks with other seeds, so many images, and stretches of two."""
    for name, images in (("images", 2 * stretches), ("more", 2 * 8)):
        for label in "ab":
            (folder / name / label).mkdir(parents=True)
            for number in range(images // 2):
                Image.new("RGB", (8, 8), (number % 256, number // 256, ord(label))).save(folder / name / label / f"{number:05}.png")
    return [
        (
            f"net{seed:03}",
            Recipe(
                model=Model(name="dualtoken_vit_s_mix", seed=seed),
                data=Data(evaluation=folder / "images", calibration=folder / "more"),
                export=Export(
                    targets=(Target.ONNX, Target.OPENVINO, Target.TRT, Target.COREML),
                    precisions=(Precision.FP32, Precision.FP16, Precision.INT8),
                ),
                int8=Int8(search=False),
                run=Run(shard=2),
            ),
        )
        for seed in range(count)
    ]


if __name__ == "__main__":
    sys.exit(main())

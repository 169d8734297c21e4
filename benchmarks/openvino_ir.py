"""Our OpenVINO artefacts against what one gets by hand: openvino.convert_model of the torch module itself.

    python benchmarks/openvino_ir.py [--model NAME | --checkpoint FILE] [--rounds 300] [--layers]

FP32 and BF16 of both, all four interleaved in one run: one thread, one stream, the latency hint, and the same hint for the precision, which
is set, since OpenVINO would compute all of them in BF16 on a CPU that can. Ours runs as `profile` runs it, its copies of feeds and answers
included; by hand, a request reads the feed where it lies. --layers adds where our time goes, by type of layer.

Exit code 1 when a ratio exceeds its limit, when an answer differs, or when a measurement is INVALID and so shows nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home
from dtvit_deploy.recipe.tables import Export, Recipe

# isort: split
import numpy as np
import openvino
import torch

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.harness.latency import MeasureOptions, measure, ratio
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import Reference, load_reference
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.openvino import GRAPH, settings
from dtvit_deploy.runtimes.registry import open_session

SLOWEST = 1.02
"""Limit of the ratios ours / by hand."""
PRECISIONS = {Precision.FP32: "f32", Precision.BF16: "bf16"}
FARTHEST = {Precision.FP32: 1e-4, Precision.BF16: 0.1}
"""Share of the greatest logit by which the two may differ: they are the same network."""


def by_hand(reference: Reference, feed: np.ndarray, hint: str) -> Callable[[], np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(reference.module, example_input=torch.from_numpy(feed), input=list(feed.shape))
    request = openvino.Core().compile_model(model, "CPU", settings(hint, threads=1)).create_infer_request()
    request.set_input_tensor(openvino.Tensor(feed, shared_memory=True))

    def run() -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data

    return run


def layers(artifact: Artifact, feed: np.ndarray, hint: str, rounds: int = 50) -> list[tuple[str, int, float]]:
    """Type of layer, how many, and milliseconds of one inference; counting costs some itself."""
    compiled = openvino.Core().compile_model(artifact.path / GRAPH, "CPU", settings(hint, threads=1) | {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    counts: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for turn in range(2 * rounds):
        request.infer([feed])
        for layer in request.profiling_info if turn >= rounds else ():
            if layer.status == openvino.ProfilingInfo.Status.EXECUTED:
                counts[layer.node_type] += 1
                spent[layer.node_type] += layer.real_time.total_seconds() * 1e3
    return [(kind, counts[kind] // rounds, time / rounds) for kind, time in spent.most_common()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=300, help="latency samples of each")
    parser.add_argument("--layers", action="store_true", help="show where our time goes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return compare(asked, Path(folder))


def compare(asked: argparse.Namespace, folder: Path) -> int:
    name = asked.model or (None if asked.checkpoint else "dualtoken-vit-s-mix")
    checkpoint = asked.checkpoint or _lively(load_reference(Model(name=name)).module, folder / "lively.pt")
    model = Model(name=name, checkpoint=checkpoint)
    reference = load_reference(model)
    recipe = Recipe(model=model, export=Export(targets=(Target.OPENVINO,), precisions=tuple(PRECISIONS)))
    artifacts = export(recipe, folder / "out", Cache(folder / "cache"), Silent()).artifacts

    name, example = next(iter(reference.inputs.items()))
    feed = np.random.default_rng(0).standard_normal(tuple(example.shape)).astype(np.float32)
    runs: dict[str, Callable[[], object]] = {}
    same = True
    for artifact in artifacts:
        precision = artifact.manifest.precision
        session = open_session(artifact, SessionOptions(threads=1))
        other = by_hand(reference, feed, PRECISIONS[precision])
        mine, theirs = next(iter(session.run({name: feed}).values())), other()
        apart = float(np.abs(mine - theirs).max() / np.abs(theirs).max())
        same = same and apart <= FARTHEST[precision]
        print(
            f"{precision}: {session.conditions['precision']} ({session.conditions['layers']}); answers are {apart:.1e} of the largest apart"
        )
        runs |= {f"ours {precision}": partial(session.run, {name: feed}), f"by hand {precision}": other}
    found = measure(runs, MeasureOptions(min_samples=asked.rounds))
    for key, one in found.items():
        print(f"latency: {key} p50 {one.p50:.2f} ms, IQR {one.iqr:.2f}, {len(one.samples_ms)} samples, {one.status} {one.reasons}")
    slower = {precision: ratio(found[f"ours {precision}"], found[f"by hand {precision}"]) for precision in PRECISIONS}
    for precision, times in slower.items():
        print(f"latency: ours / by hand in {precision} = {times}, limit {SLOWEST}; input {name} {tuple(example.shape)}")
    print(f"latency: ours in bf16 / in fp32 = {ratio(found['ours bf16'], found['ours fp32'])}")
    for artifact in artifacts if asked.layers else ():
        table = layers(artifact, feed, PRECISIONS[artifact.manifest.precision])
        print(f"{artifact.manifest.precision}: {sum(time for *_, time in table):.2f} ms in {sum(count for _, count, _ in table)} layers")
        for kind, count, time in table:
            print(f"  {time:6.2f} ms  {count:4d} {kind}")
    valid = all(one.status == "VALID" for one in found.values())
    return 0 if same and valid and all(times.median <= SLOWEST for times in slower.values()) else 1


def _lively(module: torch.nn.Module, path: Path) -> Path:
    """Fresh weights have zero biases, which simplifiers drop: an easier network than any trained one."""
    generator = torch.Generator().manual_seed(0)
    state = module.state_dict()
    torch.save(
        {key: torch.randn(value.shape, generator=generator) * 0.02 if key.endswith("bias") else value for key, value in state.items()}, path
    )
    return path


if __name__ == "__main__":
    sys.exit(main())

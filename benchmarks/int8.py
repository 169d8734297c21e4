"""Whether INT8 earns its place in OpenVINO: our artefacts against one got by hand and against NNCF's default recipe, in one run.

    python benchmarks/int8.py [--model NAME] [--rounds 150]

Five candidates, interleaved, one thread, one stream, the latency hint: our FP32, openvino.convert_model of the torch module itself, our
BF16, our INT8, and `nncf.quantize(model, dataset)` with nothing else said. Weights are random, with random biases, and the ranges are those
of a few random feeds: LATENCY ONLY. What INT8 costs in accuracy is measured on a trained network, by `dtvit-deploy evaluate`.

Then the time by type of layer, of our FP32 and our INT8; counting costs some itself, and the sum is no latency.

Exit code 1 when our FP32 takes more than 1.02 times what one gets by hand, when our INT8 is not faster than NNCF's, or when a measurement
is INVALID and so shows nothing. Whether INT8 is faster than BF16 is told, and does not decide the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home
from dtvit_deploy.recipe.tables import Export, Int8, Recipe

# isort: split
import numpy as np
import openvino
import torch

sys.path.insert(0, str(Path(__file__).parent))
from openvino_ir import SLOWEST, _lively, by_hand, layers

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.harness.latency import Measurement, MeasureOptions, measure, ratio
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.process.quiet import quiet
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.openvino import GRAPH, settings
from dtvit_deploy.runtimes.registry import open_session

AIM = 0.5
"""Of our INT8's time in units of our FP32's; told, and no limit."""
FEEDS = 4
"""Random ones, for ranges: the same operators run whatever the ranges are."""
PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8)


def artefacts(model: Model, folder: Path) -> dict[Precision, Artifact]:
    recipe = Recipe(
        model=model,
        export=Export(targets=(Target.OPENVINO,), precisions=PRECISIONS),
        int8=Int8(random_data=True, samples=FEEDS),
    )
    built = export(recipe, folder / "out", Cache(folder / "cache"), Silent()).artifacts
    return {artifact.manifest.precision: artifact for artifact in built}


def by_nncf(fp32: Artifact, feeds: list[np.ndarray]) -> Callable[[], object]:
    """What everybody gets who says no more than what NNCF must know."""
    with quiet():
        import nncf

        model = nncf.quantize(openvino.Core().read_model(fp32.path / GRAPH), nncf.Dataset(feeds), subset_size=len(feeds))
    request = openvino.Core().compile_model(model, "CPU", settings("f32", threads=1)).create_infer_request()
    request.set_input_tensor(openvino.Tensor(feeds[0], shared_memory=True))
    return request.infer


def compare(asked: argparse.Namespace, folder: Path) -> int:
    checkpoint = _lively(load_reference(Model(name=asked.model)).module, folder / "lively.pt")
    model = Model(name=asked.model, checkpoint=checkpoint)
    reference = load_reference(model)
    name, example = next(iter(reference.inputs.items()))
    generator = np.random.default_rng(0)
    feeds = [generator.standard_normal(tuple(example.shape)).astype(np.float32) for _ in range(FEEDS)]

    built = artefacts(model, folder)
    sessions = {f"ours {precision}": open_session(artifact, SessionOptions(threads=1)) for precision, artifact in built.items()}
    runs: dict[str, Callable[[], object]] = {key: partial(session.run, {name: feeds[0]}) for key, session in sessions.items()}
    runs |= {"by hand fp32": by_hand(reference, feeds[0], "f32"), "NNCF's default int8": by_nncf(built[Precision.FP32], feeds)}

    print(f"{asked.model}, {name} {tuple(example.shape)}, one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"random weights, ranges of {FEEDS} random feeds: latency only")
    found = measure(runs, MeasureOptions(min_samples=asked.rounds))
    print(f"{'':22}{'p50 ms':>8}{'IQR ms':>8}   / our FP32, 95 % interval")
    for key, one in found.items():
        verdict = "" if one.status == "VALID" else f"  {one.status}: {'; '.join(one.reasons)}"
        print(f"{key:22}{one.p50:8.2f}{one.iqr:8.2f}   {ratio(one, found['ours fp32'])}{verdict}")
    for key, session in sessions.items():
        print(f"{key}: {session.conditions['precision']} ({session.conditions['layers']})")
    by_type(built, feeds[0])
    return judge(found)


def by_type(built: dict[Precision, Artifact], feed: np.ndarray) -> None:
    """Milliseconds by type of layer, and how many of them, side by side."""
    tables = {kind: {row[0]: row[1:] for row in layers(built[kind], feed, "f32")} for kind in (Precision.FP32, Precision.INT8)}
    print(f"{'time by type of layer':24}" + "".join(f"{kind!s:>10}  layers" for kind in tables))
    kinds = sorted({kind for table in tables.values() for kind in table}, key=lambda kind: -tables[Precision.INT8].get(kind, (0, 0.0))[1])
    for kind in kinds:
        rows = [table.get(kind, (0, 0.0)) for table in tables.values()]
        if any(spent >= 0.005 for _, spent in rows):
            print(f"{kind:24}" + "".join(f"{spent:10.2f}  {count:6d}" for count, spent in rows))
    sums = [(sum(count for count, _ in table.values()), sum(spent for _, spent in table.values())) for table in tables.values()]
    print(f"{'all':24}" + "".join(f"{spent:10.2f}  {count:6d}" for count, spent in sums))


def judge(found: dict[str, Measurement]) -> int:
    direct = ratio(found["ours fp32"], found["by hand fp32"])
    rival = ratio(found["ours int8"], found["NNCF's default int8"])
    bf16 = ratio(found["ours int8"], found["ours bf16"])
    print(f"ours FP32 / by hand {direct}, limit {SLOWEST}; ours INT8 / NNCF's default {rival}, limit below 1")
    valid = all(one.status == "VALID" for one in found.values())
    faster = valid and bf16.high < 1
    conclusion = "faster (latency only: accuracy is for a trained network to show)" if faster else "INT8 does not earn its place; use BF16"
    print(f"ours INT8 / ours BF16 {bf16}: {conclusion}")
    print(f"ours INT8 / ours FP32 {ratio(found['ours int8'], found['ours fp32'])}, aim {AIM}")
    return 0 if valid and direct.median <= SLOWEST and rival.median < 1 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dualtoken-vit-s-mix")
    parser.add_argument("--rounds", type=int, default=150, help="latency samples of each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return compare(asked, Path(folder))


if __name__ == "__main__":
    sys.exit(main())

"""Our ONNX artefact and our exporter against what one gets by hand: torch.onnx.export and onnxsim of the same network.

    python benchmarks/onnx_export.py [--model NAME | --checkpoint FILE] [--rounds 200] [--exports 3]

Latency: both graphs in ONNX Runtime, interleaved in one run, one thread; the ratio of medians with its 95 % interval.
Export: wall time of both, alternating, each from the checkpoint to a file; ours includes what the other does not do (the reference
program for later comparisons, digests, the comparison on feeds).

Exit code 1 when a ratio exceeds its limit, or when a measurement is INVALID and so shows nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home
from dtvit_deploy.recipe.tables import Recipe

# isort: split
import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.harness.latency import MeasureOptions, measure, ratio
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export

SLOWEST_EXPORT = 1.1
SLOWEST_ARTEFACT = 1.02
"""Limits of the ratios ours / by hand."""


def by_hand(model: Model, path: Path) -> None:
    reference = load_reference(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(reference.module, tuple(reference.inputs.values()), dynamo=True, verbose=False)
    assert exported is not None
    simplified, _ = onnxsim.simplify(exported.model_proto)
    onnx.save(simplified, path)


def ours(model: Model, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as cache:
        artifacts = export(Recipe(model=model), folder, Cache(Path(cache)), Silent()).artifacts
    return artifacts[0].path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=200, help="latency samples of each")
    parser.add_argument("--exports", type=int, default=3, help="exports of each")
    asked = parser.parse_args()
    name = asked.model or (None if asked.checkpoint else "dualtoken-vit-s-mix")
    model = Model(name=name, checkpoint=asked.checkpoint)
    torch.set_num_threads(1)
    reference = load_reference(model)
    if asked.checkpoint is None:
        # Fresh weights have zero biases, which simplifiers drop: an easier network than any trained one.
        generator = torch.Generator().manual_seed(0)
        state = {name: _lively(name, value, generator) for name, value in reference.module.state_dict().items()}
        reference.module.load_state_dict(state)
        asked.checkpoint = Path(tempfile.mkdtemp()) / "lively.pt"
        torch.save(state, asked.checkpoint)
        model = Model(name=name, checkpoint=asked.checkpoint)

    with tempfile.TemporaryDirectory() as folder:
        hand, mine = Path(folder) / "hand.onnx", Path(folder)
        by_hand(model, hand)  # once unmeasured: both then find torch's registries built
        walls: dict[str, list[float]] = {"by hand": [], "ours": []}
        for _ in range(asked.exports):
            started = time.perf_counter()
            by_hand(model, hand)
            middle = time.perf_counter()
            artifact = ours(model, mine)
            walls["by hand"].append(middle - started)
            walls["ours"].append(time.perf_counter() - middle)
        spent = {name: statistics.median(times) for name, times in walls.items()}
        shown = {name: " ".join(f"{seconds:.1f}" for seconds in times) for name, times in walls.items()}
        print(f"export: by hand {spent['by hand']:.1f} s ({shown['by hand']}), ours {spent['ours']:.1f} s ({shown['ours']})")
        slower = spent["ours"] / spent["by hand"]
        print(f"export: ours / by hand = {slower:.2f}, limit {SLOWEST_EXPORT}")

        name, example = next(iter(reference.inputs.items()))
        feed = np.random.default_rng(0).standard_normal(tuple(example.shape)).astype(np.float32)
        sessions = {"by hand": _session(hand), "ours": _session(artifact)}
        runs = {key: partial(session.run, None, {session.get_inputs()[0].name: feed}) for key, session in sessions.items()}
        found = measure(runs, MeasureOptions(min_samples=asked.rounds))
        for key, one in found.items():
            print(f"latency: {key} p50 {one.p50:.2f} ms, IQR {one.iqr:.2f}, {len(one.samples_ms)} samples, {one.status} {one.reasons}")
        latency = ratio(found["ours"], found["by hand"])
        print(f"latency: ours / by hand = {latency}, limit {SLOWEST_ARTEFACT}; input {name} {tuple(example.shape)}")
    valid = all(one.status == "VALID" for one in found.values())
    return 0 if valid and slower <= SLOWEST_EXPORT and latency.median <= SLOWEST_ARTEFACT else 1


def _lively(name: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(value.shape, generator=generator) * 0.02 if name.endswith("bias") else value


def _session(path: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main())

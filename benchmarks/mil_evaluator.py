"""The evaluator of Core ML packages against torch eager on the same network, one thread, interleaved in one run.

    python benchmarks/mil_evaluator.py [--model NAME] [--rounds 60]

The package is FP32, as `export` writes it. Exit code 1 when the evaluator takes more than four times as long as torch: it is to check
hundreds of images in minutes, not to be fast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.mlpackage.options import CoreMlOptions
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.pipeline.coreml import CoreMl
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import program_stage
from dtvit_deploy.runtimes.mil.evaluate import Evaluator
from dtvit_deploy.runtimes.mil.load import load_program

SLOWEST = 4.0
"""Limit of the ratio of medians."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dualtoken-vit-s-mix")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    reference = load_reference(Model(name=arguments.model))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        program = program_stage(Model(name=arguments.model), cache)
        guard = open_material(None, program.artifact.manifest).guard()
        package = CoreMl(program, guard, (), CoreMlOptions(), cache).build(Precision.FP32, None).path
        started = time.perf_counter()
        loaded = load_program(package)
        evaluator = Evaluator(loaded, loaded.outputs)
        bound = time.perf_counter() - started
    (variable,) = loaded.inputs
    image = torch.randn([size or 1 for size in variable.type.shape])
    ours: list[float] = []
    eager: list[float] = []
    greatest = 0.0
    with torch.inference_mode():
        for number in range(arguments.rounds + 5):
            start = time.perf_counter()
            (answer,) = evaluator.run({variable.name: image}).values()
            middle = time.perf_counter()
            expected = reference.module(image)
            end = time.perf_counter()
            expected = next(iter(expected.values())) if isinstance(expected, dict) else expected
            greatest = max(greatest, float((answer - expected).abs().max()))
            if number >= 5:  # warm by then
                ours.append(middle - start)
                eager.append(end - middle)
    ratio = statistics.median(ours) / statistics.median(eager)
    spread = np.percentile(np.array(ours) / np.array(eager), [25, 75])
    print(f"{arguments.model}, FP32, one thread, {arguments.rounds} rounds interleaved; max |Δ| {greatest:.1e}")
    print(f"loaded and bound in {bound:.2f} s")
    print(f"evaluator {statistics.median(ours) * 1e3:.1f} ms, torch eager {statistics.median(eager) * 1e3:.1f} ms (medians)")
    print(f"ratio {ratio:.2f}, quartiles {spread[0]:.2f} to {spread[1]:.2f}; at most {SLOWEST:.0f}")
    return 0 if ratio <= SLOWEST else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every kind of network of the registry, in every precision of ONNX, loads on an emulated ARM64 core and answers as it does on x86-64.

At 64×64 pixels, where the operators are those of 224×224 and emulation takes a tenth of the time; DTVIT_DEPLOY_ARM64_SIDE=224 asks for
that of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from arm64.emulated import Job, Machine
from arm64.environment import ONNX_RUNTIMES, Environment
from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.feeds import random_feeds
from dtvit_deploy.harness.distance import sqnr
from dtvit_deploy.harness.parity import FACTOR
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.registry import VARIANTS
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.recipe.tables import Export, Int8, Recipe
from dtvit_deploy.runtimes.arm64.session import EmulatedArm64
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.onnxruntime import OnnxRuntime

pytestmark = [pytest.mark.arm64, pytest.mark.slow]
SIDE = int(os.environ.get("DTVIT_DEPLOY_ARM64_SIDE", "64"))
SIDES = {"dualtoken-vit-s-mix-window": 224, "lightvit-t": 224}
"""Their windows are of seven by seven, at every stage."""
LIKE_ANOTHER = {f"t2t-vit-{one}" for one in ("10", "12", "14", "19", "24", "14-384", "t-19", "t-24", "14-resnext", "14-wide")}
LIKE_ANOTHER |= {"lightvit-s", "lightvit-b"}
"""With the operators of `t2t-vit-7`, `t2t-vit-t-14` or `lightvit-t` in other widths and numbers, up to 64 million weights to emulate."""
LEAST_SQNR = 30.0
"""dB of INT8's answers over what another CPU moves them by: codes beside a tie tip, and no more."""
HALF = "cortex-a76"
"""A core with FP16 arithmetic."""
Array = NDArray[Any]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in VARIANTS if name not in LIKE_ANOTHER]
)
def artifacts(
    request: pytest.FixtureRequest, environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[Precision, Artifact]:
    """A network's artefacts, with INT8 from random numbers: what its ranges are worth is not asked here."""
    folder: Path = tmp_path_factory.mktemp("registry")
    cache = Cache(folder / "cache")
    side = SIDES.get(request.param, SIDE)
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    recipe = Recipe(
        model=Model(name=request.param, input_size=(side, side)),
        export=Export(precisions=precisions),
        int8=Int8(random_data=True, samples=2),
    )
    made = export(recipe, folder / "out", cache, Silent()).artifacts
    return dict(zip(precisions, made, strict=True))


@pytest.mark.parametrize("onnx_runtime", ONNX_RUNTIMES)
def test_loads_and_answers_as_x86_does(
    artifacts: dict[Precision, Artifact],
    machine: Callable[[str, str], Machine],
    onnx_runtime: str,
    record_property: Callable[[str, object], None],
) -> None:
    signature = artifacts[Precision.FP32].manifest.signature
    feeds = dict(random_feeds(signature, 1, 0)[0])
    answers = machine(HALF, onnx_runtime).answers([Job(onnx.load(artifact.path), feeds) for artifact in artifacts.values()])
    name = signature.outputs[0].name
    refused = {str(precision): one.error for precision, one in zip(artifacts, answers, strict=True) if one.error}
    assert not refused
    there = {precision: one.outputs[name].astype(np.float64) for precision, one in zip(artifacts, answers, strict=True)}

    def here(precision: Precision, runtime: OnnxRuntime | EmulatedArm64) -> Array:
        with runtime.load(artifacts[precision], SessionOptions(threads=1)) as session:
            answer: Array = session.run(feeds)[name].astype(np.float64)
        return answer

    exact = here(Precision.FP32, OnnxRuntime())
    moved = float(np.abs(there[Precision.FP32] - exact).max())
    halved = float(np.abs(there[Precision.FP16] - exact).max())
    # What FP16 sums err by, as forecast here from the graph alone; x86-64 errs by less.
    forecast = float(np.abs(here(Precision.FP16, EmulatedArm64()) - exact).max())
    ratio = sqnr(here(Precision.INT8, OnnxRuntime()), there[Precision.INT8])
    pixels = "×".join(map(str, signature.inputs[0].shape[2:]))
    network = f"{artifacts[Precision.FP32].manifest.model} at {pixels} on {HALF}, ONNX Runtime {onnx_runtime}"
    took = "+".join(f"{one.seconds:.0f}" for one in answers)
    record_property(
        "figures",
        f"{network}: max |Δ| FP32 {moved:.2g}, FP16 {halved:.2g} (forecast {forecast:.2g}), INT8 {ratio:.0f} dB from x86-64's;"
        f" greatest score {np.abs(exact).max():.3g}; {took} s emulated",
    )
    assert moved <= 1e-5 * np.abs(exact).max()
    assert halved <= FACTOR[Precision.FP16] * forecast
    assert ratio >= LEAST_SQNR

"""A second opinion on the evaluator: Apple's own Core AI runtime, which evaluates its graph of the same exported program on Linux.

It reads no ``.mlpackage``, so it says nothing of one: it says that the evaluator's answer is also that of somebody else's translation and
of somebody else's kernels. Core AI is a beta; everything that this file uses of it is in its type stubs or its README.
https://github.com/apple/coreai-torch
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from dtvit_deploy.artifacts.cache import Cache  # noqa: E402
from dtvit_deploy.artifacts.target import Precision  # noqa: E402
from dtvit_deploy.calibration.feeds import adversarial_feeds, random_feeds  # noqa: E402
from dtvit_deploy.models.options import Model  # noqa: E402
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage  # noqa: E402
from dtvit_deploy.process.quiet import quiet  # noqa: E402
from dtvit_deploy.runtimes.base import SessionOptions  # noqa: E402
from dtvit_deploy.runtimes.mil.runtime import MilRuntime  # noqa: E402
from dtvit_deploy.runtimes.torch.session import read_program  # noqa: E402
from packages import converted  # noqa: E402

Feed = dict[str, NDArray[Any]]
LARGEST = 1e-5
"""|Δ| of logits up to 3, in FP32 by two sets of kernels; 3.6e-6 was measured, and 3.1e-6 between Core AI and torch."""


@pytest.fixture(scope="module", autouse=True)
def _coreai() -> None:
    with quiet():  # it warns of every torch that has a local version, that of the newest it was tested with included
        pytest.importorskip("coreai_torch", reason="needs the extra `coreai` (Python 3.11 or later)", exc_type=ImportError)
        pytest.importorskip("coreai.runtime", reason="Core AI has no runtime for this platform", exc_type=ImportError)


@pytest.fixture(scope="module")
def program(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    return program_stage(Model(checkpoint=checkpoint), Cache(tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="module")
def feeds(program: ProgramEntry) -> list[Feed]:
    signature = program.artifact.manifest.signature
    return [dict(one) for one in (*random_feeds(signature, 3), *adversarial_feeds(signature).values())]


@pytest.fixture(scope="module")
def in_coreai(program: ProgramEntry, feeds: list[Feed], tmp_path_factory: pytest.TempPathFactory) -> list[Feed]:
    """What Core AI answers to the feeds."""
    signature = program.artifact.manifest.signature
    with quiet():
        from coreai.runtime import NDArray as CoreAiArray
        from coreai_torch import TorchConverter, get_decomp_table

        decomposed = read_program(program.artifact).run_decompositions(get_decomp_table())
        names: dict[str, Any] = {
            "input_names": [spec.name for spec in signature.inputs],
            "output_names": [spec.name for spec in signature.outputs],
        }
        converted = TorchConverter().add_exported_program(decomposed, **names).to_coreai()
        asset = converted.save_asset(tmp_path_factory.mktemp("coreai") / "net.aimodel")

    async def answers() -> list[Feed]:
        async with asset.executable() as model:
            function = model.load_function("main")
            asked = [await function({name: CoreAiArray(values) for name, values in feed.items()}) for feed in feeds]
            return [{name: np.array(values.numpy()) for name, values in answer.items()} for answer in asked]

    return asyncio.run(answers())


@pytest.fixture(scope="module")
def in_mil(program: ProgramEntry, feeds: list[Feed], tmp_path_factory: pytest.TempPathFactory) -> list[Feed]:
    """What the evaluator answers to them, from a saved FP32 package."""
    path = tmp_path_factory.mktemp("package") / "net.fp32.mlpackage"
    with MilRuntime().load(converted(program, Precision.FP32, path), SessionOptions()) as session:
        return [dict(session.run(feed)) for feed in feeds]


@pytest.mark.slow
class TestDigits:
    def test_core_ai_and_the_evaluator_give_the_same_answers(self, in_coreai: list[Feed], in_mil: list[Feed]) -> None:
        for ours, theirs in zip(in_mil, in_coreai, strict=True):
            assert ours.keys() == theirs.keys() == {"logits"}
            assert theirs["logits"].dtype == ours["logits"].dtype == np.float32
            np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=0, atol=LARGEST)
            assert ours["logits"].argmax() == theirs["logits"].argmax()

    def test_that_says_something_because_feeds_have_answers_far_apart(self, in_coreai: list[Feed]) -> None:
        one, other, *_ = (answer["logits"] for answer in in_coreai)
        assert np.abs(one - other).max() > 100 * LARGEST

"""The golden samples of a job: the reference's answers, and limits that an engine can miss."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.tensorrt.on_device import Golden
from dtvit_deploy.harness.parity import LEAST_SQNR_ELSEWHERE, MOST_CHANGED
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.golden import SAMPLES, golden_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, program_stage

NETWORKS = """
import torch
from torch import nn

class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        scores = self.linear(x)
        return scores, scores.argmax(1)

class Lost(nn.Module):
    def forward(self, x):
        return (x * 1e-3 + 2048.0) - 2048.0  # which FP16 has steps of 2 at
"""


class Case:
    """A network of the user's own, its simplified graph and what it is fed."""

    def __init__(self, name: str, outputs: tuple[str, ...], cache: Cache) -> None:
        asked = Model(name=f"golden_networks:{name}", inputs=(TensorSpec("x", (1, 16)),), outputs=outputs)
        self.cache = cache
        self.program: ProgramEntry = program_stage(asked, cache)
        self.material: Material = open_material(None, self.program.artifact.manifest)
        self._graph = onnx_stage(self.program, self.material.guard(), cache)

    def graph(self, precision: Precision) -> Artifact:
        """As if it had that precision: no more of it is asked than that."""
        return msgspec.structs.replace(self._graph, manifest=msgspec.structs.replace(self._graph.manifest, precision=precision))

    def golden(self, precision: Precision) -> Golden:
        return golden_stage(self.program, self.graph(precision), self.material, self.cache)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "golden_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "golden_networks", raising=False)
    return tmp_path


def test_every_output_has_a_limit_in_every_precision(network: Path) -> None:
    case = Case("Scores", ("scores", "best"), Cache(network / "cache"))
    for precision in (Precision.FP32, Precision.FP16, Precision.INT8):
        found = case.golden(precision)
        assert len(found.feeds) == len(found.expected) == SAMPLES
        limits = {spec.name: found.limits(spec) for spec in case.program.artifact.manifest.signature.outputs}
        if precision is Precision.INT8:
            assert limits["scores"]["least_sqnr"] == LEAST_SQNR_ELSEWHERE  # on noise, which no range was calibrated on
            assert limits["best"]["tolerance"] == MOST_CHANGED
        else:
            assert 0 < limits["scores"]["tolerance"] < 0.1
        assert not any(limit["top1"] for limit in limits.values())  # the best of noise means nothing


def test_an_fp16_engine_is_allowed_more_than_an_fp32_one(network: Path) -> None:
    case = Case("Scores", ("scores", "best"), Cache(network / "cache"))
    fp32, fp16 = (case.golden(precision).tolerance or {} for precision in (Precision.FP32, Precision.FP16))
    assert fp16["scores"] > 10 * fp32["scores"]


def test_the_answers_are_computed_once(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("Scores", ("scores", "best"), Cache(network / "cache"))
    first = case.golden(Precision.FP32)
    monkeypatch.setattr("dtvit_deploy.pipeline.golden.Reference", None)
    again = case.golden(Precision.FP16)
    for one, other in zip(first.expected, again.expected, strict=True):
        np.testing.assert_array_equal(one["scores"], other["scores"])


def test_what_fp16_cannot_carry_is_refused_and_given_no_limit_that_cannot_be_missed(network: Path) -> None:
    case = Case("Lost", ("y",), Cache(network / "cache"))
    assert case.golden(Precision.FP32).tolerance
    with pytest.raises(InputError, match=r"no device could be held to golden_networks\.Lost\.fp16: ") as caught:
        case.golden(Precision.FP16)
    assert "--keep-fp32" in (caught.value.remedy or "")

"""The noise floor's arithmetics: every tensor of the program is one that the precision has, and nothing else is rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dtvit_deploy.artifacts.artifact import Link
from dtvit_deploy.export.program import Program, program_from_reference
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.torch.interpreter import Arithmetic
from dtvit_deploy.runtimes.torch.session import TorchSession

FEED = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8)).eval()
    link = Link(kind="seeded", sha256="0" * 64)
    example = {"x": torch.zeros(4, 16)}
    return program_from_reference(Reference(model="any:network", module=network, inputs=example, output_names=(), weights=link))


def run(program: Program, arithmetic: Arithmetic) -> dict[str, Any]:
    taps = tuple(node.name for node in program.nodes.nodes)
    with TorchSession(program.exported, program.signature, SessionOptions(taps=taps), arithmetic) as session:
        return session.run(FEED)


@pytest.mark.parametrize(("arithmetic", "kind"), [(Arithmetic.FP16, torch.float16), (Arithmetic.BF16, torch.bfloat16)])
def test_every_tensor_is_one_of_the_precisions(program: Program, arithmetic: Arithmetic, kind: torch.dtype) -> None:
    for name, values in run(program, arithmetic).items():
        tensor = torch.from_numpy(values)
        assert torch.equal(tensor, tensor.to(kind).float()), name


def test_each_precision_is_off_by_as_much_as_its_last_place(program: Program) -> None:
    exact = run(program, Arithmetic.FP64)["output"]

    def error(arithmetic: Arithmetic) -> float:
        return float(np.abs(run(program, arithmetic)["output"] - exact).max() / np.abs(exact).max())

    fp32, fp16, bf16 = error(Arithmetic.FP32), error(Arithmetic.FP16), error(Arithmetic.BF16)
    assert fp32 < 2**-22
    assert 2**-14 < fp16 < 2**-9
    assert 2**-11 < bf16 < 2**-6


def test_the_program_itself_keeps_its_weights(program: Program) -> None:
    before = {name: tensor.clone() for name, tensor in program.exported.state_dict.items()}
    run(program, Arithmetic.BF16)
    assert all(torch.equal(program.exported.state_dict[name], tensor) for name, tensor in before.items())


def test_what_an_fp16_artefact_keeps_is_not_rounded_nor_are_its_constants(program: Program) -> None:
    """The noise floor of a mixed graph: with the first product in FP32, its weights included, that has no error at all."""
    nodes = [node.name for node in program.nodes.nodes]
    kept = [node.name for node in program.nodes.nodes if node.module == "0"]
    first = kept[-1]

    def answers(arithmetic: Arithmetic, unrounded: list[str]) -> dict[str, Any]:
        with TorchSession(program.exported, program.signature, SessionOptions(taps=tuple(nodes)), arithmetic, unrounded) as session:
            return session.run({"x": FEED["x"].astype(np.float16).astype(np.float32)})

    exact, rounded, mixed = answers(Arithmetic.FP32, []), answers(Arithmetic.FP16, []), answers(Arithmetic.FP16, kept)
    np.testing.assert_array_equal(mixed[first], exact[first])
    assert not np.array_equal(rounded[first], exact[first])
    assert not np.array_equal(mixed["output"], exact["output"])  # what follows is rounded as before

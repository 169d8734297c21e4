"""Core ML packages are the network that was exported, or none is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Artifact, Link
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import runtime_for
from dtvit_deploy.runtimes.torch.session import TorchRuntime
from packages import package

pytest.importorskip("coremltools", reason="coremltools writes the packages")
pytestmark = pytest.mark.slow
FP32, FP16 = Precision.FP32, Precision.FP16


def entry(folder: Path, module: nn.Module, inputs: dict[str, Tensor]) -> ProgramEntry:
    torch.set_num_threads(1)
    folder.mkdir()
    seeded = Link(kind="seeded", sha256="0" * 64)
    write_program(Reference(model="mine:net", module=module.eval(), inputs=inputs, weights=seeded, output_names=()), folder)
    return read_program_entry(folder)


def answers(artifact: Artifact, feed: dict[str, Any]) -> dict[str, Any]:
    with runtime_for(artifact).load(artifact, SessionOptions()) as session:
        return session.run(feed)


class Particular(nn.Module):
    """All that coremltools would take for something else, in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.act, self.norm = nn.GELU(approximate="tanh"), nn.RMSNorm(8, eps=0.5)

    def forward(self, image: Tensor) -> Any:
        features = self.act(self.stem(image) * 3)
        tokens = self.norm(features.flatten(2).transpose(1, 2) * 0.1)
        mixed = torch.add(tokens, self.head(tokens), alpha=0.5)
        mixed = torch.rsub(mixed, mixed.flip(2), alpha=2)
        return {
            "mixed": F.softplus(torch.sub(mixed, mixed * mixed, alpha=0.25), 2.0, 1.0),
            "place": features.argmax().to(torch.int32)[None],
            "trace": (mixed[:, :8] @ mixed[:, 8:16].transpose(1, 2)).diagonal(0, 1, 2),
            "zero": self.norm(tokens * 0),
        }


IMAGE = {"image": torch.sin(torch.arange(3 * 6 * 6.0)).reshape(1, 3, 6, 6)}


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_arguments_that_coremltools_ignores_are_in_the_package(tmp_path: Path, precision: Precision) -> None:
    torch.manual_seed(0)
    net = Particular()
    program = entry(tmp_path / "net", net, IMAGE)
    made = package(program, tmp_path / "cache", precision)
    found, expected = answers(made, {"image": IMAGE["image"].numpy()}), net(IMAGE["image"])
    shared = set(runtime_for(made).tensors(made)) & set(TorchRuntime().tensors(program.artifact))
    assert {"gelu", "add"} <= shared  # a module can be blamed, and INT8 finds its ranges
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor.detach().numpy(), atol=2e-6 if precision is FP32 else 2e-2)


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.neck = nn.Conv2d(3, 4, 1), nn.ModuleDict({"resize": Shrink()})

    def forward(self, image: Tensor) -> Tensor:
        shrunk: Tensor = self.neck["resize"](self.stem(image))
        return shrunk


class Shrink(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image, size=(3, 3), mode="bilinear", antialias=True)


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_what_cannot_be_written_otherwise_is_refused_with_its_module_and_leaves_nothing(tmp_path: Path, precision: Precision) -> None:
    program = entry(tmp_path / "net", Resized(), IMAGE)
    with pytest.raises(InputError) as caught:
        package(program, tmp_path / "cache", precision)
    assert "antialias of _upsample_bilinear2d_aa" in str(caught.value)
    assert "in neck.resize: coremltools interpolates without antialiasing" in str(caught.value)
    assert "antialias=False" in str(caught.value.remedy)
    assert not list((tmp_path / "cache").rglob("*.mlpackage"))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 4, 1), nn.SiLU()

    def forward(self, image: Tensor) -> Tensor:
        gated: Tensor = self.gate(self.stem(image)).mean((2, 3))
        return gated


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_a_translation_that_no_table_knows_to_be_wrong_is_found_by_its_answers(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a release would translate it that takes SiLU for a sigmoid."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    registered = _TORCH_OPS_REGISTRY.name_to_func_mapping
    program = entry(tmp_path / "net", Gated(), IMAGE)
    monkeypatch.setitem(registered, "silu", registered["sigmoid"])
    with pytest.raises(InputError, match=r"what coremltools makes of mine:net is another network: output 'output' moved") as caught:
        package(program, tmp_path / "cache", precision)
    assert "it begins in gate, at silu (aten.silu.default)" in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.mlpackage"))


class Delicate(nn.Module):
    """Sums that all but cancel: FP32 in another order gives another answer, and torch's own is as wrong."""

    def forward(self, image: Tensor) -> Any:
        large = image.flatten(1) * 1e7
        return {"noise": (large.sum(1) - large.flip(1).sum(1)) * 1e3, "nothing": image - image, "plain": image * 2}


def test_what_fp32_itself_cannot_hold_is_no_evidence_against_a_translation(tmp_path: Path) -> None:
    made = package(entry(tmp_path / "net", Delicate(), {"image": torch.rand(1, 3, 32, 32)}), tmp_path / "cache", FP32)
    assert made.path.is_dir()

"""One weight of one module is changed in the exported file; the layer report must name that module and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, write_json
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.harness.layers import LayerReport
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline import measure
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.runtimes.pairing import pairings

MODULES = ("stem.1", "blocks.0.norm", "blocks.0.qkv", "blocks.0.out", "blocks.1.norm", "blocks.1.qkv", "blocks.1.out", "gain", "head")
"""Every module that has weights, in the order of execution; the batch norm for itself and the convolution that it was folded into."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        mixed = (q @ k.transpose(-2, -1) / 4).softmax(-1) @ v
        return torch.add(x, self.out(mixed))


class Gain(nn.Module):
    """A weight of its own, which is no module of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16))
        self.blocks = nn.Sequential(Block(), Block())
        self.gain = Gain()
        self.head = nn.Linear(16, 10)
        with torch.no_grad():  # as after training: equal weights of two modules would be one constant
            for name, tensor in self.state_dict().items():
                if "norm" in name or "stem.1" in name:
                    tensor.copy_(torch.rand(tensor.shape) + 0.5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.blocks(self.stem(image).flatten(2).transpose(1, 2))
        answer: Tensor = self.head(self.gain(tokens).mean(1))
        return answer


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> ProgramEntry:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("program")
    made = Link(kind="seeded", sha256="0" * 64)
    inputs = {"image": torch.randn(1, 3, 16, 16)}
    write_program(Reference(model="mine:net", module=Net().eval(), inputs=inputs, output_names=("logits",), weights=made), folder)
    return read_program_entry(folder)


@pytest.fixture(scope="module")
def artifacts(entry: ProgramEntry, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Artifact]:
    cache, guard = Cache(tmp_path_factory.mktemp("cache")), open_material(None, entry.artifact.manifest).guard()
    simplified = onnx_stage(entry, guard, cache)
    return {Precision.FP32: simplified, Precision.FP16: float16_stage(simplified, guard, (), cache)}


def reported(entry: ProgramEntry, artifact: Artifact) -> LayerReport:
    material = open_material(None, entry.artifact.manifest)
    (found,) = measure.layers(measure.Bench(entry, pairings((artifact,)), material, 1, Silent()))
    assert found is not None
    return found


Spoil = Callable[[Artifact, str, float], Artifact]


@pytest.fixture
def spoilt(tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]) -> Spoil:
    """Make a copy in which the largest weight of a module is another, with a manifest that vouches for it."""

    def copy(artifact: Artifact, module: str, relative: float) -> Artifact:
        return vouch(changed(artifact, module, tmp_path, relative), artifact.manifest)

    return copy


def changed(artifact: Artifact, module: str, folder: Path, relative: float) -> Path:
    model = onnx.load(artifact.path)
    mine = {name for node in model.graph.node if module_of(node) == module for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in mine and tensor.data_type != onnx.TensorProto.INT64]
    assert weights, f"{module} has no weight in {artifact.name}"
    values = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in weights}
    name = max(values, key=lambda one: values[one].size)
    values[name].flat[np.argmax(np.abs(values[name]))] *= 1 + relative
    tensor = next(one for one in weights if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values[name], name))
    path = folder / artifact.name
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_faithful_artefact_blames_nobody(entry: ProgramEntry, artifacts: dict[Precision, Artifact], precision: Precision) -> None:
    found = reported(entry, artifacts[precision])
    assert found.first is None
    assert found.verdict.startswith("no error above the noise floor reaches an output; 0 of ")
    assert len(found.layers) >= 0.6 * found.program_tensors
    assert found.samples == measure.LAYER_SAMPLES


@pytest.mark.parametrize(("precision", "relative"), [(Precision.FP32, 0.01), (Precision.FP16, 4)], ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_the_module_whose_weight_was_changed_is_named(
    entry: ProgramEntry, artifacts: dict[Precision, Artifact], spoilt: Spoil, module: str, precision: Precision, relative: float
) -> None:
    found = reported(entry, spoilt(artifacts[precision], module, relative))
    assert found.first == module, found.verdict
    assert f"the error arises in {module}" in found.verdict
    before = [layer for layer in found.layers if layer.module in MODULES[: MODULES.index(module)]]
    assert not any(layer.suspect for layer in before)


def test_a_module_that_another_was_folded_into_is_named_with_it(
    entry: ProgramEntry, artifacts: dict[Precision, Artifact], spoilt: Spoil
) -> None:
    found = reported(entry, spoilt(artifacts[Precision.FP32], "stem.1", 0.01))
    assert "the error arises in stem.1 or in stem.0, which was merged with it: getitem" in found.verdict


def test_the_changed_file_alone_is_not_even_opened(artifacts: dict[Precision, Artifact], spoilt: Spoil) -> None:
    copy = spoilt(artifacts[Precision.FP32], "head", 0.01)
    write_json(manifest_path(copy.path), artifacts[Precision.FP32].manifest)
    with pytest.raises(Exception, match="was changed after export"):
        load_artifact(copy.path)

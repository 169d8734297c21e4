"""A small network in which each module's error is to be found, and files in which one weight of one module is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dtvit_deploy.artifacts.artifact import Artifact, Link
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.models.reference import Reference
from dtvit_deploy.pipeline.program import ProgramEntry, read_program_entry, write_program

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


def program(folder: Path) -> ProgramEntry:
    """The network's program, written to a folder."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = Link(kind="seeded", sha256="0" * 64)
    inputs = {"image": torch.randn(1, 3, 16, 16)}
    write_program(Reference(model="mine:net", module=Net().eval(), inputs=inputs, output_names=("logits",), weights=made), folder)
    return read_program_entry(folder)


def changed(artifact: Artifact, module: str, folder: Path, relative: float) -> Path:
    """A copy of an ONNX file in which the largest weight of a module is another, by this share of it."""
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

"""Saved packages that are wrong, with manifests that vouch for them: `verify` fails, and names the module."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="it made the network")
pytest.importorskip("coremltools", reason="coremltools writes the packages")

from commandline import deploy
from dtvit_deploy.artifacts.artifact import Artifact, Manifest, load_artifact
from dtvit_deploy.runtimes.mil.proto import model_proto

pytestmark = pytest.mark.slow
NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

class Mixer(nn.Module):
    '''Tokens mixed with each other: as many as there are channels, so that a transpose that is missing fits.'''

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, x):
        return F.softplus(F.gelu(x).permute(0, 2, 1)) * self.weight

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.mixer = nn.LayerNorm(16), nn.Linear(16, 16), Mixer()

    def forward(self, x):
        return x + self.mixer(F.gelu(self.linear(self.norm(x))))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(16, 10)

    def forward(self, image):
        return self.head(self.blocks(self.stem(image).flatten(2)).mean(1))

def net():
    return Net(), {"image": torch.zeros(1, 3, 16, 16)}
"""
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


class Package:
    """A package that can be changed."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, model_proto().Model()
        self.model.ParseFromString((path / MODEL).read_bytes())
        (function,) = self.model.mlProgram.functions.values()
        self.operations = function.block_specializations[function.opset].operations

    def of(self, kind: str) -> list[Any]:
        return [operation for operation in self.operations if operation.type == kind]

    def constant(self, name: str) -> Any:
        return next(operation for operation in self.operations if operation.outputs[0].name == name).attributes["val"]

    def write(self) -> None:
        (self.path / MODEL).write_bytes(self.model.SerializeToString())


def two_weights_change_places(package: Package) -> None:
    names = [operation.inputs["weight"].arguments[0].name for operation in package.of("linear")]
    data = bytearray((package.path / WEIGHTS).read_bytes())
    spans = [struct.unpack_from("<QQ", data, package.constant(name).blobFileValue.offset + 8) for name in names[1:3]]
    (size, start), (other, end) = spans
    assert size == other
    data[start : start + size], data[end : end + size] = data[end : end + size], data[start : start + size]
    (package.path / WEIGHTS).write_bytes(data)


def an_epsilon_is_another(package: Package) -> None:
    epsilon = package.of("layer_norm")[1].inputs["epsilon"].arguments[0]
    value = type(epsilon.value)()  # written in place, since norms share the constant
    value.CopyFrom(package.constant(epsilon.name))
    value.immediateValue.tensor.floats.values[0] = 1.0
    epsilon.value.CopyFrom(value)
    package.write()


def a_transpose_is_missing(package: Package) -> None:
    turned = package.of("transpose")[1]
    before, after = turned.inputs["x"].arguments[0].name, turned.outputs[0].name
    for operation in package.operations:
        for given in operation.inputs.values():
            for one in given.arguments:
                if one.name == after:
                    one.name = before
    package.operations.remove(turned)
    package.write()


DAMAGES: dict[str, tuple[Callable[[Package], None], str]] = {
    "weights": (two_weights_change_places, "blocks.1.linear"),
    "epsilon": (an_epsilon_is_another, "blocks.1.norm"),
    "transpose": (a_transpose_is_missing, "blocks.1.mixer"),
}


def test_each_fails_and_its_module_is_named(tmp_path: Path, vouch: Callable[[Path, Manifest], Artifact]) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    deploy("export", "-m", "mine:net", "-t", "coreml", "-p", "fp32", "-o", "out", cwd=tmp_path)
    (right,) = (tmp_path / "out").glob("*.mlpackage")
    manifest = load_artifact(right).manifest
    assert manifest.precision.value == "fp32"
    for name, (damage, _) in DAMAGES.items():
        copy = Path(shutil.copytree(right, tmp_path / f"{name}.mlpackage"))
        damage(Package(copy))
        vouch(copy, manifest)
    names = (right, *(f"{name}.mlpackage" for name in DAMAGES))
    said = deploy("verify", *names, "--layers", "--json", cwd=tmp_path, code=1)
    _, whole, *wrong = json.loads(said.stdout)["subjects"]
    assert all(difference["passed"] for difference in whole["parity"])
    assert len(whole["layers"]["layers"]) > 0.6 * whole["layers"]["program_tensors"]
    assert not any(difference["passed"] for subject in wrong for difference in subject["parity"] if difference["feeds"] == "noise")
    named = [None, *(module for _, module in DAMAGES.values())]
    assert [subject["layers"]["first"] for subject in (whole, *wrong)] == named
    assert all(f"the error arises in {module}" in subject["layers"]["verdict"] for subject, module in zip(wrong, named[1:], strict=True))

"""Networks of random weights that do something, as fresh ones hardly do, and their way to artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import onnx
import torch
from torch import nn

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.check import check
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.recipe.tables import Data, Export, Recipe

N = TypeVar("N", bound=nn.Module)


def lively(network: N, gain: float = 1.5, spread: float = 0.3) -> N:
    """The network with weights by which every layer changes what passes it; what is frozen stays as it is.

    Args:
        gain: how many times larger than what it is given a linear layer's or convolution's answer is, about.
        spread: standard deviation of biases, of norms' weights around 1, and of running means.
    """
    generator = torch.Generator().manual_seed(0)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in frozen or not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                tensor.copy_(noise.square() + 0.5)
            elif name.endswith(("bias_table", "global_token")):
                tensor.copy_(noise)
            elif tensor.ndim > 1:
                tensor.copy_(noise * gain * max(1, tensor[0].numel()) ** -0.5)
            else:
                tensor.copy_(noise * spread + (0 if name.endswith(("bias", "running_mean")) else 1))
    return network.eval()


def verified(model: Model, network: nn.Module, targets: Sequence[Target], folder: Path, lacking: frozenset[str], axes: int = 4) -> None:
    """Export a network to targets in FP32 and FP16, and hold every artefact to its gates on two samples of noise and the adversarial feeds.

    Args:
        model: by its name; the weights are the network's.
        lacking: operators that no ONNX graph of it may have, since compilers lack them.
        axes: that no tensor of it may have more of.
    """
    torch.save(network.state_dict(), folder / "lively.pth")
    recipe = Recipe(
        model=Model(name=model.name, checkpoint=folder / "lively.pth", input_size=model.input_size),
        data=Data(samples=2),
        export=Export(targets=tuple(targets), precisions=(Precision.FP32, Precision.FP16)),
    )
    cache = Cache(folder / "cache")
    made = export(recipe, folder / "out", cache, Silent()).artifacts
    for artifact in made:
        if artifact.manifest.format == "onnx":
            graph = onnx.shape_inference.infer_shapes(onnx.load(artifact.path)).graph
            assert not lacking & {node.op_type for node in graph.node}
            assert max(len(value.type.tensor_type.shape.dim) for value in graph.value_info) <= axes
    program = program_stage(recipe.model, cache)
    material = open_material(None, program.artifact.manifest)
    report = check("verify", program, made, material, recipe, Figures(parity=True, layers=False), Silent())
    verdicts = [subject.verdict for subject in report.subjects if subject.verdict is not None]
    assert len(verdicts) == 2 * len(targets)
    assert [gate.reason for verdict in verdicts for gate in verdict.gates if not gate.passed] == []

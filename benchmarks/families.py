"""Every LightViT and T2T-ViT to every target, with weights that do something, on real images: exported, verified, and its graph looked at.

    python benchmarks/families.py IMAGES [NAME …] [-t TARGET …] [-p PRECISION …] [--energy |k|²/2]

IMAGES has the folders `train`, of which INT8 takes its ranges, and `held-out`, which `verify` takes (examples/digits/data.py writes such).

Fresh weights are too tame to prove anything: their branches hardly move the residuals, and the Performer's exponents are near 0. Here
biases and norms are random, linear layers keep the size of what they are given, and the keys of the Performer layers have `--energy`
as their |k|²/2 (100 by default; where the published form is 0/0 in FP16). The weights are random, so nothing here is an accuracy.
TensorRT is an engine of TensorRT-RTX, compiled here and its typed graph emulated.

Exit code 1 when a network cannot be exported, fails `verify`, or has an operator in its ONNX graph that some compilers lack
(:data:`UNWANTED`), or a tensor of more than four axes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import dtvit_deploy  # noqa: F401 before the vendors, which it keeps from reporting home

# isort: split
import onnx
import torch

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision, Target
from dtvit_deploy.errors import DeployError
from dtvit_deploy.formats.engine.options import Flavour
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.models.registry import VARIANTS
from dtvit_deploy.models.t2t.token_layers import PerformerLayer
from dtvit_deploy.pipeline.check import check
from dtvit_deploy.pipeline.figures import Figures
from dtvit_deploy.pipeline.material import open_material
from dtvit_deploy.pipeline.program import program_stage
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.plan.exporting import export
from dtvit_deploy.recipe.tables import Data, Export, Int8, Recipe, TensorRt
from lively import lively as random_weights

NETWORKS = [name for name in VARIANTS if not name.startswith("dualtoken-")]
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
SAMPLED = ("lightvit-t", "t2t-vit-7", "t2t-vit-t-14", "t2t-vit-16-ghost", "t2t-vit-dense")
"""What is built in INT8 unless other names are asked for."""
UNWANTED = {"Einsum", "GatherND", "Tile", "Col2Im", "Loop", "If"}
AXES = 4
SAMPLES = 2
"""Of the images, beside the adversarial feeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path)
    parser.add_argument("names", nargs="*", help="all of them by default, the large ones last")
    parser.add_argument("--target", "-t", action="append", type=Target, choices=list(Target), help="repeatable")
    parser.add_argument("--precision", "-p", action="append", type=Precision, choices=PRECISIONS, help="repeatable")
    parser.add_argument("--energy", type=float, default=100.0)
    asked = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    failed = []
    for name in asked.names or sorted(NETWORKS, key=lambda name: VARIANTS[name].macs):
        wanted = asked.precision or [one for one in PRECISIONS if one is not Precision.INT8 or name in (asked.names or SAMPLED)]
        with tempfile.TemporaryDirectory() as scratch:
            for target in asked.target or list(Target):
                started = time.process_time()
                try:
                    found = tried(name, target, tuple(wanted), asked, Path(scratch))
                except DeployError as error:
                    found = [(str(error), False)]
                print(f"{name} → {target}, {time.process_time() - started:.0f} s of CPU", flush=True)
                print("\n".join(f"    {told}" for told, _ in found), flush=True)
                failed += [f"{name} → {target}: {told}" for told, right in found if not right]
    if failed:
        sys.exit("\n".join(["not as expected:", *failed]))


def tried(name: str, target: Target, precisions: tuple[Precision, ...], asked: argparse.Namespace, folder: Path) -> list[tuple[str, bool]]:
    """What became of a network on its way to a target, in each precision, and whether it is as it should be."""
    recipe = Recipe(
        model=Model(name=name, checkpoint=lively(name, folder / "lively.pt", asked.energy)),
        data=Data(evaluation=asked.images / "held-out", calibration=asked.images / "train", samples=SAMPLES),
        export=Export(targets=(target,), precisions=precisions),
        int8=Int8(samples=20, search=False) if Precision.INT8 in precisions else Int8(),
        tensorrt=TensorRt(flavours=(Flavour.RTX,)) if target is Target.TRT else TensorRt(),
    )
    cache = Cache(folder / "cache")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        made = export(recipe, Path(out) / "out", cache, Silent()).artifacts
        program = program_stage(recipe.model, cache)
        material = open_material(recipe.data.evaluation, program.artifact.manifest)
        report = check("verify", program, made, material, recipe, Figures(parity=True, layers=False), Silent())
        odd = {artifact.path.name: unwanted(artifact) for artifact in made if target is Target.ONNX}
    found = []
    for subject in report.subjects:
        if subject.verdict is not None:
            wrong = [f"{gate.name}: {gate.reason}" for gate in subject.verdict.gates if not gate.passed]
            told = [subject.name, "NOT VERIFIED: " + "; ".join(wrong[:2]) if wrong else "verified"]
            told += [gate.reason for gate in subject.verdict.gates if gate.passed]
            found.append((", ".join(told), not wrong))
    found += [(f"{file} has {operator}", False) for file, several in odd.items() for operator in several]
    return found or [("nothing was verified", False)]


def unwanted(artifact: Artifact) -> list[str]:
    """Operators that some compilers lack, and tensors of more axes than they take."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(artifact.path)).graph
    operators = UNWANTED & {node.op_type for node in graph.node}
    deep = [value.name for value in graph.value_info if len(value.type.tensor_type.shape.dim) > AXES]
    return [*sorted(operators), *(f"{name} has more than {AXES} axes" for name in deep)]


def lively(name: str, path: Path, energy: float) -> Path:
    """A checkpoint of random weights with which every layer changes what passes it; the keys of Performer layers have that |k|²/2."""
    network = load_reference(Model(name=name)).module
    random_weights(network, gain=1.0, spread=0.2)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, PerformerLayer):
                width = layer.w.shape[1]
                layer.kqv.weight[: 2 * width] *= (2 * energy / width) ** 0.5
    torch.save(network.state_dict(), path)
    return path


if __name__ == "__main__":
    main()

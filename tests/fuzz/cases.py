"""One changed file, taken as the command line takes it: its kind, its number, what came of it."""

from __future__ import annotations

import importlib
import random
import resource
import sys
import time
from pathlib import Path

import msgspec

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, manifest_path, sha256_of, write_json
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import DeployError
from fuzz.mutations import mutated_ir, mutated_onnx, mutated_pt

KINDS = ("onnx", "openvino", "pt")
_RUNTIMES = ("numpy", "onnx", "onnxruntime", "dtvit_deploy.runtimes.registry")
IMPORTED = {"onnx": _RUNTIMES, "openvino": (*_RUNTIMES, "openvino"), "pt": ("torch", "dtvit_deploy.models.checkpoint")}
"""What takes seconds, and is none of the first file's."""
SIGNATURE = Signature((TensorSpec("x", (1, 3, 8, 8)),), (TensorSpec("y", (1, 5)),))


class Outcome(msgspec.Struct, frozen=True):
    """What came of one.

    Attributes:
        what: accepted, refused, defect (an exception that is no refusal); crashed and hung are said by who watches the process.
        said: the message.
        seconds: until then.
        mib: greatest resident memory of the process so far, and of a process that it started.
    """

    what: str
    said: str
    seconds: float
    mib: tuple[int, int]


def write_seeds(folder: Path) -> None:
    """The valid files that all others are made from: a small network with what ViTs have."""
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper

    from dtvit_deploy.export.openvino.ir import openvino_from_onnx

    weights = {"w": (4, 3, 3, 3), "b": (4,), "m": (36, 5)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in weights.items()}
    numbers = {"shape": [1, 4, 36], "start": [0], "end": [36], "axis": [2], "pads": [0, 0, 1, 1, 0, 0, 1, 1], "flat": [1, 4, 36]}
    constants = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items()]
    constants += [helper.make_tensor(name, TensorProto.INT64, [len(values)], values) for name, values in numbers.items()]
    constants = [numpy_helper.from_array(numpy_helper.to_array(each), each.name) for each in constants]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[1, 1], kernel_shape=[3, 3]),
        helper.make_node("Pad", ["c", "pads"], ["p"]),
        helper.make_node("MaxPool", ["p"], ["k"], kernel_shape=[3, 3], strides=[1, 1]),
        helper.make_node("Relu", ["k"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("Slice", ["f", "start", "end", "axis"], ["s"]),
        helper.make_node("Expand", ["s", "flat"], ["e"]),
        helper.make_node("MatMul", ["e", "m"], ["q"]),
        helper.make_node("Softmax", ["q"], ["t"], axis=-1),
        helper.make_node("ReduceMean", ["t"], ["y"], axes=[1], keepdims=0),
    ]
    ends = [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, spec.shape) for spec in (*SIGNATURE.inputs, *SIGNATURE.outputs)]
    graph = helper.make_graph(nodes, "seed", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "seed.onnx")
    openvino_from_onnx(folder / "seed.onnx", folder / "seed.xml")
    torch.save(tensors, folder / "seed.pt")


def run(kind: str, number: int, seeds: Path, work: Path) -> Outcome:
    """Make the file of that number, and take it."""
    chance = random.Random(f"{kind} {number}")
    begun = time.perf_counter()
    what, said = "accepted", ""
    try:
        if kind == "pt":
            _take_checkpoint(seeds, work, chance)
        else:
            _take_artefact(kind, seeds, work, chance)
    except DeployError as error:
        what, said = "refused", str(error)
    except Exception as error:
        what, said = "defect", f"{type(error).__name__}: {error}"
    memory = [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Outcome(what, said[:400], time.perf_counter() - begun, (memory[0], memory[1]))


def _take_checkpoint(seeds: Path, work: Path, chance: random.Random) -> None:
    from torch import nn

    from dtvit_deploy.models.checkpoint import read_checkpoint, require_finite
    from dtvit_deploy.models.fitting import load_state

    path = work / "case.pt"
    path.write_bytes(mutated_pt((seeds / "seed.pt").read_bytes(), chance))
    network = nn.Module()
    for name, shape in {"w": (4, 3, 3, 3), "b": (4,), "m": (36, 5)}.items():
        network.register_parameter(name, nn.Parameter(nn.init.zeros_(nn.Parameter().new_empty(shape))))
    load_state(network, read_checkpoint(path))
    require_finite(network, str(path))


def _take_artefact(kind: str, seeds: Path, work: Path, chance: random.Random) -> None:
    import numpy as np

    from dtvit_deploy.runtimes.base import SessionOptions
    from dtvit_deploy.runtimes.registry import runtime_for

    path = work / f"case.{kind}"
    if kind == "onnx":
        path.write_bytes(mutated_onnx((seeds / "seed.onnx").read_bytes(), chance))
    else:
        path.mkdir(exist_ok=True)
        graph, constants = mutated_ir((seeds / "seed.xml").read_bytes(), (seeds / "seed.bin").read_bytes(), chance)
        (path / "model.xml").write_bytes(graph)
        (path / "model.bin").write_bytes(constants)
    artifact = _vouched(path, kind)
    runtime = runtime_for(artifact)
    runtime.tensors(artifact)
    with runtime.load(artifact, SessionOptions(threads=1)) as session:
        session.run({spec.name: np.ones(spec.shape, spec.dtype) for spec in SIGNATURE.inputs})


def _vouched(path: Path, kind: str) -> Artifact:
    """With a manifest whose digest fits, or the change would be found by that."""
    digest = sha256_of(path)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    lineage = (Link(kind=kind, sha256=digest, options=options),)
    manifest = Manifest(model="seed", format=kind, precision=Precision.FP32, sha256=digest, signature=SIGNATURE, lineage=lineage)
    write_json(manifest_path(path), manifest)
    return load_artifact(path)


def main(kind: str, first: str, end: str, seeds: str, work: str) -> None:
    """What a watched process does: a line when all is imported, and then one for each number."""
    for module in IMPORTED[kind]:
        importlib.import_module(module)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for number in range(int(first), int(end)):
        outcome = run(kind, number, Path(seeds), Path(work))
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
        sys.stdout.flush()

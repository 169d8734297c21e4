"""ONNX graphs that somebody made to break who reads them, under manifests that vouch for them: each is refused in a sentence."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from commandline import refused
from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, load_artifact, sha256_of
from dtvit_deploy.artifacts.graph import inferred
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.engine.passport import GRAPH
from dtvit_deploy.process.child import child_command
from dtvit_deploy.runtimes import trial
from dtvit_deploy.runtimes.base import SessionOptions
from dtvit_deploy.runtimes.registry import runtime_for

Vouch = Callable[[Path, Manifest], Artifact]
SIGNATURE = Signature((TensorSpec("x", (2, 2)),), (TensorSpec("y", (2, 2)),))
CUT = {"s": np.array([0]), "e": np.array([5]), "a": np.array([1])}


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def graph(*nodes: onnx.NodeProto, x: tuple[int, ...] = (2, 2), output: str = "y", **constants: Any) -> onnx.ModelProto:
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if not isinstance(value, TensorProto)]
    made += [value for value in constants.values() if isinstance(value, TensorProto)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", x), (output, None))]
    whole = helper.make_graph(nodes, "hostile", ends[:1], ends[1:], made)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def elsewhere(location: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return graph(node("Add", "x w", "y"), w=tensor)


def raw(*dims: int) -> onnx.ModelProto:
    return graph(node("Add", "x w", "y"), w=TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"abc"))


def nested(depth: int) -> onnx.ModelProto:
    """Choices within one another, the innermost of which holds a constant from another file."""
    inner = elsewhere("../x").graph
    del inner.input[:]
    for _ in range(depth):
        choice = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([choice], "inner", [], list(inner.output))
    return graph(*inner.node, c=np.array(True))


CUT_OFF = "ends the process (SIG"
HOSTILE: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "a negative size": (graph(node("Slice", "x s e a", "y"), x=(2, -1), **CUT), "the tensor 'x' has a negative size: 2×-1"),
    "a size made negative by padding": (
        graph(node("Pad", "x p", "q"), node("Slice", "q s e a", "y"), p=np.array([0, -5, 0, 0]), **CUT),
        CUT_OFF,
    ),
    "a size made negative by expansion": (
        graph(node("Expand", "x p", "q"), node("Slice", "q s e a", "y"), p=np.array([2, -4]), x=(2, 1), **CUT),
        CUT_OFF,
    ),
    "an enormous size": (graph(node("Relu", "x", "y"), x=(2**40, 2**40)), "values; 268,435,456 are the most that are read"),
    "an enormous tensor inside": (
        graph(
            node("ConstantOfShape", "p", "q"), node("ReduceSum", "q", "z", keepdims=0), node("Add", "x z", "y"), p=np.array([2**40, 2**20])
        ),
        "ONNX Runtime",
    ),
    "a circle": (graph(node("Add", "x b", "c"), node("Add", "x c", "b"), node("Relu", "b", "y")), "the graph is not acyclic"),
    "an unknown tensor": (graph(node("Add", "x nowhere", "y")), "Node input 'nowhere'"),
    "half a file": (graph(node("Relu", "x", "y")).SerializeToString()[:-9], "is not an ONNX graph"),
    "another output": (graph(node("Relu", "x", "z"), output="z"), "is not the graph that its manifest describes"),
    "constants in a file of the system": (elsewhere("/etc/passwd"), "constant 'w' are in another file, '/etc/passwd', which is not read"),
    "constants in a file beside the folder": (elsewhere("../x"), "are in another file, '../x', which is not read"),
    "constants in a file in the folder": (elsewhere("x"), "are in another file, 'x', which is not read"),
    "too few bytes": (raw(2, 2), "the constant 'w' has 3 bytes; its shape needs 16"),
    "far too few bytes": (raw(2**31, 2**31), "the tensor 'w' is said to have 2147483648×2147483648 values"),
    "an answer of another shape": (
        graph(node("Concat", "x x", "y", axis=0)),
        "is 4×2 float32, and its manifest says y 2×2 float32",
    ),
    "a shallow nest": (nested(2), "are in another file, '../x', which is not read"),
    "a deep nest": (nested(12), "are in another file, '../x', which is not read"),
}


def artefact(folder: Path, content: onnx.ModelProto | bytes, kind: str, vouch: Vouch, like: Manifest | None = None) -> Artifact:
    """A hostile graph, alone or in a job's folder, and a manifest that vouches for it."""
    made = Link(kind="onnx", sha256="0" * 64)
    own = Manifest(model="any", format="onnx", precision=Precision.FP16, sha256="0" * 64, signature=SIGNATURE, lineage=(made,))
    path = folder / f"hostile.{kind}"
    file = path if kind == "onnx" else path / GRAPH
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return vouch(path, msgspec.structs.replace(like or own, format=kind))


@pytest.mark.parametrize("kind", ["onnx", "trtjob"])
@pytest.mark.parametrize(("content", "said"), HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused(content: onnx.ModelProto | bytes, said: str, kind: str, vouch: Vouch, tmp_path: Path) -> None:
    hostile = artefact(tmp_path, content, kind, vouch)
    with pytest.raises(InputError) as caught, runtime_for(hostile).load(hostile, SessionOptions()) as session:
        session.run({"x": np.ones((2, 2), np.float32)})
    assert said in str(caught.value)
    assert caught.value.remedy


def test_the_inference_itself_would_have_ended_the_process(tmp_path: Path) -> None:
    """So the guard is needed; when this fails, it no longer is."""
    path = tmp_path / "graph.onnx"
    content = HOSTILE["a size made negative by padding"][0]
    assert isinstance(content, onnx.ModelProto)
    onnx.save(content, path)
    for code in (
        "import onnx; onnx.shape_inference.infer_shapes(onnx.load(sys.argv[1]))",
        "import onnxruntime; onnxruntime.InferenceSession(sys.argv[1])",
    ):
        done = subprocess.run(child_command(code, str(path)), capture_output=True, check=False, timeout=300)
        assert done.returncode == -signal.SIGABRT


def test_a_file_that_takes_too_long_is_given_up(vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.001)
    slow = artefact(tmp_path, graph(node("Relu", "x", "y")), "onnx", vouch)
    with pytest.raises(InputError, match=r"does not load hostile\.onnx within 0\.001 s"):
        runtime_for(slow).load(slow, SessionOptions())


def test_a_graph_is_tried_once(vouch: Vouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = artefact(tmp_path, graph(node("Relu", "x", "y")), "onnx", vouch)
    runtime_for(good).load(good, SessionOptions())
    monkeypatch.setattr(trial, "child_command", lambda *_: pytest.fail("it was tried again"))
    with runtime_for(good).load(good, SessionOptions()) as session:
        assert session.run({"x": np.ones((2, 2), np.float32)})["y"].shape == (2, 2)


def test_one_of_this_projects_own_that_cannot_be_inferred_is_refused_too() -> None:
    with pytest.raises(InputError, match=r"cannot be inferred: the tensor 'x' has a negative size: 2×-1"):
        inferred(graph(node("Slice", "x s e a", "y"), x=(2, -1), **CUT))
    with pytest.raises(InputError, match=r"cannot be inferred: .*axis"):
        inferred(graph(node("Softmax", "x", "y", axis=77)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("a negative size", "trtjob"), ("a size made negative by padding", "onnx")])
def test_verify_ends_with_one_message(name: str, kind: str, vouch: Vouch, tmp_path: Path, checkpoint: Path) -> None:
    from dtvit_deploy.artifacts.cache import Cache
    from dtvit_deploy.models.options import Model
    from dtvit_deploy.pipeline.program import program_stage

    program = program_stage(Model(checkpoint=checkpoint), Cache.default()).artifact.manifest
    last = Link(kind="onnx", sha256="0" * 64)
    content, said = HOSTILE[name]
    like = msgspec.structs.replace(program, lineage=(*program.lineage, last), precision=Precision.FP16)
    hostile = artefact(tmp_path, content, kind, vouch, like)
    assert load_artifact(hostile.path).manifest.sha256 == sha256_of(hostile.path)
    assert said in refused("verify", hostile.path, cwd=tmp_path, out=False)

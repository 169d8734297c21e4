"""What was written is held against its manifest: names, order, shapes and types of inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dtvit_deploy.artifacts.artifact import Artifact, Link, Manifest, sha256_of
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.described import require_as_described

IMAGE, LOGITS, STRIDES = TensorSpec("image", (1, 4)), TensorSpec("logits", (1, 4)), TensorSpec("strides", (3,), "int64")


def written(folder: Path) -> Path:
    """A graph from ``image`` to ``logits`` and a constant, ``strides``."""
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 4))]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 4)),
        helper.make_tensor_value_info("strides", TensorProto.INT64, (3,)),
    ]
    constant = helper.make_tensor("strides", TensorProto.INT64, (3,), [8, 16, 32])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "net", ends, outputs, [constant])
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def artifact(folder: Path, signature: Signature) -> Artifact:
    path = written(folder)
    digest = sha256_of(path)
    link = Link(kind="onnx", sha256=digest)
    manifest = Manifest(model="mine:net", format="onnx", precision=Precision.FP32, sha256=digest, signature=signature, lineage=(link,))
    return Artifact(path, manifest)


def test_what_is_as_described_is_taken(tmp_path: Path) -> None:
    require_as_described(artifact(tmp_path, Signature((IMAGE,), (LOGITS, STRIDES))))


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        ((IMAGE,), (LOGITS, STRIDES, TensorSpec("valid", (2,), "bool")), "its outputs are"),
        ((IMAGE,), (LOGITS,), "strides 3 int64, not logits 1×4 float32"),
        ((IMAGE,), (STRIDES, LOGITS), "its outputs are logits 1×4 float32; strides 3 int64, not strides"),
        ((IMAGE,), (LOGITS, TensorSpec("strides", (3,), "int32")), "not logits 1×4 float32; strides 3 int32"),
        ((TensorSpec("image", (2, 4)),), (LOGITS, STRIDES), "its inputs are image 1×4 float32, not image 2×4 float32"),
        ((TensorSpec("picture", (1, 4)),), (LOGITS, STRIDES), "its inputs are image 1×4 float32, not picture"),
    ],
    ids=["dropped", "added", "reordered", "retyped", "resized", "renamed"],
)
def test_any_difference_is_refused_with_both(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        require_as_described(artifact(tmp_path, Signature(inputs, outputs)))
    assert "is not the graph that its manifest describes" in str(caught.value)
    assert told in str(caught.value)
    assert "export another target" in (caught.value.remedy or "")

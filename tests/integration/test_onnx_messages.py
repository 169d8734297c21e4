"""What is read and written of ONNX without the package is what the package reads and writes."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.onnx_messages import NodeRead, Values, model_written, nodes_read
from dtvit_deploy.runtimes import peaks

MUTANTS = 2000


def read_by_onnx(model: onnx.ModelProto) -> list[NodeRead]:
    return [NodeRead(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node]


def test_the_nodes_of_a_file_are_those_that_onnx_reads(exported: list[Artifact]) -> None:
    files = [one.path for one in exported if one.manifest.format == "onnx"]
    assert len(files) == 3
    for file in files:
        found = nodes_read(file.read_bytes())
        assert found == read_by_onnx(onnx.load(file))
        assert len(found) > 5


def test_empty_names_and_inputs_keep_their_places() -> None:
    nodes = [helper.make_node("Clip", ["x", "", "most"], ["y"]), helper.make_node("Identity", ["y"], ["z"], name="ü/" + "n" * 300)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert nodes_read(model.SerializeToString()) == read_by_onnx(model)
    assert nodes_read(b"") == []


def test_what_is_damaged_is_refused_and_never_anything_else() -> None:
    model = helper.make_model(helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"], name="add")] * 3, "g", [], []))
    whole, refused, dice = model.SerializeToString(), 0, random.Random(0)
    for _ in range(MUTANTS):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        try:
            nodes_read(bytes(content[: dice.randint(1, len(content))]))
        except ValueError:
            refused += 1
    assert refused > MUTANTS / 10
    with pytest.raises(ValueError, match="no end"):
        nodes_read(b"\xff" * 20)
    with contextlib.suppress(ValueError):
        nodes_read(b"\x3a\xff\xff\xff\xff\x0f")  # a graph of four gigabytes, of which nothing is there


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_a_model_is_written_as_onnx_would_write_it(dtype: str) -> None:
    weights = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    found = onnx.load_from_string(
        model_written(
            [("MatMul", ["given", "weights"], ["made"])],
            [Values("given", dtype, (200, 3))],
            [Values("made", dtype, (200, 4))],
            {"weights": weights, "one": np.asarray(np.float32(0.5))},
            opset=20,
            ir_version=9,
        )
    )
    assert (found.ir_version, [(one.domain, one.version) for one in found.opset_import]) == (9, [("", 20)])
    assert [numpy_helper.to_array(one).tolist() for one in found.graph.initializer] == [weights.tolist(), 0.5]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    assert list(found.graph.input) == [helper.make_tensor_value_info("given", kind, [200, 3])]
    assert list(found.graph.output) == [helper.make_tensor_value_info("made", kind, [200, 4])]
    assert list(found.graph.node) == [helper.make_node("MatMul", ["given", "weights"], ["made"])]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_the_products_of_peaks_are_valid_and_right(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bytes] = []
    session = onnxruntime.InferenceSession

    def noted(content: bytes, *more: object, **named: object) -> object:
        loaded.append(content)
        return session(content, *more, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    size = 32, 64, 16
    (made,) = peaks._session(precision, size, 1)()  # type: ignore[misc]
    onnx.checker.check_model(onnx.load_from_string(loaded[0]), full_check=True)
    given, weights = peaks._factors(size)
    allowed = {Precision.FP32: 1e-4, Precision.FP16: 0.05, Precision.INT8: 0.1}[precision]
    exact = given @ weights
    meant = np.abs(exact) < 7.5  # what INT8's scale has room for
    assert meant.mean() > 0.9
    assert np.abs(made - exact)[meant].max() < allowed

"""A runtime's profile tells which torch module takes the time, also where it fused and renamed the nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.runtimes.node_times import Nodes, onnxruntime_times, openvino_times


def network() -> onnx.ModelProto:
    """A large and a small product, each followed by a ReLU."""
    random = np.random.RandomState(0)
    weights = {"wide": random.randn(512, 1024), "narrow": random.randn(1024, 8)}
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["y"], name="large"),
        helper.make_node("Relu", ["y"], ["a"], name="first_relu"),
        helper.make_node("MatMul", ["a", "narrow"], ["z"], name="small"),
        helper.make_node("Relu", ["z"], ["out"], name="second_relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [256, 512])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [256, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


FEED = {"x": np.ones((256, 512), np.float32)}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_large_product_takes_the_most_and_little_belongs_to_nobody(runtime: str) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is what is asked for its profile")
    times = onnxruntime_times(network(), FEED, 1) if runtime == "onnxruntime" else openvino_times(network(), FEED, 1, "f32")
    assert times.keys() <= {"large", "first_relu", "small", "second_relu", ""}
    assert max(times, key=lambda name: times[name]) == "large"
    assert times["small"] > 0
    assert times.get("", 0.0) < 0.3 * sum(times.values())


def test_a_fused_layer_belongs_to_its_product_under_whatever_name_it_has() -> None:
    nodes = Nodes(network())
    assert nodes.owner(["first_relu", "large"]) == "large"
    assert nodes.owner(["large/WithoutBiases"]) == "large"
    assert nodes.owner(["y_nchwc"]) == "large"  # by its output
    assert nodes.owner(["small_token_12"]) == "small"
    assert nodes.owner(["something", "else"]) == ""

"""INT8 with FP16 for the rest: scales that FP16 has, integers computed with them, and products that stay FP32 with all that is theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.export.onnx.float16 import Float16, float16_onnx
from dtvit_deploy.export.onnx.integers import LEAST_FP16_SCALE, fp16_scales
from dtvit_deploy.export.onnx.qdq import Layout, quantized_onnx
from dtvit_deploy.runtimes.onnxruntime import magnitudes, run_graph
from dtvit_deploy.runtimes.rounded import rounded_onnx

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (2, 64)).astype(np.float32)
W1, W2 = (RNG.normal(size=shape).astype(np.float32) for shape in ((64, 32), (32, 8)))
SIGNATURE = Signature((TensorSpec("x", X.shape),), (TensorSpec("y", (2, 8)),))


def node(operator: str, inputs: str, output: str, module: str) -> onnx.NodeProto:
    made = helper.make_node(operator, inputs.split(), [output], name=f"{output}_node")
    made.metadata_props.add(key="module", value=module)
    return made


def network(first: Array = W1, gain: float = 1.0) -> onnx.ModelProto:
    """Two products, and a gain that is taken back behind them."""
    nodes = (
        node("MatMul", "x w1", "hidden", "grow"),
        node("Relu", "hidden", "active", "act"),
        node("Mul", "active gain", "large", "gain"),
        node("MatMul", "large w2", "mixed", "shrink"),
        node("Div", "mixed gain", "y", "back"),
    )
    values = {"w1": first, "w2": W2, "gain": np.array(gain, np.float32)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 8))]
    made = helper.make_graph(list(nodes), "net", inputs, outputs, [numpy_helper.from_array(one, name) for name, one in values.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    ranges = {name: (-size, size) for name, size in magnitudes(model, SIGNATURE, [{"x": X}]).items()}
    return quantized_onnx(model, ranges, Layout.TENSORRT, least_macs=0).model


def halved(model: onnx.ModelProto, *keep_fp32: str) -> Float16:
    """As the pipeline does it: with the magnitudes of the quantised graph itself."""
    typed = float16_onnx(model, magnitudes(model, SIGNATURE, [{"x": X}]), keep_fp32)
    onnx.checker.check_model(typed.model, full_check=True)
    return typed


def answer(model: onnx.ModelProto) -> Array:
    (found,) = run_graph(rounded_onnx(model), SIGNATURE, [{"x": X}])
    return found["y"]


def off(model: onnx.ModelProto, expected: onnx.ModelProto) -> float:
    exact = answer(expected)
    return float(np.linalg.norm(answer(model) - exact) / np.linalg.norm(exact))


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {info.name: info.type.tensor_type.elem_type for info in inferred.value_info}


class TestScales:
    def test_the_fp16_pass_changes_their_type_and_no_value(self) -> None:
        before = quantised(network())
        after = constants(halved(before).model)
        scales = {name: values for name, values in constants(before).items() if name.endswith("_scale")}
        assert len(scales) == 4
        for name, values in scales.items():
            assert after[name].dtype == np.float16
            np.testing.assert_array_equal(after[name].astype(np.float32), values)

    def test_integers_are_computed_with_the_scale_that_is_stored(self) -> None:
        stored = constants(quantised(network()))
        expected = np.rint(W1.astype(np.float64) / stored["w1_scale"].astype(np.float64))
        np.testing.assert_array_equal(stored["w1_quantized"], np.clip(expected, -127, 127))
        assert np.abs(stored["w1_quantized"].astype(int)).max(axis=0).tolist() == [127] * 32

    def test_all_is_symmetric(self) -> None:
        stored = constants(halved(quantised(network())).model)
        points = [values for name, values in stored.items() if "zero_point" in name]
        assert len(points) == 4
        assert all(values.dtype == np.int8 and not values.any() for values in points)

    @pytest.mark.parametrize(
        ("scale", "found"),
        [(0.01, np.float16(0.01)), (1e-9, LEAST_FP16_SCALE), (LEAST_FP16_SCALE * 0.9, LEAST_FP16_SCALE), (65_510, 65_504), (1e6, 1e6)],
    )
    def test_the_nearest_that_fp16_has_as_a_normal_number(self, scale: float, found: float) -> None:
        assert fp16_scales(np.array([scale], np.float32)).tolist() == [float(found)]

    def test_it_answers_as_well_as_int8_can(self) -> None:
        assert off(halved(quantised(network())).model, network()) < 0.02


class TestSmall:
    """Numbers so small that FP16 has no scale for them."""

    def test_one_channel_of_tiny_weights_has_fewer_levels_and_the_right_size(self) -> None:
        """Its own scale would be 0 in FP16, and its weights nothing or, with the least number that FP16 has, seven times too large."""
        weights = W1.copy()
        weights[:, 0] *= 1e-5
        stored = constants(quantised(network(weights)))
        assert stored["w1_scale"][0] == LEAST_FP16_SCALE < stored["w1_scale"][1:].min()
        restored = stored["w1_quantized"] * stored["w1_scale"]
        assert np.abs(restored[:, 0] - weights[:, 0]).max() <= LEAST_FP16_SCALE / 2
        assert off(halved(quantised(network(weights))).model, network(weights)) < 0.02

    def test_a_product_of_tiny_weights_stays_in_float(self) -> None:
        model = network(W1 * np.float32(1e-3))
        found = quantized_onnx(model, {"x": (-1, 1), "large": (-0.1, 0.1)}, Layout.TENSORRT, least_macs=0)
        assert found.modules == {"shrink": 1}
        assert found.notes[-1] == "1 stays in float, its weights stay below 0.0078, too small for FP16 scales: grow"

    def test_a_product_with_tiny_input_stays_in_float(self) -> None:
        found = quantized_onnx(network(), {"x": (-0.001, 0.005), "large": (-4, 4)}, Layout.TENSORRT, least_macs=0)
        assert found.modules == {"shrink": 1}
        assert found.notes[-1] == "1 stays in float, its input stays below 0.0078, too small for an FP16 scale: grow"

    def test_x86_has_fp32_scales_and_none_of_these_reasons(self) -> None:
        ranges = {"x": (-0.001, 0.005), "large": (-0.1, 0.1)}
        assert len(quantized_onnx(network(W1 * np.float32(1e-3)), ranges, Layout.X86, least_macs=0).modules) == 2


class TestKept:
    """Products that stay FP32 are INT8 all the same."""

    def made_by(self, model: onnx.ModelProto, place: int) -> list[str]:
        makers = {name: one.op_type for one in model.graph.node for name in one.output}
        return [makers.get(one.input[place], "") for one in model.graph.node if one.op_type == "MatMul"]

    def test_no_cast_comes_between_a_product_and_its_integers(self) -> None:
        typed = halved(quantised(network()), "shrink")
        kinds = types(typed.model)
        assert self.made_by(typed.model, 0) == self.made_by(typed.model, 1) == ["DequantizeLinear"] * 2
        assert (kinds["hidden"], kinds["mixed"]) == (TensorProto.FLOAT16, TensorProto.FLOAT)
        assert off(typed.model, network()) < 0.02

    def test_what_overflows_does_so_neither_before_nor_behind_its_integers(self) -> None:
        """127 times the scale of a tensor up to 1e6 is beyond FP16, and so is the sum of the products."""
        model = network(gain=1e5)
        typed = halved(quantised(model))
        kinds = types(typed.model)
        assert {kinds[name] for name in ("large", "large_dequantized", "mixed")} == {TensorProto.FLOAT}
        assert {kinds[name] for name in ("hidden", "active")} == {TensorProto.FLOAT16}
        assert self.made_by(typed.model, 0) == self.made_by(typed.model, 1) == ["DequantizeLinear"] * 2
        assert "shrink" in typed.kept
        assert off(typed.model, model) < 0.02

    def test_without_their_magnitudes_it_would_be_infinite(self) -> None:
        assert not np.isfinite(answer(float16_onnx(quantised(network(gain=1e5)), {}).model)).all()

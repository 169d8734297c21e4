"""Q/DQ graphs: which products become INT8 and what they then compute, what stays float and why, and what each reader accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.onnx.qdq import Layout, Quantized, quantized_onnx

Array = NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 3, (2, 8)).astype(np.float32)
W1, W2 = (RNG.normal(size=shape).astype(np.float32) for shape in ((8, 16), (16, 4)))
B1, B2 = (RNG.normal(size=size).astype(np.float32) for size in (16, 4))
IMAGE = RNG.uniform(-1, 1, (1, 8, 6, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(8, 8, 3, 3)).astype(np.float32)
LAYOUTS = pytest.mark.parametrize("layout", list(Layout))


def node(operator: str, inputs: str, output: str, module: str = "", **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, inputs.split(), output.split(), name=f"{output.split()[0]}_node", **attributes)
    made.metadata_props.add(key="module", value=module)
    return made


def graph(*nodes: onnx.NodeProto, x: Array = X, outputs: tuple[str, ...] = ("y",), **constants: Any) -> onnx.ModelProto:
    """Nodes from ``x`` to ``outputs``, all FP32."""
    values = {name: np.asarray(value) for name, value in constants.items()}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    made = helper.make_graph(list(nodes), "net", inputs, ends, [numpy_helper.from_array(value, name) for name, value in values.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def tensors(model: onnx.ModelProto, x: Array = X) -> dict[str, Array]:
    """Every tensor, by ONNX's own evaluator."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    made = list(dict.fromkeys(name for one in model.graph.node for name in one.output))
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made)
    found: Any = ReferenceEvaluator(tapped).run(None, {"x": x})
    return {"x": x, **dict(zip(made, found, strict=True))}


def reached(model: onnx.ModelProto, x: Array = X) -> Ranges:
    return {name: (float(array.min()), float(array.max())) for name, array in tensors(model, x).items() if array.dtype == np.float32}


def quantised(model: onnx.ModelProto, layout: Layout = Layout.X86, x: Array = X, ranges: Ranges | None = None, **options: Any) -> Quantized:
    """All products, however small, with the ranges that they reach; the graph is checked."""
    found = quantized_onnx(model, reached(model, x) if ranges is None else ranges, layout, **{"least_macs": 0, **options})
    onnx.checker.check_model(found.model, full_check=True)
    return found


def operators(model: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in model.graph.node]


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def source_of(model: onnx.ModelProto, reader: str, place: int) -> str:
    """What an input of a node was before it was quantised; itself where it was not."""
    made = {name: one for one in model.graph.node for name in one.output}
    read = next(one for one in model.graph.node if one.output[0] == reader).input[place]
    if read not in made or made[read].op_type != "DequantizeLinear":
        return str(read)
    stored = str(made[read].input[0])
    return str(made[stored].input[0]) if stored in made else stored


MLP = graph(
    node("Gemm", "x w1 b1", "hidden", "block.fc1"),
    node("Gelu", "hidden", "active", "block"),
    node("Gemm", "active w2 b2", "y", "block.fc10"),
    w1=W1,
    b1=B1,
    w2=W2,
    b2=B2,
)


class TestLayouts:
    def test_what_x86_runtimes_look_for(self) -> None:
        model = quantised(MLP).model
        conversions = ["QuantizeLinear", *["DequantizeLinear"] * 3]
        assert operators(model) == [*conversions, "Gemm", "Gelu", *conversions, "Gemm"]
        types = Counter((array.dtype.name, array.shape) for name, array in constants(model).items() if not name.endswith("_zero_point"))
        assert types[("int8", (8, 16))] == types[("int8", (16, 4))] == types[("int32", (16,))] == types[("int32", (4,))] == 1
        assert {array.dtype.name for name, array in constants(model).items() if name.startswith(("x_zero", "active_zero"))} == {"uint8"}

    def test_what_tensorrt_takes(self) -> None:
        """No INT32, no zero point, biases as they were."""
        model = quantised(MLP, Layout.TENSORRT).model
        conversions = ["QuantizeLinear", *["DequantizeLinear"] * 2]
        assert operators(model) == [*conversions, "Gemm", "Gelu", *conversions, "Gemm"]
        stored = constants(model)
        assert {array.dtype.name for array in stored.values()} == {"int8", "float32"}
        assert not any(array.any() for name, array in stored.items() if name.endswith("_zero_point"))
        assert np.array_equal(stored["b1"], B1)

    @LAYOUTS
    def test_inputs_outputs_and_all_tensors_keep_name_and_type(self, layout: Layout) -> None:
        model = quantised(MLP, layout).model

        def ends(one: onnx.ModelProto) -> list[bytes]:
            return [info.SerializeToString(deterministic=True) for info in (*one.graph.input, *one.graph.output)]

        assert ends(model) == ends(MLP)
        kept = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
        assert {name: kept[name] for name in ("hidden", "active")} == {"hidden": TensorProto.FLOAT, "active": TensorProto.FLOAT}
        assert {one.name for one in MLP.graph.node} <= {one.name for one in model.graph.node}

    @LAYOUTS
    def test_the_answer_is_that_of_integer_arithmetic(self, layout: Layout) -> None:
        """A product of integers, then one multiplication by the scales: exactly what an INT8 kernel does."""
        model = quantised(MLP, layout).model
        stored, found = constants(model), tensors(model)
        zero_point = stored["x_zero_point"].astype(np.int64)
        data = found["x_quantized"].astype(np.int64) - zero_point
        sums = data @ stored["w1_quantized"].astype(np.int64)
        scales = stored["x_scale"].astype(np.float64) * stored["w1_scale"].astype(np.float64)
        expected = (sums + stored["b1_quantized"]) * scales if layout is Layout.X86 else sums * scales + B1
        np.testing.assert_allclose(found["hidden"], expected, rtol=1e-5, atol=1e-5)

    @LAYOUTS
    def test_it_answers_as_well_as_eight_bits_can(self, layout: Layout) -> None:
        expected, found = tensors(MLP)["y"], tensors(quantised(MLP, layout).model)["y"]
        assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)

    def test_onnx_runtime_makes_int8_operators_of_it(self, tmp_path: Any) -> None:
        import onnxruntime

        model = graph(
            node("Gemm", "x w1 b1", "hidden", "a"),
            node("Gelu", "hidden", "active", "b"),
            node("MatMul", "active w2", "product", "c"),
            node("Add", "product b2", "mixed", "c"),
            node("Gelu", "mixed", "small", "d"),
            node("MatMul", "small w3", "y", "e"),
            w1=W1,
            b1=B1,
            w2=W2,
            b2=B2,
            w3=W2.T.copy(),
        )
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        settings.log_severity_level = 3
        onnxruntime.InferenceSession(quantised(model).model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        made = Counter(operators(onnx.load(tmp_path / "optimized.onnx")))
        assert (made["QGemm"], made["MatMulIntegerToFloat"]) == (2, 1)
        assert not {"Gemm", "MatMul", "DequantizeLinear"} & made.keys()


class TestWeights:
    def test_a_transposed_gemm_has_a_scale_for_each_row(self) -> None:
        plain = graph(node("Gemm", "x w1 b1", "y"), w1=W1, b1=B1)
        transposed = graph(node("Gemm", "x w1 b1", "y", transB=1), w1=W1.T.copy(), b1=B1)
        one, other = quantised(plain).model, quantised(transposed).model
        assert np.array_equal(constants(one)["w1_scale"], constants(other)["w1_scale"])
        assert np.array_equal(constants(one)["w1_quantized"], constants(other)["w1_quantized"].T)
        assert np.array_equal(tensors(one)["y"], tensors(other)["y"])

    def test_shared_weights_are_stored_once(self) -> None:
        model = graph(node("MatMul", "x w", "once"), node("MatMul", "once w", "y"), w=W1[:, :8])
        found = quantised(model).model
        assert sum(array.dtype == np.int8 and array.ndim == 2 for array in constants(found).values()) == 1
        assert operators(found).count("DequantizeLinear") == 3

    def test_float_weights_go_where_nobody_reads_them(self) -> None:
        assert {"w1", "w2"}.isdisjoint(constants(quantised(MLP).model))

    def test_and_stay_where_somebody_does(self) -> None:
        model = graph(node("MatMul", "x w", "once", "a"), node("MatMul", "once w", "y", "b"), w=W1[:, :8])
        found = quantised(model, in_float=["b"]).model
        assert np.array_equal(constants(found)["w"], W1[:, :8])
        assert source_of(found, "y", 1) == "w"

    def test_a_bias_too_large_for_its_channel_survives(self) -> None:
        weights = W1.copy()
        weights[:, 3] = 0
        model = graph(node("Gemm", "x w1 b1", "y"), w1=weights, b1=B1 + 100)
        found = tensors(quantised(model).model)["y"]
        np.testing.assert_allclose(found, tensors(model)["y"], rtol=1e-2)


class TestActivations:
    def test_one_conversion_serves_all_that_read_int8(self) -> None:
        model = graph(
            node("MatMul", "x w", "query"), node("MatMul", "x v", "key"), node("Neg", "x", "other"), node("Sum", "query key other", "y"),
            w=W1[:, :8], v=W1[:, 8:],
        )  # fmt: skip
        found = quantised(model).model
        assert operators(found).count("QuantizeLinear") == 1
        assert [source_of(found, "query", 0), source_of(found, "key", 0)] == ["x", "x"]
        assert next(one for one in found.graph.node if one.op_type == "Neg").input[0] == "x"

    def test_a_view_that_no_program_knows_has_the_range_of_what_it_views(self) -> None:
        """A simplifier makes a Gemm of a product and a sum, between two reshapes that it names itself."""
        model = graph(
            node("Reshape", "x flat", "_v_1"),
            node("Gemm", "_v_1 w1 b1", "_v_2"),
            node("Reshape", "_v_2 back", "linear"),
            node("Transpose", "_v_2", "_v_3", perm=[1, 0]),
            node("MatMul", "_v_3 v", "y"),
            w1=W1, b1=B1, v=W1[:2], flat=np.array([2, 8]), back=np.array([1, 2, 16]),
        )  # fmt: skip
        known = {name: bounds for name, bounds in reached(model).items() if name in ("x", "linear")}
        found = quantised(model, ranges=known)
        assert [one.input[0] for one in found.model.graph.node if one.op_type == "QuantizeLinear"] == ["_v_1", "_v_3"]
        stored = constants(found.model)
        assert float(stored["_v_1_scale"]) == pytest.approx(np.ptp(X) / 255)

    def test_the_range_that_is_given_counts_not_that_of_the_values(self) -> None:
        found = quantised(MLP, Layout.TENSORRT, ranges={**reached(MLP), "x": (-0.5, 1.27)})
        assert float(constants(found.model)["x_scale"]) == float(np.float16(0.01))


class TestConvolutions:
    CHAIN = graph(
        node("Conv", "x k b", "first", "stem.0", pads=[1, 1, 1, 1]),
        node("Relu", "first", "active", "stem.1"),
        node("Conv", "active k", "second", "stem.2", pads=[1, 1, 1, 1]),
        node("Add", "active second", "sum", "stem"),
        node("Conv", "sum k", "y", "head"),
        x=IMAGE,
        k=KERNEL,
        b=B1[:8],
    )

    def test_on_x86_their_results_are_int8_for_all_readers(self) -> None:
        """After the ReLU, which is part of the convolution there; the graph's own output stays as it was computed."""
        model = quantised(self.CHAIN, x=IMAGE).model
        assert [source_of(model, "active", 0), source_of(model, "second", 0), source_of(model, "sum", 0)] == ["first", "active", "active"]
        assert source_of(model, "sum", 1) == "second"
        converted = [one.input[0] for one in model.graph.node if one.op_type == "QuantizeLinear"]
        assert converted == ["x", "active", "second", "sum"]

    @pytest.mark.parametrize("outputs", [("y",), ("y", "first")])
    def test_a_relu_is_part_of_a_convolution_that_nobody_else_reads(self, outputs: tuple[str, ...]) -> None:
        other = node("Neg", "active" if "first" in outputs else "first", "negative")
        model = graph(
            node("Conv", "x k", "first"), node("Relu", "first", "active"), other, node("Add", "active negative", "y"),
            x=IMAGE, outputs=outputs, k=KERNEL,
        )  # fmt: skip
        converted = [one.input[0] for one in quantised(model, x=IMAGE).model.graph.node if one.op_type == "QuantizeLinear"]
        assert converted == (["x", "first"] if outputs == ("y",) else ["x"])

    def test_for_tensorrt_only_their_inputs_are(self) -> None:
        model = quantised(self.CHAIN, Layout.TENSORRT, x=IMAGE).model
        assert [source_of(model, "sum", 0), source_of(model, "sum", 1)] == ["active", "second"]
        assert next(one for one in model.graph.node if one.op_type == "Add").input[0] == "active"

    @LAYOUTS
    def test_they_answer_as_well_as_eight_bits_can(self, layout: Layout) -> None:
        expected, found = (tensors(model, IMAGE)["y"] for model in (self.CHAIN, quantised(self.CHAIN, layout, x=IMAGE).model))
        assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)

    def test_onnx_runtime_makes_int8_convolutions_of_them(self, tmp_path: Any) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        settings.log_severity_level = 3
        content = quantised(self.CHAIN, x=IMAGE).model.SerializeToString()
        onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        assert Counter(operators(onnx.load(tmp_path / "optimized.onnx")))["QLinearConv"] == 2  # the last one's result is FP32

    @pytest.mark.parametrize(("kernel", "group"), [((8, 1, 3, 3), 8), ((4, 4, 3, 3), 2)])
    def test_few_channels_stay_float(self, kernel: tuple[int, ...], group: int) -> None:
        model = graph(node("Conv", "x k", "y", "stem", group=group), x=IMAGE, k=np.ones(kernel, np.float32))
        found = quantised(model, x=IMAGE)
        assert operators(found.model) == ["Conv"]
        assert found.notes[-1] == "1 stays FP32, fewer than 8 input channels in a group: stem"


class TestLeftInFloat:
    def test_products_of_two_activations_and_what_is_no_product(self) -> None:
        model = graph(
            node("MatMul", "x w", "scores", "attention.query"),
            node("Transpose", "x", "turned", "attention", perm=[1, 0]),
            node("MatMul", "scores turned", "product", "attention"),
            node("Softmax", "product", "weights", "attention"),
            node("LayerNormalization", "weights one", "normal", "norm", axis=-1),
            node("Gelu", "normal", "y", "act"),
            w=W1[:, :8], one=np.ones(2, np.float32),
        )  # fmt: skip
        found = quantised(model)
        assert found.modules == {"attention.query": 1}
        assert found.notes[-1] == "1 stays FP32, its factors are both activations: attention"
        assert [one.op_type for one in found.model.graph.node if one.op_type not in ("QuantizeLinear", "DequantizeLinear")] == operators(
            model
        )

    @pytest.mark.parametrize(
        ("ranges", "reason"), [({}, "no range is known of its input"), ({"x": (0, 0)}, "its input was 0 throughout calibration")]
    )
    @LAYOUTS
    def test_what_has_no_range(self, ranges: Ranges, reason: str, layout: Layout) -> None:
        model = graph(node("MatMul", "x w1", "y", "head"), w1=W1)
        found = quantised(model, layout, ranges=ranges)
        assert (operators(found.model), found.modules) == (["MatMul"], {})
        assert found.notes == (
            "0 of 1 convolution or matrix product is INT8, with 0.0% of the multiply–accumulates",
            f"1 stays {'FP32' if layout is Layout.X86 else 'in float'}, {reason}: head",
        )

    def test_what_is_small(self) -> None:
        found = quantised(MLP, least_macs=2 * 8 * 16)
        assert found.modules == {"block.fc1": 1}
        assert found.notes[-1] == "1 stays FP32, fewer than 256 multiply–accumulates: block.fc10"

    @pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
    def test_a_gemm_that_is_more_than_a_product_and_a_sum(self, attributes: dict[str, Any]) -> None:
        weights = W1[:2] if "transA" in attributes else W1
        model = graph(node("Gemm", "x w1 b1", "y", **attributes), w1=weights, b1=B1)
        assert operators(quantised(model).model) == ["Gemm"]

    def test_a_bias_that_is_not_of_the_channels(self) -> None:
        model = graph(node("Gemm", "x w1 b1", "y"), w1=W1, b1=np.ones((2, 1), np.float32))
        assert operators(quantised(model).model) == ["Gemm"]

    def test_weights_of_more_than_two_axes(self) -> None:
        model = graph(node("MatMul", "x w", "y"), w=np.ones((3, 8, 4), np.float32))
        assert operators(quantised(model).model) == ["MatMul"]

    def test_a_constant_that_comes_first(self) -> None:
        """A fixed interpolation, say: its right factor is the activation."""
        model = graph(node("MatMul", "rows x", "y"), rows=np.ones((5, 2), np.float32))
        assert operators(quantised(model).model) == ["MatMul"]

    def test_a_graph_without_any_product(self) -> None:
        found = quantised(graph(node("Neg", "x", "y")))
        assert (found.modules, found.notes) == ({}, ("0 of 0 convolutions and matrix products are INT8",))

    def test_by_wish_a_module_and_its_children(self) -> None:
        found = quantised(MLP, in_float=["block.fc1"])
        assert found.modules == {"block.fc10": 1}
        assert found.notes[-1] == "1 stays FP32, asked for: block.fc1"
        assert quantised(MLP, in_float=["block"]).modules == {}

    def test_a_module_that_made_nothing_is_refused_with_those_that_did(self) -> None:
        with pytest.raises(InputError, match=r"no node comes from a module 'block\.fc2'") as caught:
            quantised(MLP, in_float=["block.fc1", "block.fc2"])
        assert caught.value.remedy == "modules with nodes: block, block.fc1, block.fc10"


class TestTheResult:
    def test_it_counts_the_products_of_each_module(self) -> None:
        model = graph(node("MatMul", "x w", "a", "one"), node("MatMul", "a w", "b", ""), node("MatMul", "b w", "y", "one"), w=W1[:, :8])
        assert quantised(model).modules == {"one": 2, "(the network itself)": 1}

    def test_a_conversion_belongs_to_the_module_for_whose_sake_it_is_made(self) -> None:
        made = Counter((one.op_type, module_of(one)) for one in quantised(MLP).model.graph.node)
        assert {module: count for (operator, module), count in made.items() if operator == "DequantizeLinear"} == {
            "block.fc1": 3,
            "block.fc10": 3,
        }
        assert {module: count for (operator, module), count in made.items() if operator == "QuantizeLinear"} == {
            "block.fc1": 1,
            "block.fc10": 1,
        }

    @LAYOUTS
    def test_it_is_the_same_every_time_and_the_graph_given_is_not_touched(self, layout: Layout) -> None:
        before = MLP.SerializeToString(deterministic=True)
        one, other = (quantised(MLP, layout, in_float={"block.fc10"}).model.SerializeToString(deterministic=True) for _ in range(2))
        assert one == other
        assert MLP.SerializeToString(deterministic=True) == before

    def test_names_that_a_conversion_would_take(self) -> None:
        model = graph(
            node("Neg", "x", "x_quantized"), node("MatMul", "x_quantized x_quantized_scale", "z"), node("MatMul", "x w", "x_dequantized"),
            node("Concat", "z x_dequantized", "y", axis=-1), w=W1, x_quantized_scale=W1,
        )  # fmt: skip
        found = quantised(model)
        assert found.modules == {"(the network itself)": 2}
        np.testing.assert_allclose(tensors(found.model)["y"], tensors(model)["y"], atol=0.2)

    @pytest.mark.parametrize("bounds", [(np.nan, 1.0), (-np.inf, 1.0), (0.0, np.inf), (1.0, -1.0)])
    def test_a_range_that_is_none_is_refused(self, bounds: tuple[float, float]) -> None:
        with pytest.raises(InputError, match=r"the range of active is from .* which is none"):
            quantised(MLP, ranges={**reached(MLP), "active": bounds})

"""FP16 rounded for real on a CPU: beside numpy in FP16, ONNX's own evaluator, and ONNX Runtime, which hides what overflows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.onnx.qdq import Layout, quantized_onnx
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.rounded import rounded_onnx

Array = NDArray[Any]
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
X = np.array([[300, 2049, 65519, -300, 0.1, 1e-7, -3e-8, 2e-8]], np.float32)
KINDS = {np.dtype(np.float32): FLOAT, np.dtype(np.float16): FLOAT16}


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, inputs.split(), output.split(), name=output.split()[0], **attributes)
    made.metadata_props.add(key="module", value=f"module.of.{output.split()[0]}")
    return made


def graph(*nodes: onnx.NodeProto, x: int = FLOAT, y: int = FLOAT, width: int = X.shape[1], **constants: Any) -> onnx.ModelProto:
    """Nodes from ``x`` (1, width) to ``y``; constants that are no arrays are FP32."""
    values = {name: value if isinstance(value, np.ndarray) else np.array(value, np.float32) for name, value in constants.items()}
    initializers = [numpy_helper.from_array(value, name) for name, value in values.items()]
    inputs, outputs = (
        [helper.make_tensor_value_info("x", x, (1, width))],
        [helper.make_tensor_value_info("y", y, None)],
    )
    made = helper.make_graph(list(nodes), "net", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: Array = X, level: str = "ORT_ENABLE_ALL", optimised: Path | None = None, output: str = "y") -> Array:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    settings.log_severity_level = 4
    if optimised is not None:
        settings.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    answer: Array = session.run([output], {"x": x})[0]
    return answer


def by_onnx(model: onnx.ModelProto, x: Array) -> Array:
    """ONNX's own evaluator, which computes in the types that the graph says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy tells of the overflow that is looked for
        outputs: Any = ReferenceEvaluator(model).run(None, {"x": x})
    answer: Array = outputs[0]
    return answer


def halved(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float16)


SCALED = graph(node("Mul", "x large", "grown"), node("Mul", "grown small", "y"), large=300, small=1 / 300)
"""Its middle overflows, its end does not."""


class TestRounding:
    def test_an_overflow_that_onnx_runtime_hides_is_seen(self) -> None:
        typed = float16_onnx(SCALED, {}).model
        assert np.isfinite(run(typed)).all()
        assert run(rounded_onnx(typed)).tolist()[0][:4] == [np.inf, np.inf, np.inf, -np.inf]

    @pytest.mark.parametrize("level", LEVELS)
    def test_onnx_runtime_removes_none_of_the_roundings(self, tmp_path: Path, level: str) -> None:
        model = rounded_onnx(float16_onnx(SCALED, {}).model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = run(model, level=level, optimised=tmp_path / "graph.onnx")
        made = [one.op_type for one in onnx.load(tmp_path / "graph.onnx").graph.node]
        assert made == ["Cast", "Cast", "Mul", "Cast", "Cast", "Mul", "Cast", "Cast"]
        np.testing.assert_array_equal(answer, run(model))

    def test_every_magnitude_is_rounded_as_numpy_rounds_it(self) -> None:
        """Ties, subnormal numbers, what becomes 0, what becomes infinite, infinity and NaN."""
        random = np.random.RandomState(0)
        values = random.standard_normal(20_000) * 10.0 ** random.uniform(-9, 6, 20_000)
        edges = [65504, 65519.99, 65520, -65520, 2.0**-24, 2.0**-25, 2.0**-25 * 1.001, 2048, 2049, 2051, np.inf, -np.inf, np.nan, -0.0]
        x = np.concatenate([values, edges])[None].astype(np.float32)
        model = graph(node("Add", "x zero", "y"), zero=0, width=x.shape[1])
        np.testing.assert_array_equal(run(rounded_onnx(float16_onnx(model, {}).model), x), halved(x).astype(np.float32))

    def test_a_small_addend_is_lost_in_a_large_sum(self) -> None:
        model = graph(node("Add", "x one", "sum"), node("Sub", "sum large", "y"), one=1, large=2048)
        x = np.full_like(X, 2048)
        assert run(rounded_onnx(float16_onnx(model, {}).model), x).tolist() == [[0] * 8]
        assert run(model, x).tolist() == [[1] * 8]

    def test_constants_are_those_of_fp16(self) -> None:
        model = graph(node("Mul", "x third", "y"), third=1 / 3)
        answer = run(rounded_onnx(float16_onnx(model, {}).model))
        np.testing.assert_array_equal(answer, halved(halved(X).astype(np.float32) * np.float32(np.float16(1 / 3))))

    def test_what_stays_fp32_is_not_rounded(self) -> None:
        typed = float16_onnx(SCALED, {"grown": 65519 * 300.0}).model
        np.testing.assert_allclose(run(rounded_onnx(typed))[:, :5], halved(X)[:, :5], rtol=1e-3)

    def test_an_integer_is_rounded_once(self) -> None:
        """2²⁴ + 1 and the like are ties in FP32, and would be rounded again."""
        numbers = np.array([[2049, 2051, 4098 + 2, 33, 65519, 65521, 7, -2049]])
        model = graph(node("Mul", "numbers one", "all"), node("Cast", "all", "half", to=FLOAT16), node("Cast", "half", "y", to=FLOAT))
        model.graph.initializer.extend([numpy_helper.from_array(numbers, "numbers"), numpy_helper.from_array(np.array(1), "one")])
        np.testing.assert_array_equal(run(rounded_onnx(model)), halved(numbers).astype(np.float32))


class TestOperators:
    def test_a_layer_normalisation_rounds_its_end_and_nothing_inside(self) -> None:
        """Squares of 1,000 overflow in FP16; the operator has its mean and variance in FP32, as ONNX's `stash_type` says."""
        weight = np.linspace(0.5, 2, 8, dtype=np.float32)
        model = graph(node("LayerNormalization", "x w b", "y", axis=-1), w=weight, b=np.full(8, 0.1, np.float32))
        x = np.linspace(-1000, 3000, 8, dtype=np.float32)[None]
        inner = halved(x).astype(np.float64)
        normal = (inner - inner.mean()) / np.sqrt(inner.var() + 1e-5)
        expected = normal * halved(weight).astype(np.float64) + float(np.float16(0.1))
        answer = run(rounded_onnx(float16_onnx(model, {}).model), x)
        np.testing.assert_allclose(answer, expected, rtol=2.0**-10)
        np.testing.assert_array_equal(answer, halved(answer))

    def test_the_same_normalisation_step_by_step_overflows(self) -> None:
        steps = graph(
            node("ReduceMean", "x axes", "mean"),
            node("Sub", "x mean", "centred"),
            node("Mul", "centred centred", "squares"),
            node("ReduceMean", "squares axes", "variance"),
            node("Sqrt", "variance", "deviation"),
            node("Div", "centred deviation", "y"),
            axes=np.array([-1]),
        )
        x = np.linspace(-1000, 3000, 8, dtype=np.float32)[None]
        typed = float16_onnx(steps, {}).model
        assert run(rounded_onnx(typed), x).tolist() == [[0] * 8]  # divided by infinity
        np.testing.assert_array_equal(run(rounded_onnx(typed), x), by_onnx(typed, x))

    @pytest.mark.parametrize("seed", range(4))
    def test_elementwise_networks_answer_as_onnx_evaluates_them(self, seed: int) -> None:
        """Operators of one operation: rounding after each is all that there is, so the two agree to the last bit."""
        random = np.random.RandomState(seed)
        names, nodes = ["x"], []
        for index in range(30):
            operator = random.choice(["Add", "Sub", "Mul", "Div", "Max", "Relu", "Neg", "Abs", "Concat", "Transpose"])
            one, other = random.choice(names, 2)
            if operator == "Concat":
                nodes.append(node("Concat", f"{one} {other}", f"pair{index}", axis=0))
                nodes.append(node("ReduceMax", f"pair{index} first", f"t{index}"))
            elif operator == "Transpose":
                nodes.append(node("Transpose", one, f"t{index}_turned", perm=[1, 0]))
                nodes.append(node("Transpose", f"t{index}_turned", f"t{index}", perm=[1, 0]))
            else:
                nodes.append(node(operator, f"{one} {other}" if operator in ("Add", "Sub", "Mul", "Div", "Max") else one, f"t{index}"))
            names.append(f"t{index}")
        model = graph(*nodes, node("Sum", " ".join(names[-3:]), "all"), node("Identity", names[-1], "y"), first=np.array([0]))
        typed = float16_onnx(model, {}).model
        x = (random.standard_normal((1, 8)) * 20).astype(np.float32)
        np.testing.assert_array_equal(run(rounded_onnx(typed), x), by_onnx(typed, x))

    def test_products_answer_as_their_exact_sums_rounded(self) -> None:
        random = np.random.RandomState(0)
        x, w = random.standard_normal((1, 8)).astype(np.float32), random.standard_normal((8, 5)).astype(np.float32)
        answer = run(rounded_onnx(float16_onnx(graph(node("MatMul", "x w", "y"), w=w), {}).model), x)
        expected = halved(x).astype(np.float64) @ halved(w).astype(np.float64)
        np.testing.assert_allclose(answer, expected, rtol=2.0**-10)
        np.testing.assert_array_equal(answer, halved(answer))


class TestIntegers:
    """Q/DQ whose scales are FP16."""

    RANDOM = np.random.RandomState(0)
    W = RANDOM.standard_normal((8, 8)).astype(np.float32)
    MODEL = graph(node("Add", "x zero", "moved"), node("MatMul", "moved w", "y"), w=W, zero=0)
    FEED = RANDOM.standard_normal((1, 8)).astype(np.float32)

    def typed(self) -> onnx.ModelProto:
        ranges = {"x": (-2.5, 2.5), "moved": (-2.5, 2.5)}
        found = quantized_onnx(self.MODEL, ranges, Layout.TENSORRT, least_macs=0)
        return float16_onnx(found.model, {}).model

    def test_values_are_those_of_the_integers_and_the_fp16_scales(self) -> None:
        typed = self.typed()
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in typed.graph.initializer}
        scales = {name: values for name, values in constants.items() if "scale" in name}
        assert {values.dtype for values in scales.values()} == {np.dtype(np.float16)}
        (step,) = (values for values in scales.values() if not values.ndim)
        integers = np.clip(np.rint(halved(self.FEED).astype(np.float32) / np.float32(step)), -127, 127)
        moved = halved(integers * np.float32(step))
        rounded = rounded_onnx(typed)
        (dequantised,) = (one.output[0] for one in typed.graph.node if one.output[0].startswith("moved_deq"))
        tapped = onnx.ModelProto()
        tapped.CopyFrom(rounded)
        tapped.graph.output.append(onnx.ValueInfoProto(name=dequantised))
        np.testing.assert_array_equal(run(tapped, self.FEED, output=dequantised), moved.astype(np.float32))

    def test_onnx_runtime_computes_it_in_every_optimisation_alike(self) -> None:
        rounded = rounded_onnx(self.typed())
        answers = [run(rounded, self.FEED, level) for level in LEVELS]
        for answer in answers[1:]:
            np.testing.assert_allclose(answer, answers[0], rtol=2.0**-10, atol=2.0**-12)
        np.testing.assert_allclose(answers[0], self.FEED @ self.W, atol=0.1)


class TestNames:
    def test_taps_find_every_inner_tensor_and_its_values_are_fp16s(self) -> None:
        typed = float16_onnx(SCALED, {}).model
        taps = tuple(name for one in typed.graph.node for name in one.output if name != "y")
        signature = Signature((TensorSpec("x", X.shape),), (TensorSpec("y", X.shape),))
        (found,) = run_graph(rounded_onnx(typed), signature, [{"x": X}], taps)
        assert set(found) == {"y", *taps}
        np.testing.assert_array_equal(found["grown"], halved(halved(X).astype(np.float32) * 300))
        assert {found[name].dtype for name in taps} == {np.dtype(np.float32)}

    def test_nodes_keep_their_names_and_modules_and_a_rounding_has_its_makers(self) -> None:
        typed = float16_onnx(SCALED, {}).model
        rounded = rounded_onnx(typed)
        found = {one.name: module_of(one) for one in rounded.graph.node}
        assert len(found) == len(rounded.graph.node)
        for one in typed.graph.node:
            assert found[one.name] == module_of(one)
        (rounding,) = (one for one in rounded.graph.node if "grown" in one.output)
        assert (rounding.op_type, module_of(rounding)) == ("Cast", "module.of.grown")

    @pytest.mark.parametrize("kind", [FLOAT, FLOAT16])
    def test_the_ends_keep_their_types(self, kind: int) -> None:
        nodes = (node("Mul", "x large", "y"), node("Relu", "y", "unread"))
        model = graph(*nodes, x=kind, y=kind, large=np.array(300, np.float32 if kind == FLOAT else np.float16))
        rounded = rounded_onnx(model)
        ends = [info.type.tensor_type.elem_type for info in (*rounded.graph.input, *rounded.graph.output)]
        assert ends == [kind, kind]
        x = X if kind == FLOAT else halved(X)
        with np.errstate(over="ignore"):
            expected = x * x.dtype.type(300)
        np.testing.assert_array_equal(run(rounded, x), expected)

    def test_a_name_that_a_rounding_would_take_is_left_to_its_owner(self) -> None:
        model = graph(
            node("Neg", "x", "grown_unrounded"), node("Mul", "grown_unrounded large", "grown"), node("Neg", "grown", "y"), large=3
        )
        typed = float16_onnx(model, {}).model
        np.testing.assert_array_equal(run(rounded_onnx(typed)), by_onnx(typed, X))

    def test_the_graph_given_is_not_touched_and_it_is_the_same_every_time(self) -> None:
        typed = float16_onnx(SCALED, {}).model
        before = typed.SerializeToString(deterministic=True)
        one, other = (rounded_onnx(typed).SerializeToString(deterministic=True) for _ in range(2))
        assert one == other
        assert typed.SerializeToString(deterministic=True) == before

    def test_a_graph_without_fp16_stays_as_it_is(self) -> None:
        assert [one.op_type for one in rounded_onnx(SCALED).graph.node] == ["Mul", "Mul"]


class TestRefusals:
    def test_an_operator_of_which_no_type_is_known(self) -> None:
        model = graph(node("Mystery", "x", "made", domain="mine"), node("Neg", "made", "y"))
        model.opset_import.append(helper.make_opsetid("mine", 1))
        with pytest.raises(InputError, match=r"the type of made, which \w+ reads or makes, cannot be inferred"):
            rounded_onnx(model)

    def test_types_that_contradict_each_other(self) -> None:
        with pytest.raises(InputError, match="types and shapes of the graph cannot be inferred"):
            rounded_onnx(graph(node("Neg", "x", "y"), x=FLOAT16, y=FLOAT))

    def test_a_loop(self) -> None:
        body = helper.make_graph(
            [helper.make_node("Neg", ["x"], ["inside"])], "b", [], [helper.make_tensor_value_info("inside", FLOAT, None)]
        )
        model = graph(node("If", "yes", "y", then_branch=body, else_branch=body), yes=np.array(True))
        with pytest.raises(InputError, match="If y has a graph inside"):
            rounded_onnx(model)

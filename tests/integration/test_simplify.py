"""Simplification as a guarded pass, with onnxsim and with simplifiers that do what none should."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.nodes import Node, NodeMap
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.calibration.feeds import adversarial_feeds, random_feeds
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.modules import module_of
from dtvit_deploy.export.onnx.simplify import LEAST_SQNR, Simplification, simplify_onnx
from dtvit_deploy.runtimes.onnxruntime import run_graph

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

    Simplifier = Callable[[onnx.ModelProto], tuple[onnx.ModelProto, bool]]

SIGNATURE = Signature((TensorSpec("image", (1, 3, 8, 8)),), (TensorSpec("logits", (1, 5)),))
FEEDS: list[Feeds] = [*random_feeds(SIGNATURE, 2), *adversarial_feeds(SIGNATURE).values()]
ENDS = (SIGNATURE.inputs, SIGNATURE.outputs)
RNG = np.random.default_rng(0)
WEIGHTS: dict[str, NDArray[Any]] = {
    "stem.weight": RNG.standard_normal((8, 3, 4, 4)).astype(np.float32),
    "scale": RNG.uniform(0.5, 2, 8).astype(np.float32),
    "bias": RNG.standard_normal(8).astype(np.float32),
    "mean": RNG.standard_normal(8).astype(np.float32),
    "variance": RNG.uniform(0.5, 2, 8).astype(np.float32),
    "head.weight": RNG.standard_normal((8, 5)).astype(np.float32),
    "head.bias": RNG.standard_normal(5).astype(np.float32),
    "shape": np.array([1, 8, 4]),
    "the same shape": np.array([1, 8, 4]),
    "other type": np.array([1, 8, 4], np.int32),
    "axes": np.array([2]),
}
NODES = NodeMap(
    (
        Node("conv", "stem", "aten.conv2d.default", ("image",)),
        Node("norm", "norm", "aten.batch_norm.default", ("conv",)),
        Node("view", "", "aten.view.default", ("norm",)),
        Node("alias", "", "aten.alias.default", ("view",)),
        Node("mean_1", "", "aten.mean.dim", ("alias",)),
        Node("linear", "head", "aten.linear.default", ("mean_1",)),
    ),
    ("linear",),
)


def graph() -> onnx.ModelProto:
    """A convolution, a batch norm to fold into it, a copy to leave out, and a head."""
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["conv"], strides=[4, 4], doc_string="/home/me/net.py"),
        helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "variance"], ["norm"]),
        helper.make_node("Reshape", ["norm", "shape"], ["view"]),
        helper.make_node("Reshape", ["view", "the same shape"], ["alias"]),
        helper.make_node("ReduceMean", ["alias", "axes"], ["mean_1"], keepdims=0),
        helper.make_node("MatMul", ["mean_1", "head.weight"], ["product"]),
        helper.make_node("Add", ["product", "head.bias"], ["logits"]),
    ]
    inputs, outputs = ([helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.shape) for one in ends] for ends in ENDS)
    constants = [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "net", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, feeds: Iterable[Feeds], taps: tuple[str, ...]) -> list[Outputs]:
    return run_graph(model, SIGNATURE, feeds, taps)


def simplified(by: Simplifier | None = None, model: onnx.ModelProto | None = None) -> Simplification:
    return simplify_onnx(model or graph(), NODES, FEEDS, run, by)


def changing(change: Callable[[onnx.ModelProto], object]) -> Simplifier:
    """A simplifier that makes one change."""

    def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        other = onnx.ModelProto()
        other.CopyFrom(model)
        change(other)
        return other, True

    return simplify


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return found


def moving(relative: float) -> Simplifier:
    """A simplifier that moves a weight, and with it the outputs, by about that much of their size."""

    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model, "head.weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1 + relative), tensor.name))

    return changing(change)


class TestKept:
    def test_onnxsims_result_is_kept_and_says_what_it_did(self) -> None:
        found = simplified()
        assert not found.rolled_back
        assert (found.before, found.after) == (5, 3)
        assert [node.op_type for node in found.model.graph.node if node.op_type not in ("Reshape", "Squeeze")] == [
            "Conv",
            "ReduceMean",
            "Gemm",
        ]
        assert found.sqnr >= LEAST_SQNR
        assert found.note.startswith("simplified: 5 → 3 computing nodes, outputs ")
        onnx.checker.check_model(found.model, full_check=True)

    def test_it_answers_as_before(self) -> None:
        for one, other in zip(run(graph(), FEEDS, ()), run(simplified().model, FEEDS, ()), strict=True):
            np.testing.assert_allclose(other["logits"], one["logits"], rtol=1e-5, atol=1e-5)

    def test_the_graph_given_is_not_touched(self) -> None:
        model = graph()
        simplified(model=model)
        assert model == graph()

    def test_a_simplifier_that_finds_nothing_is_kept_too(self) -> None:
        found = simplified(lambda model: (model, True))
        assert (found.rolled_back, found.sqnr) == ("", np.inf)
        assert found.note == "simplified: 5 → 5 computing nodes, outputs identical"

    def test_nodes_name_their_modules_and_nothing_else(self) -> None:
        nodes = simplified().model.graph.node
        assert {node.op_type: module_of(node) for node in nodes if node.op_type in ("Conv", "Gemm")} == {"Conv": "norm", "Gemm": "head"}
        assert not any(node.doc_string for node in nodes)

    def test_a_folded_operators_name_goes_to_nobody_else(self) -> None:
        # onnxsim leaves the convolution's name on what are now the batch norm's values.
        model = simplified().model
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        assert list(conv.output) == ["norm"]
        before, after = run(graph(), FEEDS[:1], ("norm",))[0], run(model, FEEDS[:1], ("norm",))[0]
        np.testing.assert_allclose(after["norm"], before["norm"], rtol=1e-4, atol=1e-4)

    def test_moving_by_a_rounding_error_is_allowed_and_noted(self) -> None:
        found = simplified(moving(1e-6))
        assert not found.rolled_back
        assert "outputs moved at -1" in found.note


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]


class TestNames:
    @pytest.mark.parametrize(
        "names",
        [
            {"norm": "17"},
            {"conv": "norm", "norm": "conv"},
            {"conv": "norm", "norm": "mean_1", "mean_1": "conv"},
            {"view": "0", "mean_1": "1"},
        ],
        ids=["lost", "swapped", "in a circle", "several"],
    )
    def test_a_tensor_gets_back_the_name_that_its_values_had(self, names: dict[str, str]) -> None:
        model = simplified(changing(lambda model: rename(model, names))).model
        assert [list(node.output) for node in model.graph.node] == [list(node.output) for node in graph().graph.node]

    def test_values_that_no_tensor_had_get_a_name_of_their_own(self) -> None:
        def halve(model: onnx.ModelProto) -> None:
            """Half of what is called conv, under its name, and doubled by another node."""
            rename(model, {"conv": "doubled"})
            model.graph.node[0].output[0] = "conv"
            model.graph.node.insert(1, helper.make_node("Mul", ["conv", "two"], ["doubled"]))
            model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
            tensor = weight(model, "stem.weight")
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 2, tensor.name))
            del model.graph.node[-1]  # so that it does not grow
            model.graph.node[-1].CopyFrom(helper.make_node("Gemm", ["mean_1", "head.weight", "head.bias"], ["logits"]))

        found = simplified(changing(halve))
        assert not found.rolled_back
        assert [list(node.output) for node in found.model.graph.node[:3]] == [["conv_changed"], ["conv"], ["norm"]]

    def test_a_tensor_that_only_has_another_shape_keeps_its_name(self) -> None:
        def reshape(model: onnx.ModelProto) -> None:
            tensor = weight(model, "shape")
            tensor.CopyFrom(numpy_helper.from_array(np.array([8, 4]), tensor.name))

        model = simplified(changing(reshape)).model
        assert list(model.graph.node[2].output) == ["view"]
        assert run(model, FEEDS[:1], ("view",))[0]["view"].shape == (8, 4)


class TestRolledBack:
    @pytest.mark.parametrize("relative", [1e-2, 1e-3])
    def test_outputs_that_move_by_a_little(self, relative: float) -> None:
        found = simplified(moving(relative))
        assert found.rolled_back.startswith("outputs moved: ")
        assert found.rolled_back.endswith(f"dB of signal over the change, at least {LEAST_SQNR:.0f} is required")
        assert found.note == f"simplification rolled back: {found.rolled_back}"
        assert found.model == graph()
        assert (found.before, found.after) == (5, 5)

    def test_outputs_that_move_on_one_feed_only(self) -> None:
        def clip(model: onnx.ModelProto) -> None:  # only the saturated feed reaches so far
            model.graph.initializer.append(numpy_helper.from_array(np.float32(2.6), "most"))
            model.graph.node.insert(0, helper.make_node("Clip", ["image", "", "most"], ["clipped"]))
            model.graph.node[1].input[0] = "clipped"
            model.graph.node[6].op_type = "Gemm"
            model.graph.node[6].input.append("head.bias")
            model.graph.node[6].output[0] = "logits"
            del model.graph.node[7]

        found = simplified(changing(clip))
        assert found.rolled_back.startswith("outputs moved: ")

    def test_outputs_that_are_no_numbers(self) -> None:
        def spoil(model: onnx.ModelProto) -> None:
            tensor = weight(model, "head.bias")
            tensor.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), tensor.name))

        assert simplified(changing(spoil)).rolled_back.startswith("outputs moved: -inf dB")

    def test_a_graph_that_grows(self) -> None:
        def grow(model: onnx.ModelProto) -> None:
            model.graph.node[-1].output[0] = "sum"
            model.graph.node.append(helper.make_node("Neg", ["sum"], ["negative"]))
            model.graph.node.append(helper.make_node("Neg", ["negative"], ["logits"]))

        assert simplified(changing(grow)).rolled_back == "the graph grew from 5 to 7 computing nodes"

    def test_one_that_grows_by_views_alone_did_not(self) -> None:
        def view(model: onnx.ModelProto) -> None:
            model.graph.node[-1].output[0] = "sum"
            model.graph.node.append(helper.make_node("Identity", ["sum"], ["logits"]))

        assert not simplified(changing(view)).rolled_back

    @pytest.mark.parametrize("what", ["name", "shape", "type", "input"])
    def test_other_inputs_or_outputs(self, what: str) -> None:
        def change(model: onnx.ModelProto) -> None:
            if what == "name":
                model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"
            elif what == "shape":
                model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
            elif what == "type":
                model.graph.node[-1].output[0] = "wide"
                model.graph.node[-2].op_type = "Identity"  # so that it does not grow
                del model.graph.node[-2].input[1:]
                model.graph.node.append(helper.make_node("Cast", ["wide"], ["logits"], to=TensorProto.DOUBLE))
                model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
            else:
                model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))

        found = simplified(changing(change))
        assert found.rolled_back
        assert found.model == graph()

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (RuntimeError("out of luck\nwith a second line"), "RuntimeError: out of luck"),
            (ValueError(), "ValueError: no message"),
            (MemoryError("std::bad_alloc"), "MemoryError: std::bad_alloc"),
        ],
    )
    def test_a_simplifier_that_fails(self, error: Exception, reason: str) -> None:
        def fail(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
            raise error

        assert simplified(fail).rolled_back == reason

    def test_a_graph_that_is_invalid(self) -> None:
        found = simplified(changing(lambda model: model.graph.node.pop(0)))
        assert found.rolled_back.startswith("ValidationError: ")

    def test_an_interruption_is_no_failure_of_the_simplifier(self) -> None:
        def interrupt(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            simplified(interrupt)


class TestInitializers:
    def test_equal_ones_become_one(self) -> None:
        model = simplified(lambda model: (model, True)).model
        names = [tensor.name for tensor in model.graph.initializer]
        assert "the same shape" not in names
        assert {name for node in model.graph.node for name in node.input if "shape" in name} == {"shape"}

    def test_those_of_another_type_shape_or_value_stay(self) -> None:
        def use(model: onnx.ModelProto) -> None:
            constants = {"zero": np.zeros(5), "zeros": np.zeros((1, 5)), "minus": -np.zeros(5)}
            model.graph.initializer.extend(numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items())

        names = {tensor.name for tensor in simplified(changing(use)).model.graph.initializer}
        assert {"shape", "other type", "zero", "zeros", "minus"} <= names

    def test_one_that_is_an_output_keeps_its_name(self) -> None:
        model = graph()
        model.graph.initializer.append(numpy_helper.from_array(WEIGHTS["head.bias"], "constant"))
        model.graph.output.append(helper.make_tensor_value_info("constant", TensorProto.FLOAT, [5]))
        signature = Signature(SIGNATURE.inputs, (*SIGNATURE.outputs, TensorSpec("constant", (5,))))

        def answer(model: onnx.ModelProto, feeds: Iterable[Feeds], taps: tuple[str, ...]) -> list[Outputs]:
            return run_graph(model, signature, feeds, taps)

        found = simplify_onnx(model, NODES, FEEDS, answer, lambda model: (model, True))
        np.testing.assert_array_equal(answer(found.model, FEEDS[:1], ())[0]["constant"], WEIGHTS["head.bias"])


def test_nothing_to_compare_on_is_refused() -> None:
    with pytest.raises(InputError, match="there are no feeds to compare on"):
        simplify_onnx(graph(), NODES, [], run)


def test_feeds_that_the_network_cannot_take_are_not_the_simplifiers_fault() -> None:
    with pytest.raises(InputError, match="cannot run graph on such feeds"):
        simplify_onnx(graph(), NODES, [{"image": np.zeros((1, 3, 9, 9), np.float32)}], run)

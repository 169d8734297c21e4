"""What an Orin's DLA takes: each limit at its edge, who falls back and why, and how often execution crosses over."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.qdq import Layout, quantized_onnx
from dtvit_deploy.export.tensorrt.dla import Placement, has_dla, lint_dla
from dtvit_deploy.export.tensorrt.lint import Compiler, Severity

ORIN = Compiler("tensorrt", "10.3")
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
IMAGE = (1, 8, 16, 16)
F16 = np.float16


def node(operator: str, inputs: str, output: str, module: str = "m", **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, ["" if name == "-" else name for name in inputs.split()], output.split(), **attributes)
    made.name = output.split()[0]
    made.metadata_props.add(key="module", value=module)
    return made


def graph(*nodes: onnx.NodeProto, x: tuple[Any, ...] = IMAGE, kind: int = FLOAT16, **constants: Any) -> onnx.ModelProto:
    """Nodes from ``x`` to ``y``, in FP16."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = helper.make_tensor_value_info("x", kind, x), helper.make_tensor_value_info("y", kind, None)
    model = helper.make_model(
        helper.make_graph(list(nodes), "net", [ends[0]], [ends[1]], values), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def kernel(*shape: int) -> Any:
    return np.ones(shape, F16)


def convolution(size: int = 3, **attributes: Any) -> onnx.ModelProto:
    return graph(node("Conv", "x w", "y", **attributes), x=(1, 8, 64, 64), w=kernel(4, 8, size, size))


def pooling(operator: str = "MaxPool", size: int = 2, **attributes: Any) -> onnx.ModelProto:
    return graph(node(operator, "x", "y", kernel_shape=[size, size], **attributes))


def one(operator: str, inputs: str = "x", *, x: tuple[Any, ...] = IMAGE, attributes: Any = None, **constants: Any) -> onnx.ModelProto:
    return graph(node(operator, inputs, "y", **(attributes or {})), x=x, **constants)


def scales(*values: float) -> Any:
    return np.array(values, np.float32)


def nearest(*values: float, **attributes: Any) -> onnx.ModelProto:
    chosen = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} | attributes
    return one("Resize", "x - s", attributes=chosen, s=scales(*values))


TAKEN = {
    "a convolution": convolution(),
    "the largest kernel": convolution(32),
    "the longest stride": convolution(3, strides=[8, 8]),
    "padding below the kernel": convolution(3, pads=[2, 2, 2, 2]),
    "dilation": convolution(2, dilations=[32, 32]),
    "depth-wise": graph(node("Conv", "x w", "y", group=8), w=kernel(8, 1, 3, 3)),
    "a deconvolution": one("ConvTranspose", "x w", attributes={"strides": [2, 2]}, w=kernel(8, 4, 2, 2)),
    "the largest pooling": pooling(size=8, strides=[8, 8]),
    "an average of all": pooling("AveragePool"),
    "padding that is counted": pooling("AveragePool", 3, pads=[1, 1, 1, 1], count_include_pad=1),
    "ReLU": one("Relu"),
    "sigmoid": one("Sigmoid"),
    "leaky ReLU": one("LeakyRelu"),
    "ReLU6": one("Clip", "x low high", low=F16(0), high=F16(6)),
    "a learnt slope": one("PRelu", "x s", s=kernel(1, 8, 1, 1)),
    "magnitude": one("Abs"),
    "a sum": one("Add", "x x"),
    "a difference to a constant": one("Sub", "x k", k=kernel(1, 8, 1, 1)),
    "batch normalisation": one("BatchNormalization", "x a a a a", a=kernel(8)),
    "channels put together": one("Concat", "x x", attributes={"axis": 1}),
    "twice the size": nearest(1, 1, 2, 2),
    "four times the size, linear": nearest(1, 1, 4, 4, mode="linear", coordinate_transformation_mode="half_pixel"),
    "a part of the channels": one("Slice", "x a b a", a=np.array([1]), b=np.array([4])),
    "halves": graph(node("Split", "x", "y z", axis=1, num_outputs=2)),
    "softmax of channels": one("Softmax", attributes={"axis": 1}),
    "softmax of 8192 alone": one("Softmax", attributes={"axis": 1}, x=(1, 8192, 1, 1)),
    "channels last": one("Transpose", attributes={"perm": [0, 2, 3, 1]}),
    "another shape of one image": one("Reshape", "x s", s=np.array([1, 2, 32, 32])),
    "the largest batch": one("Relu", x=(4096, 1, 1, 1)),
}
LEFT = {
    "a kernel too large": (convolution(33), "kernels to 32"),
    "a stride too long": (convolution(3, strides=[9, 9]), "strides to 8"),
    "padding as wide as the kernel": (convolution(3, pads=[3, 3, 3, 3]), "less than the kernel"),
    "a convolution along a line": (graph(node("Conv", "x w", "y"), x=(1, 8, 64), w=kernel(4, 8, 3)), "not images"),
    "a kernel that is computed": (graph(node("Relu", "x", "w"), node("Conv", "x w", "y"), x=(8, 8, 3, 3)), "constant kernels"),
    "a padded deconvolution": (one("ConvTranspose", "x w", attributes={"pads": [1] * 4}, w=kernel(8, 4, 3, 3)), "no padding"),
    "a grouped deconvolution": (one("ConvTranspose", "x w", attributes={"group": 2}, w=kernel(8, 4, 2, 2)), "no groups"),
    "a large pooling": (pooling(size=9), "windows to 8"),
    "padding that is not counted": (pooling("AveragePool", 3, pads=[1, 1, 1, 1]), "that is counted"),
    "the mean of an image": (one("GlobalAveragePool"), "no such layer"),
    "a mean": (one("ReduceMean", "x a", a=np.array([2, 3])), "no such layer"),
    "GELU": (one("Gelu"), "no such layer"),
    "layer normalisation": (one("LayerNormalization", "x w", w=kernel(16)), "no such layer"),
    "an exponential": (one("Exp"), "no such layer"),
    "a limit below 1": (one("Clip", "x low high", low=F16(0), high=F16(0.5)), "between 1 and 127"),
    "no lower limit": (one("Clip", "x - high", high=F16(6)), "between 1 and 127"),
    "a sum that is broadcast": (graph(node("MaxPool", "x", "p", kernel_shape=[16, 16]), node("Add", "x p", "y")), "one shape"),
    "images side by side": (one("Concat", "x x", attributes={"axis": 3}), "along the channels"),
    "one and a half times the size": (nearest(1, 1, 1.5, 1.5), "whole scales"),
    "five times the size, linear": (nearest(1, 1, 5, 5, mode="linear", coordinate_transformation_mode="half_pixel"), "4 linear"),
    "another rounding": (nearest(1, 1, 2, 2, nearest_mode="ceil"), "whole scales"),
    "a part of the batch": (one("Slice", "x a b a", x=(4, 8, 4, 4), a=np.array([0]), b=np.array([2])), "not along the batch"),
    "every other column": (one("Slice", "x a b c d", a=np.array([0]), b=np.array([16]), c=np.array([3]), d=np.array([2])), "without steps"),
    "softmax of the batch": (one("Softmax", attributes={"axis": 0}), "not the batch"),
    "softmax of more than 1024": (one("Softmax", attributes={"axis": 1}, x=(1, 1025, 2, 1)), "at most 1024"),
    "the batch moved": (one("Transpose", attributes={"perm": [1, 0, 2, 3]}), "batch stays where"),
    "the batch split": (one("Reshape", "x s", s=np.array([2, 4, 16, 16])), "batch stays as"),
    "tokens": (one("Relu", x=(1, 64, 8)), "not images"),
    "a batch too large": (one("Relu", x=(4097, 1, 1, 1)), "above 4096"),
    "an image too wide": (one("Relu", x=(1, 1, 1, 8193)), "above 8192"),
    "a batch of any size": (one("Relu", x=("n", 8, 4, 4)), "not fixed"),
    "FP32": (graph(node("Relu", "x", "y"), kind=FLOAT), "FP32"),
}  # fmt: skip


@pytest.mark.parametrize("model", TAKEN.values(), ids=TAKEN)
def test_taken(model: onnx.ModelProto) -> None:
    found = lint_dla(model, ORIN)
    assert (found.dla, found.fallbacks) == (("y",), ())
    assert (found.crossings, found.loadables, found.findings) == (2, 1, ())


@pytest.mark.parametrize(("model", "reason"), LEFT.values(), ids=LEFT)
def test_left_to_the_gpu(model: onnx.ModelProto, reason: str) -> None:
    found = lint_dla(model, ORIN)
    assert "y" not in found.dla
    assert reason in found.fallbacks[-1].reason
    assert found.fallbacks[-1].modules == ("m",)
    assert all(finding.severity is Severity.WARNING and finding.remedy for finding in found.findings)


def test_products_of_matrices_are_no_convolutions() -> None:
    """TensorRT 8 made fully connected layers of them, which a DLA has; 10 has none."""
    model = graph(node("MatMul", "x w", "p", "attention"), node("Relu", "p", "y", "act"), w=kernel(16, 16))
    found = lint_dla(model, ORIN)
    assert found.dla == ("y",)
    assert "matrix multiplication" in found.fallbacks[0].reason


def test_a_product_in_int8_falls_back_with_its_conversions() -> None:
    plain = graph(node("Conv", "x w", "y", "stem"), kind=FLOAT, w=np.ones((4, 8, 3, 3), np.float32))
    model = quantized_onnx(plain, {"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, Layout.TENSORRT, least_macs=0).model
    found = lint_dla(model, ORIN)
    assert found.dla == ()
    assert [(one.operators, one.nodes) for one in found.fallbacks] == [(("Conv", "DequantizeLinear", "QuantizeLinear"), 3)]
    assert "explicit quantisation" in found.fallbacks[0].reason  # its weights' conversion is folded: three nodes, not four


class TestNewerReleases:
    @pytest.mark.parametrize(
        ("library", "version", "has"),
        [
            ("tensorrt", "10.0", True),
            ("tensorrt", "10.7", True),
            ("tensorrt", "10.8", False),
            ("tensorrt", "11.3", False),
            ("tensorrt", "11.4", False),
            ("tensorrt", "11.4.1", True),
            ("tensorrt-rtx", "1.7.1", False),
        ],
    )
    def test_which_have_a_dla(self, library: str, version: str, has: bool) -> None:
        compiler = Compiler(library, version)
        assert has_dla(compiler) is has
        assert [one.severity for one in lint_dla(TAKEN["ReLU"], compiler).findings] == ([] if has else [Severity.ERROR])

    def test_quotients_came_later(self) -> None:
        model = one("Div", "x x")
        assert (lint_dla(model, ORIN).dla, lint_dla(model, Compiler("tensorrt", "11.4.1")).dla) == ((), ("y",))

    def test_no_compiler(self) -> None:
        with pytest.raises(InputError, match="no compiler"):
            lint_dla(TAKEN["ReLU"], Compiler("tvm", "1"))


class TestCrossings:
    def chain(self, *operators: str) -> Placement:
        nodes = [
            node(operator, "x" if not index else f"t{index}", f"t{index + 1}", f"b.{index}") for index, operator in enumerate(operators)
        ]
        return lint_dla(graph(*nodes, node("Identity", f"t{len(operators)}", "y", "")), ORIN)

    def test_to_and_fro(self) -> None:
        found = self.chain("Relu", "Gelu", "Relu", "Relu", "Gelu", "Relu")
        assert (found.crossings, found.loadables) == (6, 3)
        assert len(found.dla) == 4
        assert found.findings[0].message.startswith("execution would cross between GPU and DLA 6 times, for 0.0% of")

    def test_neighbours_are_one_piece(self) -> None:
        found = self.chain("Relu", "Sigmoid", "Tanh")
        assert (found.crossings, found.loadables) == (2, 1)

    def test_branches_go_over_together(self) -> None:
        """Two pieces on the DLA, and the GPU's branch waits for neither: over once and back once."""
        model = graph(
            node("Relu", "x", "a"), node("Gelu", "x", "b"), node("Sigmoid", "x", "c"), node("Sum", "a b c", "s"), node("Erf", "s", "y")
        )
        found = lint_dla(model, ORIN)
        assert found.dla == ("a", "c", "s")
        assert (found.crossings, found.loadables) == (2, 1)
        apart = lint_dla(graph(node("Relu", "x", "a"), node("Sigmoid", "x", "c"), node("Concat", "a c", "y", axis=2)), ORIN)
        assert (apart.crossings, apart.loadables) == (2, 2)

    def test_more_pieces_than_a_core_holds(self) -> None:
        found = self.chain(*["Relu", "Gelu"] * 17)
        assert found.loadables == 17
        assert any("17 pieces, and a core holds 16" in one.message for one in found.findings)

    def test_nothing_to_take(self) -> None:
        found = self.chain("Gelu", "Gelu")
        assert (found.crossings, found.loadables, found.share) == (0, 0, 0.0)
        assert found.findings[0].message == "the DLA would take nothing of this network"

    def test_what_follows_from_constants_is_not_counted(self) -> None:
        model = graph(node("Gelu", "k", "f", "mask"), node("Mul", "x f", "y", "block"), k=kernel(*IMAGE))
        found = lint_dla(model, ORIN)
        assert len(found.dla) + sum(one.nodes for one in found.fallbacks) == 1

    def test_a_graph_with_a_cycle_ends(self) -> None:
        broken = onnx.ModelProto()
        broken.graph.node.extend([node("Relu", "b", "a"), node("Relu", "a", "b")])
        assert lint_dla(broken, ORIN).dla == ()


def test_the_share_of_the_work_and_who_is_left() -> None:
    """A convolutional stem of 8×4×3×3 at 14×14, then tokens of 4 channels times 4×2."""
    model = graph(
        node("Conv", "x k", "c", "stem"),
        node("Reshape", "c s", "r", "tokens"),
        node("Transpose", "r", "t", "tokens", perm=[0, 2, 1]),
        node("MatMul", "t w", "y", "head"),
        k=kernel(4, 8, 3, 3), s=np.array([1, 4, 196]), w=kernel(4, 2),
    )  # fmt: skip
    found = lint_dla(model, ORIN)
    conv, head = 4 * 14 * 14 * 8 * 9, 196 * 2 * 4
    assert (found.dla, found.dla_macs, found.macs) == (("c",), conv, conv + head)
    assert found.share == conv / (conv + head)
    assert {one.modules for one in found.fallbacks} == {("tokens",), ("head",)}


def test_a_single_precision_graph_is_told_to_be_fp16_first() -> None:
    """Converted, its convolution goes over; the casts at both ends do not."""
    plain = graph(node("Conv", "x w", "c", "stem"), node("Relu", "c", "y", "act"), kind=FLOAT, w=np.ones((4, 8, 3, 3), np.float32))
    assert [one.remedy for one in lint_dla(plain, ORIN).findings] == ["export with --precision fp16"] * 2
    found = lint_dla(float16_onnx(plain, {}).model, ORIN)
    assert (len(found.dla), {one.operators for one in found.fallbacks}) == (2, {("Cast",)})
    assert found.share == 1.0

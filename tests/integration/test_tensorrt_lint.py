"""The linter says before NVIDIA's parser what it would refuse, and where: each error is put to the real parser of TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.errors import InputError
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.qdq import Layout, quantized_onnx
from dtvit_deploy.export.tensorrt.lint import Compiler, Finding, ParserMessage, Severity, blame, lines, lint
from dtvit_deploy.export.tensorrt.operators import missing_operator, newest_opset
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import program_stage
from dtvit_deploy.pipeline.stages import GuardFeeds, load_onnx
from dtvit_deploy.runtimes.onnxruntime import magnitudes

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds

RTX, V10, V11 = Compiler("tensorrt-rtx", "1.7.1"), Compiler("tensorrt", "10.3"), Compiler("tensorrt", "11")
COMPILERS = pytest.mark.parametrize("compiler", [V10, V11, RTX], ids=str)
FLOAT, FLOAT16, INT32, INT64, UINT8, BOOL = (getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT32", "INT64", "UINT8", "BOOL"))
Array = NDArray[Any]
F32, F16, I8, U8 = np.float32, np.float16, np.int8, np.uint8
IMAGE = (1, 8, 6, 6)
W = np.ones((8, 4), I8)
STEP, STEPS = F32(0.1), np.full(4, 0.1, F32)


def node(operator: str, inputs: str, output: str, module: str = "block.fc", **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(operator, ["" if name == "-" else name for name in inputs.split()], output.split(), **attributes)
    made.name = f"node_of_{output.split()[0]}"
    made.metadata_props.add(key="module", value=module)
    return made


def graph(
    *nodes: onnx.NodeProto, x: tuple[Any, ...] = (2, 8), kind: int = FLOAT, y: int = FLOAT, opset: int = 20, **constants: Any
) -> onnx.ModelProto:
    """Nodes from ``x`` to ``y``, as they are: nothing is checked."""
    ends = helper.make_tensor_value_info("x", kind, x), helper.make_tensor_value_info("y", y, None)
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(list(nodes), "net", [ends[0]], [ends[1]], values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def quantising(zero_point: Any = None, scale: Any = STEP, **options: Any) -> onnx.ModelProto:
    third = "" if zero_point is None else " z"
    constants = {"s": scale} | ({} if zero_point is None else {"z": zero_point})
    return graph(node("QuantizeLinear", f"x s{third}", "q"), node("DequantizeLinear", f"q s{third}", "y"), **constants, **options)


def weighted(weights: Array, scales: Array, axis: int = 1, **options: Any) -> onnx.ModelProto:
    zeros = np.zeros(scales.shape, weights.dtype)
    read = node("DequantizeLinear", "w s z", "d", axis=axis), node("MatMul", "x d", "y")
    return graph(*read, w=weights, s=scales, z=zeros, **options)


def products(operator: str, weights: Array, axis: int, x: tuple[int, ...] = (2, 8), **attributes: Any) -> onnx.ModelProto:
    """A product with weights that have a scale along an axis."""
    count = weights.shape[axis]
    read = node("DequantizeLinear", "w s z", "d", axis=axis), node(operator, "x d", "y", **attributes)
    return graph(*read, x=x, w=weights, s=np.full(count, 0.1, F32), z=np.zeros(count, I8))


def halved(*nodes: onnx.NodeProto, **options: Any) -> onnx.ModelProto:
    """``h`` is ``x`` in FP16."""
    return graph(node("Cast", "x", "h", "", to=FLOAT16), *nodes, **options)


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="the extra `trt-rtx` is not installed")


Parse = Callable[[onnx.ModelProto], list[ParserMessage]]


@pytest.fixture(scope="module")
def parse(trt: Any) -> Parse:
    """What the real parser has against a graph."""

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module declares no types
        def log(self, severity: Any, message: str) -> None:
            pass

    def parsed(model: onnx.ModelProto) -> list[ParserMessage]:
        logger = Quiet()
        builder = trt.Builder(logger)
        network = builder.create_network()
        parser = trt.OnnxParser(network, logger)
        if parser.parse(model.SerializeToString()):
            return []
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        return [ParserMessage(one.code().name, one.desc(), one.node(), one.node_name(), one.node_operator()) for one in errors]

    return parsed


def errors(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.rule, finding.module) for finding in findings if finding.severity is Severity.ERROR]


def warnings(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.rule, finding.module) for finding in findings if finding.severity is Severity.WARNING]


REFUSED = {
    "an operator that no release has": ("operator", graph(node("Det", "x", "y"), x=(3, 3))),
    "an operator of nobody": ("operator", graph(node("Foo", "x", "y", domain="my.own"))),
    "a second result of a pooling": ("operator", graph(node("MaxPool", "x", "y i", kernel_shape=[2, 2]), x=IMAGE)),
    "further results of a normalisation": ("operator", graph(node("LayerNormalization", "x w", "y m v"), w=np.ones(8, F32))),
    "pooling with dilation": ("operator", graph(node("AveragePool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2]), x=IMAGE)),
    "batch statistics": (
        "operator",
        graph(node("BatchNormalization", "x a a a a", "y m v", training_mode=1), x=IMAGE, a=np.ones(8, F32)),
    ),
    "antialiasing": (
        "operator",
        graph(node("Resize", "x - s", "y", mode="linear", antialias=1), x=IMAGE, s=np.array([1, 1, 2, 2], F32)),
    ),
    "keeping an aspect ratio": (
        "operator",
        graph(
            node("Resize", "x - - s", "y", mode="linear", keep_aspect_ratio_policy="not_larger", axes=[2, 3]), x=IMAGE, s=np.array([9, 9])
        ),
    ),
    "pixels placed symmetrically": (
        "operator",
        graph(
            node("Resize", "x - s", "y", mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
            x=IMAGE,
            s=np.array([1, 1, 0.7, 0.7], F32),
        ),
    ),
    "pixels of a region": (
        "operator",
        graph(
            node("Resize", "x r s", "y", mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
            x=IMAGE,
            r=np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], F32),
            s=np.array([1, 1, 2, 2], F32),
        ),
    ),
    "dropping while inferring": ("operator", graph(node("Dropout", "x p t", "y"), p=F32(0.5), t=np.array(True))),
    "scattering sums": ("operator", graph(node("ScatterND", "x i u", "y", reduction="add"), i=np.array([[0]]), u=np.ones((1, 8), F32))),
    "a sequence": ("operator", graph(node("SplitToSequence", "x", "s", axis=0), node("SequenceAt", "s i", "y"), i=np.array(0))),
    "an INT32 bias": (
        "int32-bias",
        graph(node("DequantizeLinear", "b s", "d", axis=0), node("Add", "x d", "y"), x=(2, 4), b=np.arange(4, dtype=np.int32), s=STEPS),
    ),
    "INT32 that is computed": ("int32-bias", graph(node("DequantizeLinear", "x s", "y"), kind=INT32, s=STEP)),
    "a zero point": ("zero-point", quantising(I8(3))),
    "a UINT8 zero point": ("zero-point", quantising(U8(128))),
    "UINT8 weights": ("zero-point", weighted(W.astype(U8), STEPS)),
    "the scale 0": ("scale", quantising(I8(0), F32(0))),
    "a negative scale": ("scale", weighted(W, -STEPS)),
    "a scale that is no number": ("scale", quantising(I8(0), F32(np.nan))),
    "too few scales": ("scale", weighted(W, STEPS[:3])),
    "scales along no axis": ("scale", weighted(W, STEPS, axis=5)),
    "a sum of FP16 and FP32": ("mixed", halved(node("Add", "x h", "y"))),
    "FP16 times FP32": ("mixed", halved(node("MatMul", "h w", "y"), w=np.ones((8, 4), F32))),
    "FP16 with an FP32 bias": ("mixed", halved(node("Gemm", "h w b", "y"), w=np.ones((8, 4), F16), b=np.ones(4, F32))),
    "a mixed convolution": ("mixed", halved(node("Conv", "h w b", "y"), x=IMAGE, w=np.ones((4, 8, 3, 3), F16), b=np.ones(4, F32))),
    "a mixed normalisation": ("mixed", halved(node("LayerNormalization", "h w", "y"), w=np.ones(8, F32))),
    "a mixed choice": ("mixed", halved(node("Cast", "x", "c", to=BOOL), node("Where", "c h x", "y"))),
    "a mixed concatenation": ("mixed", halved(node("Concat", "h x", "y", axis=0))),
    "FP16 times FP32 from INT8": (
        "mixed",
        halved(node("DequantizeLinear", "w s", "d", axis=1), node("MatMul", "h d", "y"), w=W, s=STEPS),
    ),
    "INT16": ("type", graph(node("Cast", "x", "i", to=TensorProto.INT16), node("Cast", "i", "y", to=FLOAT))),
    "an INT16 constant": ("type", graph(node("Cast", "k", "c", to=FLOAT), node("Add", "x c", "y"), k=np.ones(8, np.int16))),
    "text": ("type", graph(node("Identity", "x", "y"), kind=TensorProto.STRING, y=TensorProto.STRING)),
    "UINT8 within": ("type", graph(node("Cast", "x", "u", to=UINT8), node("Cast", "u", "y", to=FLOAT))),
    "a sum of UINT8": ("type", graph(node("Add", "x x", "y"), kind=UINT8, y=UINT8)),
    "an integer product": ("type", graph(node("MatMul", "x w", "y"), kind=INT32, y=INT32, w=np.ones((8, 4), np.int32))),
    "the error function of integers": ("type", graph(node("Erf", "x", "y"), kind=INT64, y=INT64)),
}


HERE_ACCEPTED = {
    "zero point 0 of UINT8": ("zero-point", quantising(U8(0))),
    "a scale for each channel of an activation": ("scale", quantising(np.zeros(8, I8), np.full(8, 0.1, F32))),
    "a scale that is computed": (
        "scale",
        graph(
            node("ReduceMax", "x", "s", keepdims=0), node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y"), z=I8(0)
        ),
    ),
    "an FP16 scale of FP32": ("scale", quantising(I8(0), F16(0.1), y=FLOAT16)),
    "UINT8 by default": ("zero-point", quantising()),
    "scales of a product's input channels": ("scale", weighted(W, np.full(8, 0.1, F32), axis=0)),
    "… of a quantised one": (
        "scale",
        graph(
            node("QuantizeLinear", "w s z", "q", axis=0),
            node("DequantizeLinear", "q s z", "d", axis=0),
            node("MatMul", "x d", "y"),
            w=np.ones((8, 4), F32),
            s=np.full(8, 0.1, F32),
            z=np.zeros(8, I8),
        ),
    ),
    "… of a Gemm": ("scale", products("Gemm", W, axis=0)),
    "… of a Gemm that turns its weights": ("scale", products("Gemm", W.T.copy(), axis=1, transB=1)),
    "… of weights that are turned": (
        "scale",
        graph(
            node("DequantizeLinear", "w s z", "d", axis=1),
            node("Transpose", "d", "t", perm=[1, 0]),
            node("MatMul", "x t", "y"),
            w=W.T.copy(),
            s=np.full(8, 0.1, F32),
            z=np.zeros(8, I8),
        ),
    ),
    "… of a convolution": ("scale", products("Conv", np.ones((4, 8, 1, 1), I8), axis=1, x=IMAGE)),
    "… of a transposed convolution": ("scale", products("ConvTranspose", np.ones((8, 4, 1, 1), I8), axis=0, x=IMAGE)),
}
"""Forbidden by the documents of TensorRT 10 and 11, and taken by the parser of TensorRT-RTX that is here."""


class TestErrors:
    @pytest.mark.parametrize(("rule", "model"), REFUSED.values(), ids=REFUSED)
    def test_what_the_linter_calls_an_error_the_parser_refuses(self, rule: str, model: onnx.ModelProto, parse: Parse) -> None:
        for compiler in (V10, V11, RTX):
            found = lint(model, compiler)
            assert (rule, "block.fc") in errors(found)
            assert all(finding.remedy and finding.node.startswith("node_of_") for finding in found)
        assert parse(model)

    @pytest.mark.parametrize(("rule", "model"), REFUSED.values(), ids=REFUSED)
    def test_and_its_refusal_is_brought_home(self, rule: str, model: onnx.ModelProto, parse: Parse) -> None:
        """To the module, and, where the parser names the node that is the cause, with the linter's remedy."""
        first = blame(model, parse(model), RTX)[0]
        assert first.severity is Severity.ERROR
        if first.rule == "parser":  # it says only which constant or input it was
            assert rule == "type"
        else:
            assert (first.rule, first.module) == (rule, "block.fc")
            assert first.remedy in [finding.remedy for finding in lint(model, RTX)]
        assert "cudaError" not in first.message

    @pytest.mark.parametrize(("rule", "model"), HERE_ACCEPTED.values(), ids=HERE_ACCEPTED)
    def test_what_the_documents_forbid_is_an_error_for_tensorrt_although_rtx_takes_it(
        self, rule: str, model: onnx.ModelProto, parse: Parse
    ) -> None:
        for release in ("10.0", "10.3", "10.15", "11", "11.4"):
            found = lint(model, Compiler("tensorrt", release))
            assert set(errors(found)) == {(rule, "block.fc")}
            assert all(finding.source.startswith("TensorRT 10 and 11: ") for finding in found)
        assert errors(lint(model, RTX)) == []
        assert set(warnings(lint(model, RTX))) == {(rule, "block.fc")}
        assert parse(model) == []

    @pytest.mark.parametrize(
        "model",
        [
            weighted(W, STEPS),
            products("Gemm", W, axis=1),
            products("Gemm", W.T.copy(), axis=0, transB=1),
            products("Conv", np.ones((4, 8, 1, 1), I8), axis=0, x=IMAGE),
            products("ConvTranspose", np.ones((8, 4, 1, 1), I8), axis=1, x=IMAGE),
            graph(
                node("DequantizeLinear", "w s z", "d", axis=0), node("Transpose", "d", "t"), node("MatMul", "x t", "y"),
                w=W.T.copy(), s=STEPS, z=np.zeros(4, I8),
            ),
        ],
        ids=["MatMul", "Gemm", "Gemm that turns", "Conv", "ConvTranspose", "a transpose before"],
    )  # fmt: skip
    def test_scales_of_output_channels_are_as_they_should_be(self, model: onnx.ModelProto, parse: Parse) -> None:
        assert [lint(model, compiler) for compiler in (V10, V11, RTX)] == [(), (), ()]
        assert parse(model) == []

    @pytest.mark.parametrize(
        ("model", "release"),
        [
            (graph(node("GroupNormalization", "x a a", "y", num_groups=2), x=IMAGE, a=np.ones(8, F32), opset=21), "10.9"),
            (graph(node("Pow", "x two", "y"), two=np.array(2)), "10.8"),
            (graph(node("Swish", "x", "y"), opset=24), "11"),
            (graph(node("RMSNormalization", "x w", "y"), w=np.ones(8, F32), opset=23), "10.15"),
        ],
        ids=["group normalisation of opset 21", "an integer exponent", "Swish", "RMS normalisation"],
    )
    def test_what_a_later_release_learnt(self, model: onnx.ModelProto, release: str, parse: Parse) -> None:
        assert [module for _, module in errors(lint(model, V10))] == ["block.fc"]
        assert errors(lint(model, Compiler("tensorrt", release))) == []
        assert errors(lint(model, RTX)) == []
        assert parse(model) == []

    @pytest.mark.parametrize("size", [("batch", 8), (None, 8), None])
    def test_an_input_without_fixed_sizes_is_refused_by_the_builder(self, size: Any, trt: Any, parse: Parse) -> None:
        """The parser takes it, and waits for an optimisation profile, which this project does not make."""
        model = graph(node("Relu", "x", "y", "act"), x=size)
        assert errors(lint(model, RTX)) == errors(lint(model, V10)) == [("dynamic-shape", "act")]
        assert parse(model) == []
        if size is not None:
            builder = trt.Builder(logger := trt.Logger(trt.Logger.INTERNAL_ERROR))
            network = builder.create_network()
            parser = trt.OnnxParser(network, logger)
            assert parser.parse(model.SerializeToString())
            assert builder.build_serialized_network(network, builder.create_builder_config()) is None

    def test_the_table_of_operators_is_the_parsers_own(self, trt: Any) -> None:
        builder = trt.Builder(logger := trt.Logger(trt.Logger.INTERNAL_ERROR))
        network = builder.create_network()
        parser = trt.OnnxParser(network, logger)
        names = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
        supported = {name for name in names if not missing_operator(helper.make_node(name, [], []), RTX)}
        assert supported == {name for name in names if parser.supports_operator(name)}
        assert len(supported) > 130


RNG = np.random.default_rng(0)
SMALL = graph(
    node("Gemm", "x w1 b1", "hidden", "blocks.0.fc1"),
    node("Gelu", "hidden", "active", "blocks.0"),
    node("Gemm", "active w2 b2", "y", "blocks.0.fc2"),
    w1=RNG.normal(size=(8, 16)).astype(F32), b1=RNG.normal(size=16).astype(F32),
    w2=RNG.normal(size=(16, 4)).astype(F32), b2=RNG.normal(size=4).astype(F32),
)  # fmt: skip
RANGES = {"x": (-1.0, 3.0), "hidden": (-9.0, 9.0), "active": (-0.2, 9.0), "y": (-30.0, 30.0)}


def int8(layout: Layout) -> onnx.ModelProto:
    return quantized_onnx(SMALL, RANGES, layout, least_macs=0).model


def asymmetric() -> onnx.ModelProto:
    model = int8(Layout.TENSORRT)
    for tensor in model.graph.initializer:
        if tensor.name == "active_zero_point":
            tensor.CopyFrom(numpy_helper.from_array(I8(-100), tensor.name))
    return model


def sampled(opset: int = 20, **attributes: Any) -> onnx.ModelProto:
    return graph(node("GridSample", "x g", "y", "warp", **attributes), x=IMAGE, opset=opset, g=np.zeros((1, 4, 4, 2), F32))


class TestSpellings:
    """What opset 20 calls linear and opset 16 bilinear."""

    @pytest.mark.parametrize("mode", ["linear", "cubic"])
    @pytest.mark.parametrize("compiler", [("tensorrt", "10.0"), ("tensorrt", "10.13.3"), ("tensorrt", "11.1"), ("tensorrt-rtx", "1.5")])
    def test_a_word_that_the_parser_takes_for_nearest_is_an_error_with_the_reports(self, mode: str, compiler: tuple[str, str]) -> None:
        (found,) = lint(sampled(mode=mode), Compiler(*compiler))
        assert (found.rule, found.severity, found.module) == ("spelling", Severity.ERROR, "warp")
        assert f"GridSample's mode '{mode}', as opset 20 spells it, is taken for 'nearest' without a word" in found.message
        assert "https://github.com/NVIDIA/TensorRT/issues/4646" in lines([found])[0]
        assert "leave the mode out" in found.remedy

    def test_a_later_release_may_have_learnt_it_and_nobody_knows(self) -> None:
        (found,) = lint(sampled(mode="linear"), Compiler("tensorrt", "11.4"))
        assert found.severity is Severity.WARNING
        assert "TensorRT 11.4 is not known to read it" in found.message

    @pytest.mark.parametrize(
        "model",
        [sampled(), sampled(mode="nearest"), sampled(16, mode="bilinear"), sampled(16, mode="bicubic"), sampled(19)],
        ids=["the default", "nearest", "bilinear", "bicubic", "the older default"],
    )
    def test_other_words_and_no_word_are_read_as_meant(self, model: onnx.ModelProto) -> None:
        assert [lint(model, Compiler("tensorrt", release)) for release in ("10.3", "11.1", "11.4")] == [(), (), ()]

    @pytest.mark.parametrize("mode", ["linear", "cubic", None])
    def test_the_rtx_that_is_here_reads_them(self, mode: str | None, trt: Any, parse: Parse) -> None:
        model = sampled() if mode is None else sampled(mode=mode)
        assert lint(model, RTX) == ()
        assert parse(model) == []
        logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
        network = trt.Builder(logger).create_network()
        assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
        (layer,) = (one for one in map(network.get_layer, range(network.num_layers)) if one.type == trt.LayerType.GRID_SAMPLE)
        layer.__class__ = trt.IGridSampleLayer
        assert layer.interpolation_mode == (trt.InterpolationMode.CUBIC if mode == "cubic" else trt.InterpolationMode.LINEAR)

    def test_this_projects_exporter_leaves_the_default_out(self, tmp_path: Path) -> None:
        made = exported(tmp_path, align_corners=False)
        assert {attribute.name for one in made.graph.node if one.op_type == "GridSample" for attribute in one.attribute} >= {"padding_mode"}
        assert [lint(made, compiler) for compiler in (V10, V11, RTX)] == [(), (), ()]

    def test_and_says_what_is_no_default(self, tmp_path: Path) -> None:
        (found,) = lint(exported(tmp_path, align_corners=False, mode="bicubic"), V10)
        assert (found.rule, found.module) == ("spelling", "(the network itself)")


def exported(folder: Path, **how: Any) -> onnx.ModelProto:
    """A network that samples, as this project translates it; its answers are those of torch."""
    import torch

    from dtvit_deploy.artifacts.artifact import Link
    from dtvit_deploy.models.reference import Reference
    from dtvit_deploy.pipeline.program import read_program_entry, write_program

    class Warp(torch.nn.Module):
        def forward(self, image: Any, places: Any) -> Any:
            return torch.nn.functional.grid_sample(image, places, padding_mode="border", **how)

    inputs = {"image": torch.rand(1, 2, 5, 5), "places": torch.rand(1, 4, 4, 2) * 2 - 1}
    reference = Reference(
        model="mine:warp", module=Warp().eval(), inputs=inputs, weights=Link(kind="seeded", sha256="0" * 64), output_names=()
    )
    write_program(reference, folder)
    model = onnx.load(read_program_entry(folder).translated)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    np.testing.assert_allclose(answer, Warp()(**inputs).numpy(), atol=1e-5)
    return model


class TestOurQuantisedGraphs:
    def test_the_layout_for_cpus_is_refused_with_module_and_remedy(self, parse: Parse) -> None:
        model = int8(Layout.X86)
        for compiler in (V10, V11, RTX):
            found = lint(model, compiler)
            assert {("int32-bias", "blocks.0.fc1"), ("int32-bias", "blocks.0.fc2")} <= set(errors(found))
            assert {("zero-point", "blocks.0.fc1"), ("zero-point", "blocks.0.fc2")} <= set(errors(found))
            assert all("--target trt" in finding.remedy for finding in found)
        first = blame(model, parse(model), RTX)[0]
        assert (first.rule, first.module) == ("zero-point", "blocks.0.fc1")

    def test_with_its_biases_alone_it_is_refused_too(self, parse: Parse) -> None:
        """The zero points are taken away, so that INT32 is all that is left to refuse."""
        model = int8(Layout.X86)
        for tensor in model.graph.initializer:
            if tensor.name in ("x_zero_point", "active_zero_point"):
                tensor.CopyFrom(numpy_helper.from_array(I8(0), tensor.name))
        del model.graph.value_info[:]
        assert errors(lint(model, RTX)) == [("int32-bias", "blocks.0.fc1"), ("int32-bias", "blocks.0.fc2")]
        first = blame(model, parse(model), RTX)[0]
        assert (first.rule, first.module, first.remedy) == ("int32-bias", "blocks.0.fc1", lint(model, RTX)[0].remedy)
        assert "Int32" in first.message

    def test_an_asymmetric_one_is_refused(self, parse: Parse) -> None:
        assert errors(lint(asymmetric(), RTX)) == [("zero-point", "blocks.0.fc2")]
        assert [(one.rule, one.module) for one in blame(asymmetric(), parse(asymmetric()), RTX)] == [("zero-point", "blocks.0.fc2")]

    @COMPILERS
    def test_the_layout_for_tensorrt_is_clean(self, compiler: Compiler, parse: Parse) -> None:
        assert lint(int8(Layout.TENSORRT), compiler) == ()
        assert parse(int8(Layout.TENSORRT)) == []

    def test_weights_that_are_read_in_a_circle_end(self) -> None:
        circle = node("Identity", "e", "d"), node("Identity", "d", "e")
        model = graph(node("DequantizeLinear", "w s", "d", axis=1), *circle, node("MatMul", "x e", "y"), w=W, s=STEPS)
        assert isinstance(lint(model, V10), tuple)


class TestFloat16:
    @pytest.mark.parametrize(("value", "found"), [(65504.0, 1), (np.inf, 1), (np.nan, 1), (6e4, 0)])
    def test_a_constant_that_did_not_fit(self, value: float, found: int) -> None:
        model = halved(node("Mul", "h k", "p"), node("Cast", "p", "y", to=FLOAT), k=np.full(8, value, F16))
        assert warnings(lint(model, RTX)) == [("overflow", "block.fc")] * found


class TestWarnings:
    def test_int64_beyond_int32(self, parse: Parse) -> None:
        model = graph(node("Add", "x k", "y"), kind=INT64, y=INT64, k=np.array([2**40]))
        (found,) = lint(model, RTX)
        assert (found.rule, found.severity, str(2**40) in found.message) == ("int64", Severity.WARNING, True)
        assert parse(model) == []

    def test_the_end_of_a_slice_means_to_the_end(self) -> None:
        assert lint(graph(node("Slice", "x a e a", "y"), a=np.array([1]), e=np.array([2**63 - 1])), RTX) == ()

    def test_a_size_that_depends_on_values(self) -> None:
        assert ("dynamic-shape", "block.fc") in warnings(lint(graph(node("NonZero", "x", "y"), y=INT64), RTX))

    def test_control_flow(self) -> None:
        branches = [
            helper.make_graph([node(operator, "x", name, module)], name, [], [helper.make_tensor_value_info(name, FLOAT, (2, 8))])
            for operator, name, module in (("Relu", "t", "left"), ("Det", "e", "right"))
        ]
        choice = node("If", "c", "y", "router", then_branch=branches[0], else_branch=branches[1])
        found = lint(graph(choice, c=np.array(True)), RTX)
        assert warnings(found) == [("control-flow", "router")]
        assert errors(found) == [("operator", "right")]  # what is inside is read too

    def test_another_domains_operator_is_read_as_onnxs(self, parse: Parse) -> None:
        model = graph(node("Gelu", "x", "y", domain="com.microsoft"))
        assert warnings(lint(model, RTX)) == [("operator", "block.fc")]
        assert parse(model) == []

    def test_double_becomes_float(self, parse: Parse) -> None:
        model = graph(node("Relu", "x", "y"), kind=TensorProto.DOUBLE, y=TensorProto.DOUBLE)
        assert warnings(lint(model, RTX)) == [("type", "block.fc")]
        assert parse(model) == []

    def test_uint8_as_an_input_that_is_cast(self, parse: Parse) -> None:
        model = graph(node("Cast", "x", "y", to=FLOAT), kind=UINT8)
        assert (lint(model, RTX), parse(model)) == ((), [])

    @pytest.mark.parametrize("opset", [6, 25])
    def test_no_parser_refuses_an_opset(self, opset: int, parse: Parse) -> None:
        """So it is no error; what changed since is named, if anything did."""
        model = graph(node("Neg", "x", "y"), opset=opset)
        assert [one.rule for one in lint(model, V10)] == ["opset"]
        assert errors(lint(model, V10)) == []
        assert parse(model) == []

    def test_an_operator_with_a_newer_definition_is_named(self) -> None:
        model = graph(node("Neg", "x", "n", "old"), node("Cast", "n", "y", "new", to=FLOAT), opset=21)
        assert warnings(lint(model, V10)) == [("opset", "new")]
        assert lint(model, V11) == ()

    def test_newest_opsets(self) -> None:
        versions = ["10.0", "10.3.0.26", "10.6", "10.16", "11", "11.4.1"]
        assert [newest_opset(Compiler("tensorrt", version)) for version in versions] == [20, 20, 22, 24, 24, 25]


class TestForPeople:
    def test_a_hundred_products_are_one_line(self) -> None:
        nodes = [
            node("DequantizeLinear", f"b s{index} z", f"d{index}", f"blocks.{index // 2}")
            for index in range(100)
        ]  # fmt: skip
        scales = {f"s{index}": STEP for index in range(100)}
        model = graph(*nodes, node("Identity", "x", "y", ""), b=np.arange(4, dtype=np.int32), z=np.int32(0), **scales)
        found = lint(model, RTX)
        assert [(one.module, one.count) for one in found] == [(f"blocks.{index}", 2) for index in range(50)]
        (line,) = lines(found)
        assert line.startswith("error: blocks.0, blocks.1, blocks.2 and 47 more modules: ")
        assert "(100 times)" in line

    def test_errors_come_first(self) -> None:
        model = graph(
            node("Gelu", "x", "g", "first", domain="other"), node("Det", "g", "d", "second"), node("Identity", "d", "y", ""), x=(3, 3)
        )
        assert [one.module for one in lint(model, RTX)] == ["second", "first"]

    @pytest.mark.parametrize("compiler", [Compiler("onnxruntime", "1.20"), Compiler("tensorrt", "ten"), Compiler("tensorrt", "")])
    def test_a_compiler_that_is_none(self, compiler: Compiler) -> None:
        with pytest.raises(InputError, match=r"no compiler 'onnxruntime'|no version of tensorrt"):
            lint(SMALL, compiler)

    def test_a_graph_that_is_none_is_no_traceback(self) -> None:
        broken = onnx.ModelProto()
        broken.graph.node.append(node("Add", "nothing nowhere", "y"))
        broken.graph.node.append(helper.make_node("QuantizeLinear", [], []))
        broken.graph.initializer.append(TensorProto(name="k", data_type=FLOAT16, dims=[5], raw_data=b"x"))
        broken.graph.node.append(node("Relu", "k", "z"))
        assert {one.rule for one in lint(broken, RTX)} == {"opset"}

    def test_a_size_below_0_does_not_end_the_process(self) -> None:
        """It does in onnx 1.23's inference of shapes."""
        assert errors(lint(graph(node("Slice", "x a e", "y"), x=(2, -1), a=np.array([1]), e=np.array([5])), RTX)) == [
            ("dynamic-shape", "block.fc")
        ]

    def test_attributes_of_another_kind_than_onnx_defines_do_not_count(self) -> None:
        model = graph(node("MaxPool", "x", "y", kernel_shape=[2, 2]), node("Relu", "x", "z"), x=IMAGE)
        model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("dilations", 2.5))
        del model.graph.node[1].output[:]
        assert lint(model, RTX) == ()


class TestBlame:
    def test_by_index_else_by_name_else_by_what_it_says(self) -> None:
        def module(message: ParserMessage) -> str:
            return blame(SMALL, [message], RTX)[0].module

        assert module(ParserMessage("INVALID_NODE", "no", 1, "", "Gelu")) == "blocks.0"
        assert module(ParserMessage("INVALID_NODE", "no", 0, "node_of_y", "Relu")) == "blocks.0.fc2"  # an index of an inner graph
        assert module(ParserMessage("INTERNAL", "Failed to import initializer: w2")) == "blocks.0.fc2"
        assert module(ParserMessage("INTERNAL", "shape of hidden, which is wrong")) == "blocks.0.fc1"
        assert module(ParserMessage("INTERNAL", "no idea", 99)) == "(the network itself)"

    def test_what_no_rule_knows_has_the_parsers_words(self) -> None:
        (found,) = blame(SMALL, [ParserMessage("INVALID_NODE", "Assertion failed: luck", 1, "", "Gelu")] * 2, RTX)
        assert found.rule == "parser"
        assert found.message == "the parser refuses Gelu: Assertion failed: luck (INVALID_NODE)"
        assert found.remedy


def every_precision(model: onnx.ModelProto, sizes: dict[str, float]) -> dict[str, onnx.ModelProto]:
    symmetric = quantized_onnx(model, {name: (-size, size) for name, size in sizes.items()}, Layout.TENSORRT).model
    half = float16_onnx(model, sizes).model
    return {"fp32": model, "fp16": half, "int8": symmetric, "int8 and fp16": float16_onnx(symmetric, sizes).model}


def nothing_against(asked: Model, cache: Cache, parse: Parse) -> None:
    program = program_stage(asked, cache)
    signature = program.artifact.manifest.signature
    feeds: list[Feeds] = [{spec.name: RNG.normal(size=spec.shape).astype(F32) for spec in signature.inputs}]
    model = load_onnx(onnx_stage(program, GuardFeeds("noise", "noise", feeds), cache))
    sizes = magnitudes(model, signature, feeds)
    for precision, made in every_precision(model, sizes).items():
        for compiler in (V10, V11, RTX):
            assert lines(lint(made, compiler)) == (), precision
        assert parse(made) == []


def test_what_this_project_makes_of_the_digits_is_clean(checkpoint: Path, parse: Parse) -> None:
    nothing_against(Model(checkpoint=checkpoint), Cache.default(), parse)


UNLIKE = [f"dualtoken-vit-{name}" for name in ("s-mix-one-step", "s-mix-window", "s-normal-star")]
"""Of the registry: the others have the operators of these or of the digits, on other sizes."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [UNLIKE[0], *(pytest.param(name, marks=pytest.mark.thorough) for name in UNLIKE[1:])])
def test_what_this_project_makes_of_its_networks_is_clean(name: str, parse: Parse) -> None:
    nothing_against(Model(name=name, num_classes=10), Cache.default(), parse)

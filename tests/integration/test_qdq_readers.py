"""The readers that Q/DQ graphs are made for: the trained digits keep their accuracy in each layout, and NVIDIA's compiler takes its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from dtvit_deploy.artifacts.artifact import Artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.ranges import Method, load_ranges
from dtvit_deploy.export.onnx.float16 import float16_onnx
from dtvit_deploy.export.onnx.qdq import Layout, Quantized, quantized_onnx
from dtvit_deploy.harness.distance import sqnr
from dtvit_deploy.models.options import Model
from dtvit_deploy.pipeline.float16 import float16_rest_stage
from dtvit_deploy.pipeline.int8 import Quantiser, int8_stage
from dtvit_deploy.pipeline.material import Material, open_material
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import program_stage
from dtvit_deploy.pipeline.stages import load_onnx
from dtvit_deploy.runtimes.onnxruntime import run_graph
from dtvit_deploy.runtimes.rounded import rounded_onnx

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Outputs

pytestmark = pytest.mark.slow
POINTS = 0.004
"""Two of 500 images."""


@dataclass(frozen=True)
class Digits:
    """The simplified FP32 graph, its ranges, and the images that were held out; and what the stages make INT8 of."""

    model: onnx.ModelProto
    ranges: dict[str, tuple[float, float]]
    held_out: Material
    quantiser: Quantiser
    cache: Cache

    def top1(self, answers: list[Outputs]) -> float:
        assert self.held_out.images is not None
        labels = [image.label for image in self.held_out.images.images]
        return float(np.mean([answer["logits"].argmax() == label for answer, label in zip(answers, labels, strict=True)]))

    def in_onnx_runtime(self, model: onnx.ModelProto) -> float:
        return self.top1(run_graph(model, self.held_out.signature, self.held_out.feeds()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path, checkpoint: Path, ranges: Path) -> Digits:
    folder = tmp_path_factory.mktemp("qdq")
    cache = Cache(folder / "cache")
    program = program_stage(Model(checkpoint=checkpoint), cache)
    table = load_ranges(ranges)
    held_out = open_material(digits / "held-out", program.artifact.manifest)
    simplified = onnx_stage(program, held_out.guard(), cache)
    drawn = table.lookup(program.nodes, Method.MSE, simplified.manifest.signature)
    quantiser = Quantiser(simplified, program, table, Method.MSE, Layout.TENSORRT)
    return Digits(load_onnx(simplified), drawn, held_out, quantiser, cache)


@pytest.fixture(scope="module")
def float_top1(trained: Digits) -> float:
    return trained.in_onnx_runtime(trained.model)


def int8(trained: Digits, layout: Layout) -> Quantized:
    found = quantized_onnx(trained.model, trained.ranges, layout)
    onnx.checker.check_model(found.model, full_check=True)
    return found


def test_every_product_that_is_large_enough_has_a_range(trained: Digits) -> None:
    """In spite of reshapes that the simplifier made, whose tensors the range table does not know."""
    found = int8(trained, Layout.X86)
    assert sum(found.modules.values()) > 80
    assert not any("no range" in note for note in found.notes)


@pytest.mark.parametrize("layout", list(Layout))
def test_held_out_accuracy_is_kept_in_onnx_runtime(trained: Digits, float_top1: float, layout: Layout) -> None:
    assert trained.in_onnx_runtime(int8(trained, layout).model) >= float_top1 - POINTS


def with_fp16_rest(trained: Digits, *keep_fp32: str) -> Artifact:
    """As an export for TensorRT makes it."""
    quantised = int8_stage(trained.quantiser, (), None, trained.cache)
    return float16_rest_stage(quantised, trained.quantiser.simplified, trained.held_out.guard(), keep_fp32, trained.cache)


@pytest.mark.thorough
def test_held_out_accuracy_is_kept_with_fp16_for_the_rest(trained: Digits, float_top1: float) -> None:
    artifact = with_fp16_rest(trained)
    assert artifact.manifest.precision is Precision.INT8
    assert [link.kind for link in artifact.manifest.lineage[-3:]] == ["simplified", "int8", "float16"]
    rounded = rounded_onnx(load_onnx(artifact))
    assert trained.in_onnx_runtime(rounded) >= float_top1 - POINTS
    few = trained.held_out.subset(64)
    answers = [run_graph(model, few.signature, few.feeds()) for model in (trained.model, int8(trained, Layout.TENSORRT).model, rounded)]
    exact, integers, mixed = (np.stack([answer["logits"] for answer in runs]) for runs in answers)
    assert sqnr(exact, mixed) > max(40, sqnr(exact, integers) - 1)  # of INT8's own noise, FP16's is a small part


def test_held_out_accuracy_is_kept_in_openvino(trained: Digits, float_top1: float) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    core, found = openvino.Core(), int8(trained, Layout.X86)
    compiled = core.compile_model(core.read_model(found.model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers: list[Outputs] = [{"logits": compiled(dict(feed))[0].copy()} for feed in trained.held_out.feeds()]
    assert trained.top1(answers) >= float_top1 - POINTS


def test_openvino_computes_the_products_in_int8(trained: Digits) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    core, found = openvino.Core(), int8(trained, Layout.X86)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if "INT8" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no INT8 kernels in OpenVINO")
    layers = core.compile_model(core.read_model(found.model.SerializeToString()), "CPU", settings).get_runtime_model().get_ops()
    facts = [{key: value.astype(str) for key, value in layer.get_rt_info().items()} for layer in layers]
    integer = [one for one in facts if one["layerType"] in ("FullyConnected", "Convolution") and one["primitiveType"].lower().endswith("8")]
    assert len(integer) == sum(found.modules.values())


Refusals = list[str]
Compile = Callable[[onnx.ModelProto], tuple[Any, Refusals]]


@pytest.fixture(scope="module")
def compile_ahead() -> Compile:
    """Parse and compile for an RTX 40 by TensorRT-RTX, for which no GPU is needed."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra `trt-rtx` is not installed")

    class Quiet(trt.ILogger):  # type: ignore[misc]  # the module declares no types
        def log(self, severity: Any, message: str) -> None:
            pass

    def compiled(model: onnx.ModelProto) -> tuple[Any, Refusals]:
        logger = Quiet()
        builder = trt.Builder(logger)
        network = builder.create_network()  # strongly typed: there is no other kind
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model.SerializeToString()):
            return None, [parser.get_error(index).desc() for index in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        return builder.build_serialized_network(network, config), []

    return compiled


def test_tensorrt_compiles_its_layout(trained: Digits, compile_ahead: Compile) -> None:
    engine, refusals = compile_ahead(int8(trained, Layout.TENSORRT).model)
    assert refusals == []
    assert engine is not None
    assert engine.nbytes > 1_000_000


def test_tensorrt_compiles_it_with_every_product_quantised(trained: Digits, compile_ahead: Compile) -> None:
    """The transposed classifier and the small ones too."""
    everything = quantized_onnx(trained.model, trained.ranges, Layout.TENSORRT, least_macs=0)
    engine, refusals = compile_ahead(everything.model)
    assert (engine is not None, refusals) == (True, [])


@pytest.mark.parametrize("keep_fp32", [pytest.param((), marks=pytest.mark.thorough), ("stages.1.0",)])
def test_tensorrt_compiles_it_with_fp16_for_the_rest(trained: Digits, compile_ahead: Compile, keep_fp32: tuple[str, ...]) -> None:
    """And with some of it in FP32."""
    engine, refusals = compile_ahead(load_onnx(with_fp16_rest(trained, *keep_fp32)))
    assert (engine is not None, refusals) == (True, [])


def test_tensorrt_compiles_every_product_quantised_with_fp16_for_the_rest(trained: Digits, compile_ahead: Compile) -> None:
    everything = quantized_onnx(trained.model, trained.ranges, Layout.TENSORRT, least_macs=0)
    engine, refusals = compile_ahead(float16_onnx(everything.model, {}).model)
    assert (engine is not None, refusals) == (True, [])


def zero_points_moved(model: onnx.ModelProto) -> onnx.ModelProto:
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        if tensor.name.endswith("_zero_point") and not tensor.dims:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), tensor.name))
    return moved


def test_tensorrt_refuses_what_its_layout_leaves_out(trained: Digits, compile_ahead: Compile) -> None:
    """So the layout is no caution: each of the two differences is needed."""
    engine, refusals = compile_ahead(int8(trained, Layout.X86).model)
    assert engine is None
    assert "zero point" in refusals[0] or "Int32" in refusals[0]
    engine, refusals = compile_ahead(zero_points_moved(int8(trained, Layout.TENSORRT).model))
    assert engine is None
    assert "zero point is not supported" in refusals[0]

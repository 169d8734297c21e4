"""What is known of ONNX Runtime on ARM64, put to it: the check of graphs is held to what an emulated core refuses and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from arm64.emulated import Job, Machine
from arm64.environment import ONNX_RUNTIMES
from arm64.small import FLOAT, INT64, halves, of_one, quantised
from dtvit_deploy.artifacts.signature import Signature, TensorSpec
from dtvit_deploy.export.arm64.lint import Severity, lint
from dtvit_deploy.export.arm64.portable import portable_onnx
from dtvit_deploy.runtimes.arm64.half_sums import convolution, product
from dtvit_deploy.runtimes.onnxruntime import run_graph

pytestmark = pytest.mark.arm64
HALF, PLAIN = "cortex-a76", "cortex-a57"
IMAGE = halves(1, 6, 9, 9)
MASKED = {"kernel_shape": [2, 2], "strides": [2, 2]}
POOLS: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    "windows side by side": (of_one("AveragePool", {"x": IMAGE}, **MASKED), {"x": IMAGE}),
    "windows that overlap, padded": (of_one("AveragePool", {"x": IMAGE}, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), {"x": IMAGE}),
    "padding that counts": (of_one("AveragePool", {"x": IMAGE}, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), {"x": IMAGE}),
    "a last window that juts out": (of_one("AveragePool", {"x": IMAGE}, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), {"x": IMAGE}),
    "uneven windows": (of_one("AveragePool", {"x": IMAGE}, kernel_shape=[1, 5], strides=[1, 3]), {"x": IMAGE}),
    "apart": (of_one("AveragePool", {"x": IMAGE}, kernel_shape=[2, 2], dilations=[2, 2]), {"x": IMAGE}),
    "a line": (of_one("AveragePool", {"x": IMAGE[:, :, 0]}, kernel_shape=[3]), {"x": IMAGE[:, :, 0]}),
    "of the whole image": (of_one("GlobalAveragePool", {"x": IMAGE + 40}), {"x": IMAGE + 40}),
    "maxima with their places": (of_one("MaxPool", {"x": IMAGE}, extra={"places": INT64}, **MASKED), {"x": IMAGE}),
    "maxima": (of_one("MaxPool", {"x": IMAGE}, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1), {"x": IMAGE}),
    "Erf": (of_one("Erf", {"x": IMAGE}), {"x": IMAGE}),
}


def _here(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {info.name: tuple(size.dim_value for size in info.type.tensor_type.shape.dim) for info in inferred.graph.output}
    kinds = {"y": "float32"}
    outputs = tuple(TensorSpec(name, shape, kinds.get(name, "int64")) for name, shape in shapes.items())
    signature = Signature(tuple(TensorSpec(name, value.shape) for name, value in feeds.items()), outputs)
    return run_graph(model, signature, [feeds])[0]


@pytest.mark.parametrize("onnx_runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize("core", [HALF, PLAIN])
def test_what_was_made_portable_loads_and_answers_as_x86_does(machine: Callable[[str, str], Machine], core: str, onnx_runtime: str) -> None:
    jobs = [Job(portable_onnx(model).model, feeds) for model, feeds in POOLS.values()]
    for name, job, found in zip(POOLS, jobs, machine(core, onnx_runtime).answers(jobs), strict=True):
        assert not found.error, name
        for output, expected in _here(job.graph, job.feeds).items():
            assert found.outputs[output].dtype == expected.dtype
            np.testing.assert_allclose(found.outputs[output], expected, rtol=2.0**-10, atol=1e-6, err_msg=name)


BAD: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    name: POOLS[name] for name in ("windows side by side", "padding that counts", "a line", "maxima with their places")
} | {
    "maxima of opset 11": (of_one("MaxPool", {"x": IMAGE}, opset=11, **MASKED), {"x": IMAGE}),
    "maxima of opset 8": (of_one("MaxPool", {"x": IMAGE}, opset=8, **MASKED), {"x": IMAGE}),
    "means of opset 22": (of_one("AveragePool", {"x": IMAGE}, opset=22, **MASKED), {"x": IMAGE}),
}


@pytest.mark.parametrize("onnx_runtime", ONNX_RUNTIMES)
def test_what_the_check_calls_an_error_is_refused_there_and_taken_on_a_core_without_fp16(
    machine: Callable[[str, str], Machine], onnx_runtime: str
) -> None:
    for model, _ in BAD.values():
        assert any(found.severity is Severity.ERROR for found in lint(model))
    jobs = [Job(*one) for one in BAD.values()]
    assert all(found.error for found in machine(HALF, onnx_runtime).answers(jobs))
    assert not any(found.error for found in machine(PLAIN, onnx_runtime).answers(jobs))


def test_scales_in_fp16_are_refused_around_what_is_fused_and_taken_as_written(machine: Callable[[str, str], Machine]) -> None:
    feeds = {"a": IMAGE, "b": IMAGE}
    fused = {"Add": {}, "Mul": {}, "Concat": {"axis": 1}}
    plain = {"Sub": {}, "Max": {}}
    graphs = {operator: quantised(operator, feeds, **attributes) for operator, attributes in (fused | plain).items()}
    single = quantised("Add", feeds, FLOAT)
    assert {operator for operator, graph in graphs.items() if lint(graph)} == fused.keys()
    as_written = {"session.disable_quant_qdq": "1"}
    jobs = [
        *(Job(graph, feeds) for graph in graphs.values()),
        *(Job(graphs[operator], feeds, as_written) for operator in fused),
        Job(single, feeds),
    ]
    found = machine(HALF, ONNX_RUNTIMES[-1]).answers(jobs)
    assert [bool(one.error) for one in found] == [True] * len(fused) + [False] * (len(plain) + len(fused) + 1)


GOOD: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    "maxima of opset 12": (of_one("MaxPool", {"x": IMAGE}, opset=12, **MASKED), {"x": IMAGE}),
    "maxima of 20": POOLS["maxima"],
    "Gelu": (of_one("Gelu", {"x": IMAGE}), {"x": IMAGE}),
    "a mean": (of_one("ReduceMean", {"x": IMAGE + 60}, {"axes": np.array([2, 3])}), {"x": IMAGE + 60}),
    "softmax": (of_one("Softmax", {"x": IMAGE * 1000}), {"x": IMAGE * 1000}),
}


@pytest.mark.parametrize("onnx_runtime", ONNX_RUNTIMES)
def test_what_it_has_nothing_against_loads_and_answers(machine: Callable[[str, str], Machine], onnx_runtime: str) -> None:
    for model, _ in GOOD.values():
        assert not lint(model)
    jobs = [Job(*one) for one in GOOD.values()]
    for name, job, found in zip(GOOD, jobs, machine(HALF, onnx_runtime).answers(jobs), strict=True):
        assert not found.error, name
        # Gelu is off by up to 1.8e-3 in 1.32.0, four roundings' worth.
        expected = _here(job.graph, job.feeds)["y"]
        np.testing.assert_allclose(found.outputs["y"], expected, rtol=2.0**-9, atol=4e-3 if name == "Gelu" else 2.0**-10, err_msg=name)


def test_products_add_there_as_they_are_forecast_to(machine: Callable[[str, str], Machine]) -> None:
    a, b, bias = halves(17, 300), halves(300, 24, scale=0.2, seed=1), halves(24, seed=2)
    image, kernel = halves(1, 6, 9, 8), halves(8, 3, 3, 3, scale=0.3, seed=3)
    strided = {"strides": [2, 1], "pads": [1, 0, 1, 2], "dilations": [1, 2], "group": 2}
    t = torch.from_numpy
    expected = {
        "MatMul": (of_one("MatMul", {"x": a}, {"w": b}), {"x": a}, product(t(a), t(b))),
        "Gemm": (of_one("Gemm", {"x": a}, {"w": b.T.copy(), "b": bias}, transB=1), {"x": a}, product(t(a), t(b)) + t(bias)),
        "of two activations": (
            of_one("MatMul", {"x": a[None, None], "z": b[None, None]}),
            {"x": a[None, None], "z": b[None, None]},
            product(t(a), t(b)),
        ),
        "Conv": (
            of_one("Conv", {"x": image}, {"w": kernel, "b": bias[:8]}, **strided),
            {"x": image},
            convolution(t(image), t(kernel), t(bias[:8]), [2, 1], [1, 0, 1, 2], [1, 2], 2),
        ),
    }
    jobs = [Job(graph, feeds) for graph, feeds, _ in expected.values()]
    found = machine(HALF, ONNX_RUNTIMES[-1]).answers(jobs)
    for (name, (_, _, forecast)), answer in zip(expected.items(), found, strict=True):
        assert not answer.error, name
        value = forecast.half().float().numpy()
        same = float((answer.outputs["y"].reshape(value.shape) == value).mean())
        assert same > 0.9, f"{name}: {same:.0%} of the values are those forecast"


@pytest.mark.parametrize("core", [HALF, PLAIN])
def test_terms_that_sum_to_nothing_overflow_on_the_way_where_a_core_adds_in_fp16(machine: Callable[[str, str], Machine], core: str) -> None:
    x = np.full((1, 1024), 256.0, np.float32)
    signs = np.repeat([1.0, -1.0], 512)[:, None]
    found = machine(core, ONNX_RUNTIMES[-1]).answer(of_one("MatMul", {"x": x}, {"w": signs}), {"x": x})
    assert np.isinf(found.outputs["y"]).all() if core == HALF else (found.outputs["y"] == 0).all()

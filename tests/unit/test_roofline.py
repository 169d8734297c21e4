"""A roof is never higher than what must be done, and says what it stands on; work is counted in the graphs themselves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.roofline import Peak, Peaks, Roof, Work, roof
from dtvit_deploy.pipeline.peaks import peaks_here
from dtvit_deploy.pipeline.progress import Silent
from dtvit_deploy.pipeline.roofline import onnx_macs, openvino_macs
from dtvit_deploy.runtimes import peaks as measuring


def peak(precision: str, gflops: float) -> Peak:
    return Peak(precision=precision, gflops=gflops, runtime="openvino 2026.4", size="1024×1024×1024", median_gflops=gflops, runs=8)


def peaks(copy_gb_s: float = 20.0, **gflops: float) -> Peaks:
    products = tuple(peak(precision, rate) for precision, rate in gflops.items())
    return Peaks(products=products, copy_gb_s=copy_gb_s, copy_mib=256, threads=1, taken="2026-12-01T00:00:00+00:00")


def found(work: Work, able: Peaks) -> Roof:
    one = roof(work, able)
    assert one is not None
    return one


def test_arithmetic_and_memory_take_what_their_peaks_allow_and_the_greater_is_the_roof() -> None:
    one = found(Work(macs={"fp32": 1_000_000_000}, bytes=40_000_000), peaks(fp32=100.0))
    assert (one.arithmetic_ms, one.memory_ms) == (pytest.approx(20.0), pytest.approx(2.0))
    assert (one.ms, one.limit) == (one.arithmetic_ms, "arithmetic")
    assert one.share(40.0) == pytest.approx(0.5)
    heavy = found(Work(macs={"fp32": 1_000_000}, bytes=40_000_000), peaks(fp32=100.0))
    assert (heavy.ms, heavy.limit) == (pytest.approx(2.0), "memory")


def test_peaks_of_a_busy_machine_are_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = peaks(fp32=100.0, int8=400.0)
    busy = msgspec.structs.replace(quiet, products=(msgspec.structs.replace(quiet.products[0], median_gflops=60.0), quiet.products[1]))
    assert (quiet.disturbed, busy.disturbed) == (False, True)
    taken = iter([busy, quiet])
    monkeypatch.setattr(measuring, "measured", lambda threads: next(taken))
    cache = Cache(tmp_path)
    assert [peaks_here(1, "", cache, Silent()) for _ in range(3)] == [busy, quiet, quiet]
    with pytest.raises(StopIteration):
        peaks_here(2, "", cache, Silent())


def test_what_is_mixed_takes_the_time_of_each_precision() -> None:
    one = found(Work(macs={"int8": 800_000_000, "fp32": 100_000_000}, bytes=1), peaks(fp32=100.0, int8=400.0))
    assert one.arithmetic_ms == pytest.approx(4.0 + 2.0)


def test_a_precision_that_is_slower_than_a_wider_one_may_take_the_wider_ones_peak() -> None:
    able = peaks(fp32=100.0, bf16=300.0, fp16=20.0)
    rates = {name: one.gflops for name in ("fp32", "bf16", "fp16", "int8") if (one := able.of(name))}
    assert rates == {"fp32": 100.0, "bf16": 300.0, "fp16": 100.0, "int8": 300.0}


def test_without_a_peak_there_is_no_roof() -> None:
    work = Work(macs={"fp32": 1000}, bytes=1000)
    assert roof(work, peaks(int8=400.0)) is None  # which is no promise for wider factors
    assert roof(work, peaks(copy_gb_s=0.0, fp32=100.0)) is None
    assert found(Work(macs={"fp64": 0}, bytes=1000), peaks(fp32=1.0)).limit == "memory"


def test_a_share_above_all_is_told_and_not_cut_off() -> None:
    one = found(Work(macs={"fp32": 1_000_000_000}, bytes=1), peaks(fp32=100.0))
    assert one.share(10.0) == pytest.approx(2.0)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_more_work_never_takes_less(macs: int, more: int, size: int) -> None:
    able = peaks(fp32=100.0, int8=400.0)
    less, most = (found(Work(macs={"int8": macs, "fp32": add}, bytes=size), able) for add in (0, more))
    assert less.ms <= most.ms


def graph(nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], made: list[int], **constants: np.ndarray) -> onnx.ModelProto:
    kind = TensorProto.FLOAT16 if any(value.dtype == np.float16 for value in constants.values()) else TensorProto.FLOAT
    whole = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("made", kind, made)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


GRAPHS = {
    "a convolution in groups": (
        graph([helper.make_node("Conv", ["x", "w"], ["made"], group=2)], {"x": [1, 8, 10, 10]}, [1, 6, 8, 8], w=zeros(6, 4, 3, 3)),
        {"fp32": 6 * 8 * 8 * 4 * 9},
    ),
    "a transposed one": (
        graph(
            [helper.make_node("ConvTranspose", ["x", "w"], ["made"], strides=[2, 2])],
            {"x": [1, 4, 5, 5]},
            [1, 3, 10, 10],
            w=zeros(4, 3, 2, 2),
        ),
        {"fp32": 4 * 5 * 5 * 3 * 4},
    ),
    "a batch of products": (
        graph([helper.make_node("MatMul", ["x", "y"], ["made"])], {"x": [2, 3, 4, 5], "y": [2, 3, 5, 6]}, [2, 3, 4, 6]),
        {"fp32": 2 * 3 * 4 * 6 * 5},
    ),
    "a transposed factor": (
        graph([helper.make_node("Gemm", ["x", "w"], ["made"], transA=1)], {"x": [5, 4]}, [4, 6], w=zeros(5, 6)),
        {"fp32": 4 * 6 * 5},
    ),
    "half the precision": (
        graph([helper.make_node("MatMul", ["x", "w"], ["made"])], {"x": [4, 5]}, [4, 6], w=zeros(5, 6, dtype="float16")),
        {"fp16": 4 * 6 * 5},
    ),
    "whole numbers beside floats": (
        graph(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
                helper.make_node("DequantizeLinear", ["c", "s"], ["w"]),
                helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
                helper.make_node("MatMul", ["d", "t"], ["inner"]),
                helper.make_node("MatMul", ["inner", "f"], ["made"]),
            ],
            {"x": [4, 5]},
            [4, 7],
            s=np.float32(0.1),
            z=np.uint8(128),
            c=zeros(6, 5, dtype="int8"),
            f=zeros(6, 7),
        ),
        {"int8": 4 * 6 * 5, "fp32": 4 * 7 * 6},
    ),
    "weights alone in whole numbers": (
        graph(
            [helper.make_node("DequantizeLinear", ["c", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["made"])],
            {"x": [4, 5]},
            [4, 6],
            s=np.float32(0.1),
            c=zeros(5, 6, dtype="int8"),
        ),
        {"fp32": 4 * 6 * 5},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_products_are_counted_in_the_precision_of_their_factors(name: str) -> None:
    model, expected = GRAPHS[name]
    assert onnx_macs(model) == expected


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "half the precision"])
def test_openvino_has_the_same_work(name: str) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model, expected = GRAPHS[name]
    import io

    assert openvino_macs(openvino.Core().read_model(io.BytesIO(model.SerializeToString())), Precision.FP32) == expected


def test_a_graph_with_a_shape_that_is_not_known_has_no_count() -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["made"])], {"x": [4, 5]}, [4, 6], w=zeros(5, 6))
    for one in (model.graph.input[0], model.graph.output[0]):
        one.type.tensor_type.shape.dim[0].dim_param = "batch"
    assert onnx_macs(model) is None

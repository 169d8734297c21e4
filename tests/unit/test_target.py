"""Which precision a target has is known before anything is built."""

from __future__ import annotations

import msgspec
import pytest

from dtvit_deploy.artifacts.target import Precision, Target, pairs
from dtvit_deploy.errors import InputError

ONNX, OPENVINO = Target.ONNX, Target.OPENVINO
FP32, FP16, BF16 = Precision.FP32, Precision.FP16, Precision.BF16


def test_every_pair_that_exists_in_the_order_asked_for() -> None:
    assert pairs([OPENVINO, ONNX], [BF16, FP32]) == [(OPENVINO, BF16), (OPENVINO, FP32), (ONNX, FP32)]


@pytest.mark.parametrize(
    ("targets", "precisions", "unused"),
    [([ONNX], [FP32, BF16], "bf16"), ([ONNX, OPENVINO], [BF16], "onnx"), ([ONNX], [BF16], "onnx, bf16")],
)
def test_what_would_build_nothing_is_refused_with_what_there_is(targets: list[Target], precisions: list[Precision], unused: str) -> None:
    with pytest.raises(InputError, match=f"^nothing can be built for {unused} with targets ") as caught:
        pairs(targets, precisions)
    assert caught.value.remedy
    assert "openvino has fp32, fp16, bf16" in caught.value.remedy


@pytest.mark.parametrize("target", Target)
def test_every_target_has_fp32(target: Target) -> None:
    assert pairs([target], [FP32]) == [(target, FP32)]


def test_tensorrt_is_what_people_call_it() -> None:
    assert Target("tensorrt") is Target.TRT
    assert msgspec.convert(["tensorrt", "onnx"], list[Target]) == [Target.TRT, Target.ONNX]


@pytest.mark.parametrize("name", ["TensorRT ", "trt-rtx", "", "tensorflow"])
def test_no_other_name_means_anything(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Target"):
        Target(name)

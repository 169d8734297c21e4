"""The host's non-maximum suppression leaves exactly the boxes that ONNX Runtime's operator leaves, in its order, ties and all."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dtvit_deploy.harness.nms import detected, suppressed


@functools.cache
def operator() -> onnxruntime.InferenceSession:
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, None, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, None, None]),
        helper.make_tensor_value_info("most", TensorProto.INT64, []),
        helper.make_tensor_value_info("overlap", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, []),
    ]
    node = helper.make_node("NonMaxSuppression", [each.name for each in inputs], ["selected"])
    graph = helper.make_graph([node], "nms", inputs, [helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_operator(boxes: Any, scores: Any, overlap: float, score: float, most: int) -> list[list[int]]:
    """(class, box) of all that stays; ``scores`` are (classes, N)."""
    feed = {
        "boxes": boxes[None].astype(np.float32),
        "scores": scores[None].astype(np.float32),
        "most": np.asarray(most, np.int64),
        "overlap": np.asarray(overlap, np.float32),
        "score": np.asarray(score, np.float32),
    }
    selected: Any = operator().run(None, feed)[0]
    return selected[:, 1:].tolist()


def by_openvino(boxes: Any, scores: Any, overlap: float, score: float, most: int) -> list[int]:
    """Boxes of one class that stay."""
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, len(boxes), 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, len(boxes)]),
    ]
    numbers = [
        helper.make_tensor("most", TensorProto.INT64, [1], [most]),
        helper.make_tensor("overlap", TensorProto.FLOAT, [1], [overlap]),
        helper.make_tensor("score", TensorProto.FLOAT, [1], [score]),
    ]
    node = helper.make_node("NonMaxSuppression", [each.name for each in (*inputs, *numbers)], ["selected"])
    graph = helper.make_graph([node], "nms", inputs, [helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3])], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    core = pytest.importorskip("openvino").Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    rows: Any = compiled([boxes[None], scores[None, None]])[0]
    return [int(box) for image, _, box in rows if image >= 0]


def boxes_of(kind: str, count: int, seed: int) -> Any:
    stream = np.random.RandomState(seed)
    at, sides = stream.rand(count, 2) * 300, stream.rand(count, 2) * 90
    made = {
        "random": np.concatenate([at, at + sides], 1),
        "on a grid": np.concatenate([at // 30, at // 30 + 1 + sides // 30], 1),  # overlaps of just the limit
        "alike": np.tile(np.concatenate([at, at + sides], 1)[:3], (count // 3 + 1, 1))[:count],
        "without an area": np.concatenate([at // 60, at // 60 + sides // 60], 1),
        "corners exchanged": np.concatenate([at + sides, at], 1),
        "far away": np.concatenate([at, at + sides], 1) + 1e6,  # where float32 has few bits left
        "next to nothing": np.concatenate([at, at + sides], 1) * 1e-22,  # areas below the least normal number
        "shifted by a bit": np.nextafter(np.tile([[10, 10, 50, 50]], (count, 1)), stream.choice([0, 100], (count, 4))),
        "nested": np.concatenate([np.full((count, 2), 150.0) - sides, np.full((count, 2), 150.0) + sides], 1),
    }
    return made[kind].astype(np.float32)


KINDS = [
    "random",
    "on a grid",
    "alike",
    "without an area",
    "corners exchanged",
    "far away",
    "next to nothing",
    "shifted by a bit",
    "nested",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_the_same_boxes_stay_as_by_the_operator(kind: str, ties: bool) -> None:
    for seed in range(6):
        boxes = boxes_of(kind, 400, seed)
        scores = np.random.RandomState(seed + 100).rand(3, 400).astype(np.float32)
        if ties:
            scores = np.round(scores * 4) / 4
        for overlap, score, most in [(0.5, 0.05, 1000), (0.0, 0.0, 50), (1.0, 0.5, 1000), (1 / 3, 0.25, 7), (0.7, 0.99, 1000)]:
            ours = [
                [label, int(place)]
                for label in range(3)
                for place in suppressed(boxes, scores[label], overlap=overlap, score=score, most=most)
            ]
            assert ours == by_operator(boxes, scores, overlap, score, most), (kind, seed, overlap)


@pytest.mark.parametrize("kind", ["random", "on a grid", "alike"])
def test_ten_thousand_boxes_stay_as_by_the_operator(kind: str) -> None:
    boxes, scores = boxes_of(kind, 10_000, 0), np.random.RandomState(1).rand(1, 10_000).astype(np.float32)
    ours = [[0, int(place)] for place in suppressed(boxes, scores[0], overlap=0.5, score=0.0)]
    assert ours == by_operator(boxes, scores, 0.5, 0.0, 10_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_openvinos_operator_takes_out_what_overlaps_by_just_the_limit_and_else_the_same(kind: str, ties: bool) -> None:
    """ONNX says *greater* than the limit. With the next float32 above it for a limit, OpenVINO leaves the same boxes."""
    boxes, scores = boxes_of(kind, 400, 0), np.random.RandomState(100).rand(400).astype(np.float32)
    if ties:
        scores = np.round(scores * 4) / 4
    for overlap in (0.5, 1 / 3):
        beyond = float(np.nextafter(np.float32(overlap), np.float32(1)))
        ours = suppressed(boxes, scores, overlap=overlap, score=0.05, most=1000).tolist()
        assert ours == by_openvino(boxes, scores, beyond, 0.05, 1000)


def test_openvinos_operator_is_not_onnxs_on_the_limit() -> None:
    boxes, scores = np.asarray([[0, 0, 1, 2], [0, 0, 1, 1]], np.float32), np.asarray([0.9, 0.8], np.float32)
    assert by_operator(boxes, scores[None], 0.5, 0.05, 9) == [[0, 0], [0, 1]]
    assert by_openvino(boxes, scores, 0.5, 0.05, 9) == [0]  # where this fails, a newer OpenVINO has mended it: then the limit as it is


def test_detections_are_the_surest_that_the_operator_leaves() -> None:
    boxes, scores = boxes_of("random", 500, 3), np.random.RandomState(3).rand(500, 5).astype(np.float32)
    answer, places = detected(boxes, scores, overlap=0.4, score=0.3, most=60)
    left = by_operator(boxes, scores.T, 0.4, 0.3, 500)
    surest = sorted(left, key=lambda one: -scores[one[1], one[0]])[:60]  # stable, as ours
    assert [[int(label), int(place)] for label, place in zip(answer.labels, places, strict=True)] == surest

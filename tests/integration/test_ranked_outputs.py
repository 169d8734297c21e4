"""Networks that rank: what ties leave open is no error, and what they do not is one, on real and on adversarial feeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.errors import InputError
from dtvit_deploy.pipeline.golden import golden_stage
from dtvit_deploy.pipeline.judge import ranked_outputs
from dtvit_deploy.runtimes.torch.rankings import rankings_of
from dtvit_deploy.runtimes.torch.session import read_program
from judged import Judged, judged, picture

K = 6


class Detector(nn.Module):
    """Boxes on a grid, the best K of them by score, with their labels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classes, self.sides = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 3, 1), nn.Conv2d(8, 4, 1)
        grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).flatten(0, 1) * 4
        self.register_buffer("corners", torch.cat([grid, grid + 4], -1)[None])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.stem(image).relu()
        boxes = self.corners + self.sides(features).flatten(2).transpose(1, 2)
        best, label = self.classes(features).flatten(2).transpose(1, 2).sigmoid().max(-1)
        scores, index = best.topk(K, 1)
        return {
            "boxes": boxes.gather(1, index[..., None].expand(-1, -1, 4)),
            "scores": scores,
            "labels": label.gather(1, index).to(torch.int32),
            "picked": index,
        }


class Segmented(nn.Module):
    """Two classes with the same weights: a tie at every pixel of every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        with torch.no_grad():
            self.conv.weight[1] = self.conv.weight[0]
            self.conv.bias[1] = self.conv.bias[0]  # type: ignore[index]

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image).argmax(1)


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 8, 8)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.conv(image).flatten(1)
        return {
            "order": x.argsort(1),
            "least": x.min(1).indices,
            "first": torch.sort(x, dim=1, descending=True).indices[:, :4].contiguous(),
        }


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    return judged(Detector(), picture(), tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    return judged(Segmented(), picture(16), tmp_path_factory.mktemp("segmented"))


def reordered(output: str, order: list[int]) -> Callable[[onnx.ModelProto], None]:
    """A change that puts the ranks of one output into another order."""

    def change(model: onnx.ModelProto) -> None:
        (maker,) = (node for node in model.graph.node if output in node.output)
        maker.output[list(maker.output).index(output)] = "before"
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                if name == output:
                    node.input[place] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.array(order, np.int64), "wrong_order"))
        model.graph.node.append(helper.make_node("Gather", ["before", "wrong_order"], [output], axis=1))

    return change


class TestBoxes:
    def test_a_right_artefact_passes_in_both_precisions(self, detector: Judged) -> None:
        assert detector.failed() == set()
        assert detector.failed(detector.float16()) == set()

    def test_no_tolerance_is_as_wide_as_a_tie(self, detector: Judged) -> None:
        for artifact in (None, detector.float16()):
            assert all(one.tolerance is not None and one.tolerance < 1 for one in detector.compared(artifact) if one.output == "boxes")

    def test_boxes_that_are_permuted_against_their_scores_fail(self, detector: Judged) -> None:
        wrong = detector.changed(reordered("boxes", [1, 0, 2, 3, 4, 5]))
        assert ("boxes", "noise") in detector.failed(wrong)

    def test_an_index_that_is_no_tie_fails(self, detector: Judged) -> None:
        wrong = detector.changed(reordered("picked", [1, 0, 2, 3, 4, 5]))
        assert ("picked", "noise") in detector.failed(wrong)

    def test_boxes_that_are_wrong_by_a_pixel_fail_also_where_all_scores_tie(self, detector: Judged) -> None:
        def change(model: onnx.ModelProto) -> None:
            tensors = {tensor.name: tensor for tensor in model.graph.initializer}
            bias = tensors["sides.bias"]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), "sides.bias"))

        failed = detector.failed(detector.changed(change))
        assert {("boxes", "zeros"), ("boxes", "constant"), ("boxes", "noise")} <= failed
        assert {output for output, _ in failed} == {"boxes"}


class TestIndices:
    def test_either_of_two_equal_classes_is_right(self, segmented: Judged) -> None:
        def second(model: onnx.ModelProto) -> None:
            (node,) = (one for one in model.graph.node if one.op_type == "ArgMax")
            (attribute,) = (one for one in node.attribute if one.name == "select_last_index")
            attribute.i = 1

        assert segmented.failed() == set()
        assert segmented.failed(segmented.changed(second)) == set()

    def test_the_worst_class_is_not(self, segmented: Judged) -> None:
        def worst(model: onnx.ModelProto) -> None:
            (node,) = (one for one in model.graph.node if one.op_type == "ArgMax")
            node.op_type = "ArgMin"

        assert ("output", "noise") in segmented.failed(segmented.changed(worst))

    def test_sorted_orders_least_ones_and_parts_of_orders(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        made = judged(Sorted(), picture(), tmp_path)
        assert {one for one in made.failed() if one[0] != "first"} == set()


def test_rankings_are_found_with_their_axis_direction_and_outputs(detector: Judged) -> None:
    names = [spec.name for spec in detector.program.artifact.manifest.signature.outputs]
    (one,) = (each for each in rankings_of(read_program(detector.program.artifact), names) if each.direct)
    assert (one.axis, one.ascending, one.shape, one.direct, set(one.chosen)) == (1, False, (1, K), ("picked",), {"boxes", "labels"})


def test_a_tolerance_that_is_asked_for_takes_the_place_of_the_measured_one(detector: Judged) -> None:
    def change(model: onnx.ModelProto) -> None:
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "sides.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.25), "sides.bias"))

    wrong = detector.changed(change)
    for allowed, passes in ((0.3, True), (0.2, False)):
        found = [one for one in detector.compared(wrong, tolerances={"boxes": allowed}) if one.output == "boxes"]
        assert {one.tolerance for one in found} == {allowed}
        assert all(one.passed is passes for one in found)
    with pytest.raises(InputError, match="'boxs', which is no output"):
        detector.compared(tolerances={"boxs": 1.0})


def test_what_int8_ranks_otherwise_fails_with_the_limit_that_can_be_set(detector: Judged) -> None:
    """Rows that change places are noise of the answer's own size, which no SQNR allows for; what is not ranked has no such way out."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "classes.weight":
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))

    wrong = detector.changed(change)
    int8 = msgspec.structs.replace(wrong, manifest=msgspec.structs.replace(wrong.manifest, precision=Precision.INT8))
    failed = {one.output: one.reason for one in detector.compared(int8) if not one.passed and one.feeds == "noise"}
    assert {"labels", "picked"} <= failed.keys()
    assert failed["labels"].endswith("; --tolerance labels=SHARE sets another limit (in a recipe: parity.tolerance)")
    assert failed["picked"].endswith("; --tolerance picked=SHARE sets another limit (in a recipe: parity.tolerance)")
    assert not any("--tolerance" in reason for output, reason in failed.items() if output == "scores")


def test_without_adversarial_feeds_there_are_none(detector: Judged) -> None:
    assert {one.feeds for one in detector.compared(adversarial=False)} == {"noise"}


class Levels(nn.Module):
    """The best boxes of two maps, one after the other; every box of the first has a twin with the same score, elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 2, 2)
        self.score, self.sides = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine = self.fine(image).relu()
        boxes, scores = [], []
        for level, x in enumerate((fine, self.coarse(fine).relu())):
            rows, sides = self.score(x).flatten(1).sigmoid(), self.sides(x).flatten(2).transpose(1, 2)
            if level == 0:
                rows, sides = torch.cat([rows, rows], 1), torch.cat([sides, sides + 9], 1)
            best, index = rows.topk(K, 1)
            scores.append(best)
            boxes.append(sides.gather(1, index[..., None].expand(-1, -1, 4)))
        return {"boxes": torch.cat(boxes, 1), "scores": torch.cat(scores, 1)}


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    return judged(Levels(), picture(), tmp_path_factory.mktemp("levels"))


class TestLevels:
    def test_each_ranking_decides_about_its_part(self, levels: Judged) -> None:
        found = rankings_of(read_program(levels.program.artifact), ["boxes", "scores"])
        assert [one.chosen["boxes"] for one in found] == [(1, 0, K), (1, K, 2 * K)]

    def test_a_right_artefact_passes_in_both_precisions(self, levels: Judged) -> None:
        assert levels.failed() == set()
        assert levels.failed(levels.float16()) == set()

    def test_twins_may_change_places_within_their_level(self, levels: Judged) -> None:
        assert levels.failed(levels.changed(reordered("boxes", [1, 0, *range(2, 2 * K)]))) == set()

    def test_no_box_may_go_to_another_level_nor_to_another_score(self, levels: Judged) -> None:
        assert ("boxes", "noise") in levels.failed(levels.changed(reordered("boxes", [K, *range(1, K), 0, *range(K + 1, 2 * K)])))
        assert ("boxes", "noise") in levels.failed(levels.changed(reordered("boxes", [*range(K), K + 1, K, *range(K + 2, 2 * K)])))


class Floating(nn.Module):
    """A label as a float, as those give it who hand every output to the same code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image).argmax(1).float()


def test_an_index_in_float_is_whole_or_wrong(tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels = judged(Floating(), picture(16), tmp_path)
    assert labels.failed() == set()

    def change(model: onnx.ModelProto) -> None:
        """Every label is 0.9 too large: its whole part is right."""
        (maker,) = (node for node in model.graph.node if "output" in node.output)
        maker.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.9), "off"))
        model.graph.node.append(helper.make_node("Add", ["before", "off"], ["output"]))

    assert ("output", "noise") in labels.failed(labels.changed(change))


class Crowded(nn.Module):
    """Boxes far from each other whose scores are nearer to each other than FP16's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.score, self.sides = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.stem(image).relu()
        boxes = torch.arange(64.0).reshape(1, 64, 1) * 4 + self.sides(features).flatten(2).transpose(1, 2)
        best, index = (1 + self.score(features).flatten(1) / 500).topk(64, 1)
        return {"scores": best, "boxes": boxes.gather(1, index[..., None].expand(-1, -1, 4))}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    return judged(Crowded(), picture(), tmp_path_factory.mktemp("crowded"))


class TestTiesWhereNoDeviceIsJudgedYet:
    def test_the_search_for_fp16_keeps_nothing_for_them(self, crowded: Judged) -> None:
        link = crowded.float16().manifest.parent("float16")
        assert link is not None
        assert link.options["imprecise"] == {}

    def test_a_device_can_be_held_to_a_tolerance(self, crowded: Judged) -> None:
        halved = crowded.float16()
        golden = golden_stage(crowded.program, halved, crowded.material, Cache(crowded.folder / "cache"))
        assert golden.tolerance.keys() == {"scores", "boxes"}
        assert golden.tolerance["boxes"] < 2


def test_outputs_that_a_ranking_decides(crowded: Judged) -> None:
    assert ranked_outputs(onnx.load(crowded.artifact.path)) == {"boxes"}

"""Dense networks: their parts against the plain forms that they stand for, the paper's counts, and their way to artefacts."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from commandline import deploy
from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.models.classifiers import classifier
from dtvit_deploy.models.dense.anchors import LONGEST, anchors_of, centred, decoded
from dtvit_deploy.models.dense.backbone import Maps
from dtvit_deploy.models.dense.config import DenseConfig, Task, dense_config
from dtvit_deploy.models.dense.layers import Conv, bilinear, pooling
from dtvit_deploy.models.dense.pyramid import Pyramid
from dtvit_deploy.models.dense.retinanet import RetinaNet
from dtvit_deploy.models.dense.segmentation import Segmenter
from dtvit_deploy.models.networks import network_from_config
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.registry import VARIANTS, attention_maps, config_of
from lively import lively, verified

torch.set_num_threads(1)

TINY = dataclasses.replace(VARIANTS["dualtoken-vit-t-mix"].config, dims=(16, 32, 64), depths=(1, 1, 1))
"""A backbone that has everything, in a size that a test can run."""


def small(task: Task, size: tuple[int, int] = (128, 192), **changes: int | bool) -> DenseConfig:
    changes = {"width": 32, "num_classes": 5} | changes
    return dataclasses.replace(dense_config(task, TINY), input_size=size, **changes)  # type: ignore[arg-type]


def image(size: tuple[int, int] = (128, 192), count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("grid", [(16, 16), (7, 11), (25, 40)], ids=str)
def test_pooling_and_resizing_by_constants_are_torchs_own(bins: int, grid: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (pooling(grid, bins).double()(x) - F.adaptive_avg_pool2d(x, bins)).abs().max() < 1e-6
    pooled = F.adaptive_avg_pool2d(x, bins)
    expected = F.interpolate(pooled, grid, mode="bilinear", align_corners=False)
    assert (bilinear((bins, bins), grid).double()(pooled) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("grid", [(16, 16), (16, 40), (12, 9), (40, 13)], ids=str)
@pytest.mark.parametrize("dilation", [2, 12, 24, 36])
def test_taps_that_read_nothing_but_padding_are_left_out_exactly(grid: tuple[int, int], dilation: int) -> None:
    torch.manual_seed(0)
    branch = lively(Conv(6, 4, 3, dilation=dilation, norm=True).double())
    assert branch.bn is not None
    x = torch.randn(2, 6, *grid, dtype=torch.float64)
    assert torch.equal(branch(x), F.relu(branch.bn(branch.conv(x))))


def test_a_tap_that_reads_one_row_is_kept() -> None:
    branch = Conv(1, 1, 3, dilation=12, relu=False)
    nn.init.ones_(branch.conv.weight)
    x = torch.zeros(1, 1, 13, 13)
    x[0, 0, 12, 12] = 1
    assert branch(x)[0, 0, 0, 0] == 1 + branch.conv.bias  # twelve rows and columns away


@pytest.mark.parametrize("task", ["deeplabv3", "pspnet"])
def test_a_segmentation_head_is_its_plain_form(task: Task) -> None:
    config = small(task, (256, 320))
    network = lively(Segmenter(config).double())
    head, grid = network.decode_head, (8, 10)
    x = torch.randn(1, 64, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def plain(conv: Conv, given: torch.Tensor) -> torch.Tensor:
        assert conv.bn is not None
        return F.relu(conv.bn(conv.conv(given)))

    def pooled(part: nn.Module, bins: int) -> torch.Tensor:
        narrow = plain(part[1], F.adaptive_avg_pool2d(x, bins))  # type: ignore[index]
        return F.interpolate(narrow, grid, mode="bilinear", align_corners=False)

    if task == "deeplabv3":
        parts = [pooled(head.image_pool, 1), *(plain(one, x) for one in head.aspp_modules)]  # type: ignore[arg-type, union-attr]
    else:
        parts = [x, *(pooled(one, bins) for one, bins in zip(head.psp_modules, (1, 2, 3, 6), strict=True))]  # type: ignore[arg-type]
    expected = head.conv_seg(plain(head.bottleneck, torch.cat(parts, 1)))
    assert (head(x) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_anchors_stand_on_their_positions_ratio_by_ratio() -> None:
    found = anchors_of((2, 3), 16, (4.0, 8.0), (0.5, 2.0))
    assert found.shape == (2 * 3 * 4, 4)
    boxes = found.reshape(2, 3, 4, 4)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    assert torch.allclose(centre[1, 2], torch.tensor([32.0, 16.0]).expand(4, 2))
    sides = boxes[0, 0, :, 2:] - boxes[0, 0, :, :2]
    root = math.sqrt(0.5)
    assert torch.allclose(
        sides, torch.tensor([[64 / root, 64 * root], [128 / root, 128 * root], [64 * root, 64 / root], [128 * root, 128 / root]])
    )


def test_boxes_are_decoded_as_mmdetection_does_and_stay_within_the_image() -> None:
    anchor = centred(torch.tensor([[10.0, 20.0, 50.0, 40.0]]))
    still = decoded(torch.zeros(1, 4), anchor, (100, 200))
    assert torch.allclose(still, torch.tensor([[10.0, 20.0, 50.0, 40.0]]))
    moved = decoded(torch.tensor([[0.5, -0.5, math.log(2), 0.0]]), anchor, (100, 200))
    assert torch.allclose(moved, torch.tensor([[10.0, 10.0, 90.0, 30.0]]))
    scaled = decoded(torch.tensor([[5.0, -5.0, 5 * math.log(2), 0.0]]), anchor, (100, 200), (0.1, 0.2))
    assert torch.allclose(scaled, torch.tensor([[10.0, 10.0, 90.0, 30.0]]))
    huge = decoded(torch.full((1, 4), 80.0), anchor, (100, 200))
    assert huge.isfinite().all()
    assert (huge[0] <= torch.tensor([200.0, 100.0, 200.0, 100.0])).all()
    assert math.exp(LONGEST) * 40 < 65504  # FP16 holds the side


def test_a_pyramid_adds_each_level_to_the_finer_one_and_makes_one_more_of_it() -> None:
    torch.manual_seed(0)
    pyramid = lively(Pyramid((4, 6), 8, finer=True, extra_levels=2).double())
    fine, coarse = torch.randn(1, 4, 6, 10, dtype=torch.float64), torch.randn(1, 6, 3, 5, dtype=torch.float64)
    levels = pyramid([fine, coarse])
    assert [tuple(level.shape[2:]) for level in levels] == [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    first, second = (conv.conv for conv in pyramid.lateral_convs)
    summed = first(fine) + second(coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(levels[1], pyramid.fpn_convs[0].conv(summed))
    assert torch.allclose(levels[0], pyramid.finer_conv.conv(pyramid.finer(summed)))
    assert torch.allclose(levels[3], pyramid.extra_convs[0].conv(coarse))  # on the backbone's map, not on the level made of it
    assert torch.allclose(levels[4], pyramid.extra_convs[1].conv(levels[3]))


@pytest.mark.parametrize("coarse", [True, False])
def test_retinanet_gives_the_best_anchors_of_each_level(coarse: bool) -> None:
    config = small("retinanet", (128, 192), coarse=coarse)
    network = lively(RetinaNet(config))
    with torch.no_grad():
        boxes, scores = network(image(count=2))
        raw = network.raw(image(count=2))
    counts = [min(1000, -(-128 // stride) * -(-192 // stride) * 9) for stride in (8, 16, 32, 64, 128)]
    assert boxes.shape == (2, sum(counts), 4)
    assert scores.shape == (2, sum(counts), 5)
    start = 0
    for count, (logits, _) in zip(counts, raw, strict=True):
        best = scores[:, start : start + count].amax(-1)
        expected = logits.sigmoid().amax(-1).sort(1, descending=True).values[:, :count]
        assert torch.allclose(best, expected)
        start += count
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert boxes.min() >= 0
    assert (boxes.amax((0, 1)) <= torch.tensor([192.0, 128.0, 192.0, 128.0])).all()


@pytest.mark.parametrize("name", ["dualtoken-vit-t-mix", "lightvit-t", "t2t-vit-7", "t2t-vit-dense"])
def test_a_classifiers_weights_are_its_backbones(name: str) -> None:
    config = dataclasses.replace(config_of(f"features:{name}"), input_size=(224, 224))
    with torch.device("meta"):
        maps = Maps(config, tuple(stride for _, stride in config.backbone.maps))  # type: ignore[union-attr]
        whole = classifier(VARIANTS[name].config)  # type: ignore[arg-type]
    body = set(maps.body.state_dict())
    left = {key.split(".")[0] for key in set(whole.state_dict()) - body}
    assert body < set(whole.state_dict())
    assert left == {"norm", "neck", "head"} & left


@pytest.mark.parametrize("name", ["lightvit-t", "t2t-vit-c-14"])
def test_maps_have_the_size_and_the_channels_that_the_configuration_says(name: str) -> None:
    config = dataclasses.replace(config_of(f"features:{name}"), input_size=(224, 448))
    assert isinstance(config, DenseConfig)
    with torch.device("meta"):
        found = network_from_config(config).eval()(torch.empty(1, 3, 224, 448))
    assert [tuple(one.shape) for one in found] == [(1, dim, 224 // stride, 448 // stride) for dim, stride in config.backbone.maps]
    assert len(config.outputs) == len(found)


def test_the_last_map_is_what_the_classifier_reads() -> None:
    config = small("features")
    whole = lively(classifier(dataclasses.replace(TINY, input_size=config.input_size)))
    network = network_from_config(config).eval()
    missing, _ = network.backbone.body.load_state_dict(whole.state_dict(), strict=False)  # type: ignore[union-attr, operator]
    assert not missing
    with torch.no_grad():
        maps, _ = whole.maps(image())  # type: ignore[operator]
        last = network(image())[-1]
        assert torch.allclose(last, F.layer_norm(maps[-1], (64,), eps=1e-6).permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["deeplabv3:dualtoken-vit-t-mix", "pspnet:lightvit-t", "features:t2t-vit-7"])
def test_its_attention_maps_are_its_backbones(name: str) -> None:
    config = dataclasses.replace(config_of(name), input_size=(224, 448))
    with torch.device("meta"):
        modules = dict(network_from_config(config).named_modules())
    maps = attention_maps(name, (224, 448))
    assert maps
    assert all(one.module in modules for one in maps)
    assert [one.module.removeprefix("backbone.body.") for one in maps] == [
        one.module for one in attention_maps(name.partition(":")[2], (224, 448))
    ]


def counted(config: DenseConfig) -> float:
    """10⁹ multiply–accumulates of convolutions and linear layers, as the paper counts, with whole kernels."""
    with torch.device("meta"):
        network = network_from_config(config).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, *config.input_size))
    total = counter.get_flop_counts()["Global"]
    return sum(flops for operator, flops in total.items() if "bmm" not in str(operator)) / 2e9


def parameters(config: DenseConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network_from_config(config).parameters())


def test_retinanets_counts_are_those_of_the_specification() -> None:
    paper = config_of("retinanet:dualtoken-vit-s")
    assert isinstance(paper, DenseConfig)
    plain = dataclasses.replace(paper, coarse=False)
    assert (parameters(paper), round(counted(paper), 2)) == (20_055_618, 169.62)
    assert (parameters(plain), round(counted(plain), 2)) == (19_809_986, 168.83)
    with torch.device("meta"):
        network = network_from_config(paper)
        assert sum(one.numel() for one in network.neck.parameters()) == 3_311_616  # type: ignore[union-attr]
        assert sum(one.numel() for one in network.bbox_head.parameters()) == 6_463_220  # type: ignore[union-attr]


def test_segmentation_counts_are_those_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(self: Conv, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if self.bn is None else self.bn(self.conv(x))

    monkeypatch.setattr(Conv, "forward", whole)  # the paper's networks have every tap
    for name, heads, params, macs in (("deeplabv3", 15_680_662, 26_295_418, 68.57), ("pspnet", 11_223_190, 21_837_946, 58.65)):
        config = dataclasses.replace(config_of(f"{name}:dualtoken-vit-s"), input_size=(1024, 2048))
        assert isinstance(config, DenseConfig)
        assert parameters(config) == params
        assert round(counted(config), 2) == pytest.approx(macs, abs=0.06)  # pooling by constants is among ours
        with torch.device("meta"):
            network = network_from_config(config)
            assert sum(one.numel() for one in network.decode_head.parameters()) == heads  # type: ignore[union-attr]
            assert sum(one.numel() for one in network.auxiliary_head.parameters()) == 333_974  # type: ignore[union-attr]


def test_the_auxiliary_head_answers_in_training_alone() -> None:
    network = Segmenter(small("pspnet"))
    assert len(network(image(count=2))) == 2
    assert network.eval()(image()).shape == (1, 5, 4, 6)


@pytest.mark.parametrize(
    ("given", "said", "do"),
    [
        (("-m", "retinanet:t2t-vit-7"), "retinanet needs maps of strides 16, 32, and this backbone has 16", "take a DualToken-ViT"),
        (("-m", "deeplabv3:dualtoken-vit-x"), "there is no model 'deeplabv3:dualtoken-vit-x'", "did you mean"),
        (("-m", "pspnet:lightvit-t", "--input-size", "500x500"), "input size 500×500 cannot be used", "use 448×448"),
        (("-m", "retinanet:dualtoken-vit-s", "--output", "a"), "2 outputs, boxes, scores, and 1 names were given", "give as many"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(given: tuple[str, ...], said: str, do: str, tmp_path: Path) -> None:
    done = deploy("export", *given, "-t", "onnx", "-o", "out", cwd=tmp_path, code=2)
    assert said in done.stderr
    assert do in done.stderr
    assert not (tmp_path / "out").exists()


TARGETS = (Target.ONNX, Target.OPENVINO, Target.COREML)
LACKING = frozenset({"AveragePool", "Einsum", "GatherND", "Resize", "ScatterND"})


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["deeplabv3", "pspnet"])
def test_segmentation_leaves_for_every_target_that_runs_here(task: str, tmp_path: Path) -> None:
    name, size = f"{task}:dualtoken-vit-t-mix", (64, 96)
    config = dataclasses.replace(config_of(name), input_size=size)
    lacking = LACKING - {"AveragePool"}  # which DualToken-ViT has
    verified(Model(name=name, input_size=size), lively(network_from_config(config), 1.0, 0.2), TARGETS, tmp_path, lacking, axes=5)


@pytest.mark.thorough
def test_retinanet_leaves_for_every_target_that_runs_here(tmp_path: Path) -> None:
    name, size = "retinanet:dualtoken-vit-t-mix", (128, 192)
    config = dataclasses.replace(config_of(name), input_size=size)
    lacking = LACKING - {"AveragePool", "Resize"}  # levels are doubled
    verified(Model(name=name, input_size=size), lively(network_from_config(config), 1.0, 0.2), TARGETS, tmp_path, lacking, axes=5)

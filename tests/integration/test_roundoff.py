"""The floor of FP32 knows what rounding does on a feed on which torch is exact by luck: right artefacts pass, wrong ones do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.harness.parity import LARGEST_FLOOR, ROUNDOFF
from dtvit_deploy.runtimes.torch.roundoff import moved_by_rounding
from dtvit_deploy.runtimes.torch.session import TorchSession
from judged import Judged, judged, picture

if TYPE_CHECKING:
    from dtvit_deploy.artifacts.signature import Feeds, Outputs

UNIT = ROUNDOFF[Precision.FP32]


class Normalised(nn.Module):
    """Of a picture of one colour every channel is constant, but for the edge: what is left to divide is rounding."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3, 2), norm, nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.conv(image)).relu().mean((2, 3)))
        return answer


class Excited(nn.Module):
    """Squeeze and excitation over a large map, whose mean adds up 12,544 equal values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.silu(self.conv(image))
        x = x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer


class Rows(nn.Module):
    """LayerNorm and softmax over equal values, and a variance of them that is divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        row = image.flatten(1)[:, :192] * 3.3 + 1.7
        return {
            "normalised": self.head(self.norm(row)),
            "weighted": (row * row.softmax(1)).sum(1, keepdim=True),
            "whitened": self.head((row - row.mean(1, keepdim=True)) / (row.var(1, keepdim=True) + 1e-6).sqrt()),
        }


NETWORKS: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "group norm": lambda: (Normalised(nn.GroupNorm(4, 16)), 64),
    "instance norm": lambda: (Normalised(nn.InstanceNorm2d(16, affine=True)), 64),
    "excitation": lambda: (Excited(), 112),
    "rows": lambda: (Rows(), 16),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    torch.manual_seed(0)
    module, side = NETWORKS[request.param]()
    return judged(module, picture(side), tmp_path_factory.mktemp("network"))


def off_by_one(model: onnx.ModelProto) -> None:
    """Every output answers 1 more."""
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    for output in model.graph.output:
        (maker,) = (node for node in model.graph.node if output.name in node.output)
        maker.output[list(maker.output).index(output.name)] = f"{output.name} before"
        model.graph.node.append(onnx.helper.make_node("Add", [f"{output.name} before", "one"], [output.name]))


def test_a_right_artefact_passes_on_every_feed(network: Judged) -> None:
    assert network.failed() == set()


def test_errors_are_planted_only_where_what_was_measured_does_not_do(network: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[int] = []

    def unmoved(session: TorchSession, feeds: Feeds, _: float, draw: int) -> Outputs:
        planted.append(draw)
        return session.run(feeds)

    monkeypatch.setattr("dtvit_deploy.runtimes.torch.roundoff.moved_by_rounding", unmoved)
    assert all(one.passed for one in network.compared(adversarial=False))
    assert not planted
    assert not all(one.passed for one in network.compared(network.changed(off_by_one), adversarial=False))
    assert planted


def test_the_floor_is_no_wide_tolerance_on_what_is_ordinary(network: Judged) -> None:
    for one in network.compared(network.changed(off_by_one)):
        if one.feeds == "noise" and one.tolerance is not None:
            assert not one.passed  # so the planted errors were asked too
            assert one.tolerance < 1e-4 * max(one.max_abs / one.max_rel, 0.01)


@pytest.mark.parametrize(("factor", "feeds"), [(1.001, {"noise"}), (-1, {"noise", "zeros", "constant", "saturated", "tiny"})])
def test_a_slightly_wrong_weight_fails_and_a_swapped_sign_does_on_the_forgiving_feeds_too(
    network: Judged, factor: float, feeds: set[str]
) -> None:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name in ("head.weight", "head.bias") or list(tensor.dims) == [192, 5]:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))

    assert feeds <= {where for _, where in network.failed(network.changed(change))}


def test_a_wrong_epsilon_fails_where_it_decides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    right = judged(Normalised(nn.GroupNorm(4, 16)), picture(64), tmp_path)

    def change(model: onnx.ModelProto) -> None:
        found = [a for node in model.graph.node for a in node.attribute if a.name == "epsilon"]
        assert found
        for attribute in found:
            attribute.f = 1e-3

    assert ("output", "zeros") in right.failed(right.changed(change))


class Evaluated:
    """A function of one picture as a session in FP64."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            return {"output": self._function(torch.from_numpy(feeds["image"]).double()).numpy()}


class TestPlantedErrors:
    def moved(self, function: Callable[[Tensor], Tensor], image: Tensor, draw: int = 0) -> float:
        """By how many unit roundoffs an answer moves, relatively."""
        session, feed = Evaluated(function), {"image": image.numpy()}
        exact, other = session.run(feed)["output"], moved_by_rounding(session, feed, UNIT, draw)["output"]  # type: ignore[arg-type]
        return float(np.abs(other - exact).max() / np.abs(exact).max()) / UNIT

    def test_one_operation_moves_by_less_than_its_unit_roundoff(self) -> None:
        assert 0.1 < self.moved(lambda x: x * 3.0, torch.randn(1, 3, 8, 8)) < 1

    def test_equal_terms_err_alike_and_do_not_average_out(self) -> None:
        assert self.moved(lambda x: x.mean((2, 3)), torch.full((1, 3, 112, 112), 0.1)) > 100
        assert self.moved(lambda x: x.mean((2, 3)), torch.rand(1, 3, 112, 112)) < 40

    def test_a_transposed_convolution_of_groups_adds_the_terms_of_one(self) -> None:
        """The sums of a thousand channels apart are as short as that of one."""
        image, weight = torch.full((1, 3, 112, 112), 0.1), torch.full((1000, 1, 2, 2), 0.1)

        def upsampled(x: Tensor, groups: int) -> Tensor:
            return nn.functional.conv_transpose2d(x[:, :1, :2, :2].expand(1, 1000, 2, 2), weight.to(x.dtype), stride=2, groups=groups)

        assert self.moved(lambda x: upsampled(x, 1000), image) < 10
        assert self.moved(lambda x: upsampled(x, 1), image) > 10

    def test_a_difference_of_equals_has_the_error_of_its_terms(self) -> None:
        assert self.moved(lambda x: x * 1000.0 - 999.0, 1 + 1e-6 * torch.randn(1, 3, 8, 8)) > 50

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: nn.functional.layer_norm(x, x.shape[1:]),
            lambda x: nn.functional.group_norm(x, 3),
            lambda x: nn.functional.instance_norm(x),
            lambda x: (x - x.mean()) / (x.var() + 1e-5).sqrt(),
        ],
        ids=["layer norm", "group norm", "instance norm", "written out"],
    )
    def test_what_a_normalisation_does_inside_counts(self, function: Callable[[Tensor], Tensor]) -> None:
        image = torch.full((1, 3, 16, 16), 4.2)
        moved = moved_by_rounding(Evaluated(function), {"image": image.numpy()}, UNIT, 0)["output"]  # type: ignore[arg-type]
        assert np.abs(moved).max() > 4.2 * UNIT / 1e-5**0.5 / 4

    def test_what_is_passed_on_is_not_rounded(self) -> None:
        assert self.moved(lambda x: x.relu().flip(-1).reshape(3, -1).transpose(0, 1)[2:].clamp(max=0.5), torch.randn(1, 3, 8, 8)) == 0

    def test_attention_and_convolution_are_taken_apart(self) -> None:
        def attention(x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

        assert 0.1 < self.moved(attention, torch.randn(1, 2, 16, 8)) < 100
        kernel = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).double()
        assert 0.1 < self.moved(lambda x: nn.functional.conv2d(x, kernel), torch.randn(1, 3, 8, 8)) < 20

    def test_what_onnx_has_no_operator_for_is_off_by_the_last_place_of_1(self) -> None:
        small = torch.full((1, 3, 8, 8), 1e-3)
        for function in (torch.expm1, torch.log1p, lambda x: nn.functional.elu(-x)):
            assert self.moved(function, small) > 30
        assert self.moved(nn.functional.elu, small) < 2

    def test_a_deviation_is_as_far_off_as_its_mean(self) -> None:
        image = torch.full((1, 3, 8, 8), 0.3)
        session, feed = Evaluated(lambda x: x.std((2, 3))), {"image": image.numpy()}
        moved = moved_by_rounding(session, feed, UNIT, 0)["output"]  # type: ignore[arg-type]
        assert 0 < np.abs(moved).max() < 100 * UNIT

    def test_another_draw_moves_otherwise(self) -> None:
        image = torch.full((1, 3, 8, 8), 0.3)
        assert len({self.moved(lambda x: x.exp().sum((1, 2, 3)), image, draw) for draw in range(6)}) > 1


def test_an_answer_of_nothing_but_noise_is_judged_beside_the_other_answers(tmp_path: Path) -> None:
    class Last(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return nn.functional.layer_norm(image.flatten(1) + 5.3, (image[0].numel(),))

    right = judged(Last(), picture(16), tmp_path)
    assert right.failed() == set()
    wrong = {one.feeds: one for one in right.compared(right.changed(off_by_one))}
    answer = wrong["noise"].max_abs / wrong["noise"].max_rel
    assert not wrong["zeros"].passed
    assert 0 < (wrong["zeros"].tolerance or 0) <= LARGEST_FLOOR * answer * 1.01

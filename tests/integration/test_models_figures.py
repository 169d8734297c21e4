import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.cost import config_cost, cost
from dtvit_deploy.models.dualtoken.layers import GridInterpolation
from dtvit_deploy.models.dualtoken.network import DualTokenViT
from dtvit_deploy.models.registry import VARIANTS

torch.set_num_threads(1)

S_MIX = VARIANTS["dualtoken-vit-s-mix"].config
T_MIX = VARIANTS["dualtoken-vit-t-mix"].config
SMALL = dataclasses.replace(T_MIX, dims=(16, 32, 64), depths=(1, 2, 1), num_classes=3)
"""Everything the real networks have, in a size that a test can run."""


@pytest.mark.parametrize("each", VARIANTS.values(), ids=lambda each: each.name)
def test_counting_gives_the_registered_figures_exactly(each) -> None:  # type: ignore[no-untyped-def]
    counted = config_cost(each.config)
    assert (counted.params, counted.macs) == (each.params, each.macs)


def test_counting_leaves_a_real_network_as_it_was() -> None:
    network = DualTokenViT(SMALL).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    counted = cost(network, (1, 3, 224, 224))
    assert counted == config_cost(SMALL)
    assert all(tensor.device.type == "cpu" and torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_interpolation_costs_nothing_as_in_the_paper() -> None:
    class OnlyInterpolates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.interpolate = GridInterpolation((4, 4), (7, 7))
            self.linear = torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.interpolate(x))

    assert cost(OnlyInterpolates(), (1, 16, 8)).macs == 49 * 8 * 2


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (800, 1280)], ids=str)
@pytest.mark.parametrize("name", ["dualtoken-vit-t-mix", "dualtoken-vit-s", "dualtoken-vit-s-tokens-0", "dualtoken-vit-s-normal-star"])
def test_other_input_sizes_keep_their_parameters_and_answer_with_logits(name: str, size: tuple[int, int]) -> None:
    config = dataclasses.replace(VARIANTS[name].config, input_size=size, num_classes=10)
    with torch.device("meta"):
        network = DualTokenViT(config).eval()
        assert network(torch.empty(2, 3, *size)).shape == (2, 10)
    ten_classes_less = VARIANTS[name].params - 990 * 1281
    assert sum(parameter.numel() for parameter in network.parameters()) == ten_classes_less


def test_the_network_answers_at_512() -> None:
    network = DualTokenViT(dataclasses.replace(SMALL, input_size=(512, 512))).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (1, 3)
    assert torch.isfinite(logits).all()


def test_window_attention_refuses_a_size_that_its_windows_do_not_tile() -> None:
    with pytest.raises(InputError, match="window"):
        dataclasses.replace(VARIANTS["dualtoken-vit-s-mix-window"].config, input_size=(256, 256))


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 26)] * 4)
def test_interpolation_by_matrices_is_bilinear_interpolation(height: int, width: int, new_height: int, new_width: int) -> None:
    # Compared with torch's in FP64: in FP32 torch rounds its sampling positions, and is itself up to 3e-6 off.
    assert_interpolates((height, width), (new_height, new_width), torch.float64, tolerance=1e-6)


GRIDS = [((16, 16), (7, 7)), ((25, 40), (7, 7)), *[((7, 7), (side, side)) for side in (3, 4, 5, 6, 8)]]
"""512×512 and 800×1280 to 7×7, and 224×224 to the grids of the ablations."""


@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_interpolation_between_the_networks_grids_is_torchs_own_to_its_accuracy(source: tuple[int, int], target: tuple[int, int]) -> None:
    assert_interpolates(source, target, torch.float64, tolerance=1e-6)
    assert_interpolates(source, target, torch.float32, tolerance=5e-6)


def assert_interpolates(source: tuple[int, int], target: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    tokens = torch.randn(1, source[0] * source[1], 5, generator=torch.Generator().manual_seed(0))
    grid = tokens.reshape(1, *source, 5).permute(0, 3, 1, 2).to(dtype)
    expected = F.interpolate(grid, target, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(GridInterpolation(source, target)(tokens), expected.float(), atol=tolerance, rtol=0)


def test_eval_is_deterministic_and_training_drops_paths() -> None:
    network = DualTokenViT(dataclasses.replace(SMALL, drop_path=0.5))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # so that drop path is the only difference
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # fresh branches are too small to be missed
    image = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.manual_seed(0)
        trained = [network(image) for _ in range(2)]
        network.eval()
        evaluated = [network(image) for _ in range(2)]
    assert not torch.allclose(*trained, atol=1e-3)
    assert torch.equal(*evaluated)
    assert not torch.allclose(trained[0], evaluated[0], atol=1e-3)


def test_drop_path_grows_to_the_last_block() -> None:
    rates = [block.drop_path.rate for blocks in DualTokenViT(SMALL).stages for block in blocks]
    assert rates[0] == 0.0
    assert rates[-1] == pytest.approx(SMALL.drop_path)
    assert all(later > earlier for earlier, later in itertools.pairwise(rates))


def test_every_parameter_is_trained() -> None:
    network = DualTokenViT(SMALL)
    network(torch.randn(2, 3, 224, 224)).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []

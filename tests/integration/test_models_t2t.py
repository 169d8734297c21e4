"""T2T-ViT against the plain form of its paper (`plain_t2t.py`), by the names of its checkpoints, and as artefacts."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.checkpoint import read_checkpoint
from dtvit_deploy.models.cost import cost
from dtvit_deploy.models.fitting import load_state
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.registry import VARIANTS
from dtvit_deploy.models.t2t.attention import ChannelScale
from dtvit_deploy.models.t2t.config import T2TConfig
from dtvit_deploy.models.t2t.network import DenseBlock, T2TViT, sinusoids
from dtvit_deploy.models.t2t.split import SoftSplit, SplitProjection
from dtvit_deploy.models.t2t.token_layers import PerformerLayer
from lively import lively, verified
from plain_t2t import Plain

torch.set_num_threads(1)

SMALL = T2TConfig(dim=32, depths=(2,), heads=2, mlp_ratio=2, input_size=(48, 32), num_classes=5, token_dim=16)
"""Everything the real networks have, in a size that a test can run; not square, so that rows and columns cannot be exchanged."""
KINDS = {
    "performer": SMALL,
    "transformer": dataclasses.replace(SMALL, tokens="transformer"),
    "convolution": dataclasses.replace(SMALL, tokens="convolution"),
    "many heads": dataclasses.replace(SMALL, heads=8),
    "channel attention": dataclasses.replace(SMALL, backbone="channel-attention"),
    "ghost": dataclasses.replace(SMALL, mlp_ratio=3, backbone="ghost"),
    "dense": dataclasses.replace(SMALL, depths=(2, 1, 2), growth=16, heads=4, backbone="dense"),
}
kinds = pytest.mark.parametrize("config", KINDS.values(), ids=list(KINDS))


@kinds
def test_the_rewritten_form_is_the_published_one(config: T2TConfig) -> None:
    network = lively(T2TViT(config).double())
    image = torch.randn(2, 3, *config.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image[1] = image[1] * 0.3 + 2  # brighter, and with less in it
    with torch.no_grad():
        expected = Plain(config, network.state_dict()).logits(image)
        answer = network(image)
    assert (answer - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (answer[0] - answer[1]).abs().max() > 0.01  # the weights are alive: another image has another answer


@pytest.mark.parametrize("side", [224, 384])
@pytest.mark.parametrize(("channels", "stride", "kernel", "padding", "part"), [(3, 4, 7, 2, 1), (64, 2, 3, 1, 4), (64, 2, 3, 1, 8)])
def test_the_soft_split_is_unfold_bit_by_bit(side: int, channels: int, stride: int, kernel: int, padding: int, part: int) -> None:
    x = torch.randn(1, channels, side // part, side // part, generator=torch.Generator().manual_seed(0))
    assert torch.equal(SoftSplit(channels, kernel, stride, padding)(x), F.unfold(x, kernel, padding=padding, stride=stride).mT)


def test_the_projected_split_is_a_split_and_a_linear_layer() -> None:
    layer, x = SplitProjection(8, 5).double(), torch.randn(2, 8, 6, 10, dtype=torch.float64)
    expected = F.linear(F.unfold(x, 3, padding=1, stride=2).mT, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-13)


def performer(energy: float) -> tuple[PerformerLayer, list[Tensor]]:
    """A layer of the real width, and keys and queries with that |z|²/2 on average; values of size 1."""
    layer, generator = PerformerLayer(147, 64, 784).double(), torch.Generator().manual_seed(0)
    nn.init.orthogonal_(layer.w, gain=32**0.5, generator=generator)
    key, query, value = (torch.randn(1, 784, 64, generator=generator, dtype=torch.float64) for _ in range(3))
    return layer, [key * (energy / 32) ** 0.5, query * (energy / 32) ** 0.5, value]


def plain_performer(layer: PerformerLayer, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
    def phi(z: Tensor) -> Tensor:
        return (z @ layer.w.mT - z.pow(2).sum(-1, keepdim=True) / 2).exp() / layer.w.shape[0] ** 0.5

    return (phi(query) @ (phi(key).mT @ value)) / (phi(query) @ phi(key).sum(1)[..., None] + 1e-8)


@pytest.mark.parametrize("energy", [1.0, 7.0, 30.0, 100.0, 250.0])
def test_the_shifted_performer_is_the_plain_one_with_its_epsilon(energy: float) -> None:
    layer, given = performer(energy)
    with torch.no_grad():
        expected, answer = plain_performer(layer, *given), layer.attend(*given)
    assert (answer - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_epsilon_switches_off_queries_that_are_like_no_key() -> None:
    layer, (key, query, value) = performer(30.0)
    with torch.no_grad():
        expected, answer = plain_performer(layer, key, query * 2, value), layer.attend(key, query * 2, value)
        layer.floor = -math.inf
        without = layer.attend(key, query * 2, value)
    assert (answer - expected).abs().max() <= 1e-12 * value.abs().max()
    assert (without - expected).abs().max() > 0.1


@pytest.mark.parametrize("energy", [7.0, 30.0, 100.0, 1000.0])
def test_the_shifted_performer_answers_in_float16_where_the_plain_one_does_not(energy: float) -> None:
    layer, given = performer(energy)
    with torch.no_grad():
        exact = layer.attend(*given)
        halves, half = [one.half() for one in given], layer.half()
        answer, plain = half.attend(*halves), plain_performer(half, *halves)
    assert torch.isfinite(answer).all()
    assert (energy < 30) == bool(torch.isfinite(plain).all())
    assert (answer.double() - exact).abs().max() <= 0.05 * given[2].abs().max()


def test_training_the_shifted_performer_is_training_the_plain_one() -> None:
    gradients = []
    for form in (PerformerLayer.attend, plain_performer):
        layer, given = performer(7.0)
        leaves = [one.requires_grad_() for one in given]
        form(layer, *leaves).pow(2).sum().backward()  # type: ignore[operator]
        gradients.append([one.grad for one in leaves])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert other is not None
        assert (one - other).abs().max() <= 1e-11 * other.abs().max()


# --- checkpoints by their published names ---


def published_names(config: T2TConfig) -> Iterator[str]:
    """Names in the published checkpoints, as the specification of the format lists them."""

    def both(*names: str) -> Iterator[str]:
        yield from (f"{name}.{end}" for name in names for end in ("weight", "bias"))

    yield from ("cls_token", "pos_embed", *both("norm", "head", "tokens_to_token.project"))
    if config.tokens == "convolution":
        yield from both("tokens_to_token.soft_split0", "tokens_to_token.soft_split1")
    else:
        for layer in ("tokens_to_token.attention1", "tokens_to_token.attention2"):
            yield from both(f"{layer}.norm1", f"{layer}.norm2")
            if config.tokens == "performer":
                yield from (f"{layer}.w", *both(f"{layer}.kqv", f"{layer}.proj", f"{layer}.mlp.0", f"{layer}.mlp.2"))
            else:
                yield from (f"{layer}.attn.qkv.weight", *both(f"{layer}.attn.proj", f"{layer}.mlp.fc1", f"{layer}.mlp.fc2"))
    index = 0
    for group, depth in enumerate(config.depths):
        for _ in range(depth):
            block = f"blocks.{index}"
            index += 1
            yield from both(f"{block}.norm1", f"{block}.norm2", f"{block}.attn.proj", f"{block}.mlp.fc1", f"{block}.mlp.fc2")
            if config.backbone == "ghost":
                yield from (f"{block}.attn.{one}.weight" for one in "qkv")
                yield from (f"{block}.attn.cheap_operation_{one}.weight" for one in "qkv")
                yield from (f"{block}.mlp.cheap_operation{one}.weight" for one in (2, 3))
            else:
                yield f"{block}.attn.qkv.weight"
            if config.backbone == "channel-attention":
                yield from (f"{block}.attn.se_layer.fc.{one}.weight" for one in (0, 2))
            if config.backbone == "dense":
                yield from both(f"{block}.dense_linear")
        if group < len(config.depths) - 1:
            yield from both(f"blocks.{index}.linear")
            index += 1


@kinds
def test_a_published_state_dict_loads_by_its_own_names(config: T2TConfig, tmp_path: Path) -> None:
    source = lively(T2TViT(config))
    state = {name: source.state_dict()[name].clone() for name in published_names(config)}
    assert state.keys() == source.state_dict().keys()
    path = tmp_path / "published.pth.tar"
    torch.save({"state_dict_ema": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 310}, path)
    loaded = T2TViT(config)
    load_state(loaded, read_checkpoint(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_a_state_dict_that_lacks_one_tensor_or_is_of_another_size_is_refused(tmp_path: Path) -> None:
    state = T2TViT(SMALL).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name != "tokens_to_token.attention1.w"}, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"1 missing: tokens_to_token\.attention1\.w"):
        load_state(T2TViT(SMALL), read_checkpoint(tmp_path / "less.pth"))
    torch.save(state, tmp_path / "small.pth")
    with pytest.raises(InputError, match="of another shape: pos_embed"):
        load_state(T2TViT(dataclasses.replace(SMALL, input_size=(64, 64))), read_checkpoint(tmp_path / "small.pth"))


# --- the network itself ---


@pytest.mark.parametrize("size", [(224, 230), (8, 224), (0, 16)])
def test_a_size_that_the_splits_cannot_halve_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="divide by 16"):
        dataclasses.replace(SMALL, input_size=size)


def test_heads_that_do_not_divide_a_width_of_the_dense_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="24 channels cannot be shared among 16 heads"):
        T2TConfig(dim=32, depths=(1, 1), growth=16, heads=16, mlp_ratio=2, backbone="dense")


def test_positions_are_sines_and_cosines_by_turns() -> None:
    table = sinusoids(3, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(table[2, ::2], torch.tensor([2.0, 0.02]).sin())
    torch.testing.assert_close(table[2, 1::2], torch.tensor([2.0, 0.02]).cos())


def test_all_but_positions_and_features_are_trained() -> None:
    network = T2TViT(SMALL)
    network(torch.randn(2, 3, 48, 32)).sum().backward()
    frozen = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert set(frozen) == {"pos_embed", "tokens_to_token.attention1.w", "tokens_to_token.attention2.w"}


def test_drop_path_grows_by_blocks_and_in_the_dense_backbone_by_groups_of_twelve_steps() -> None:
    plain = [block.drop_path.rate for block in T2TViT(dataclasses.replace(SMALL, depths=(5,))).blocks]
    assert plain == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    dense = [block.drop_path.rate for block in T2TViT(KINDS["dense"]).blocks if isinstance(block, DenseBlock)]
    assert dense == pytest.approx([0, 0, 0.1 / 11, 0.2 / 11, 0.2 / 11])


def test_a_channel_scale_costs_what_its_published_convolution_does() -> None:
    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Conv1d(6, 6, 1, groups=6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(x.mT).mT

    assert cost(ChannelScale(6), (2, 5, 6)) == cost(Published(), (2, 5, 6))


TINY = """
import torch
from dtvit_deploy.models.t2t.config import T2TConfig
from dtvit_deploy.models.t2t.network import T2TViT

def net():
    config = T2TConfig(
        dim=32, depths=(2,), heads=2, mlp_ratio=2, tokens="transformer", input_size=(48, 32), num_classes=5, token_dim=16
    )
    return T2TViT(config), {"image": torch.randn(1, 3, 48, 32)}
"""


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("t2t-vit-7", (Target.ONNX,)),
        ("tiny_t2t:net", (Target.ONNX, Target.OPENVINO)),
        pytest.param("t2t-vit-7", (Target.ONNX, Target.OPENVINO, Target.COREML), marks=pytest.mark.thorough),
    ],
)
def test_exports_without_what_compilers_lack_and_answers_as_torch(
    name: str, targets: tuple[Target, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_t2t.py").write_text(TINY)
    config, size = KINDS["transformer"], None
    if name in VARIANTS:
        registered, size = VARIANTS[name].config, (64, 48)
        assert isinstance(registered, T2TConfig)
        config = dataclasses.replace(registered, input_size=size, num_classes=5)
    lacking = frozenset({"Einsum", "GatherND", "Gather", "Tile", "Col2Im", "Loop"})
    verified(Model(name=name, input_size=size), lively(T2TViT(config)), targets, tmp_path, lacking)

"""LightViT against the plain form of its paper (`plain_lightvit.py`), by the names of its checkpoints, and as artefacts."""

import dataclasses
from pathlib import Path

import pytest
import torch

from dtvit_deploy.artifacts.target import Target
from dtvit_deploy.errors import InputError
from dtvit_deploy.models.checkpoint import read_checkpoint
from dtvit_deploy.models.fitting import load_state
from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.lightvit.network import LightViT, unwindowed, windowed
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.registry import VARIANTS
from lively import lively, verified
from plain_lightvit import Plain

torch.set_num_threads(1)

SMALL = LightViTConfig(dims=(8, 16, 32), depths=(1, 2, 1), heads=(1, 2, 4), tokens=3, input_size=(224, 448), num_classes=5)
"""Everything the real networks have, in a size that a test can run; not square, so that rows and columns cannot be exchanged."""


def test_the_rewritten_form_is_the_published_one() -> None:
    network = lively(LightViT(SMALL).double())
    images = torch.randn(2, 3, *SMALL.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images[1] = images[1] * 0.3 + 2  # brighter, and with less in it
    with torch.no_grad():
        expected = Plain(SMALL, network.state_dict()).logits(images)
        answer = network(images)
    assert (answer - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (answer[0] - answer[1]).abs().max() > 0.01  # the weights are alive: another image has another answer


def test_windows_are_taken_apart_and_put_together_again() -> None:
    x = torch.arange(2 * 14 * 21 * 3.0).reshape(2, 14, 21, 3)
    found = windowed(x)
    assert torch.equal(found[1, 49:98], x[1, 0:7, 7:14].reshape(49, 3))  # the second window of the first row
    assert torch.equal(unwindowed(found, (14, 21)), x)


INDEX = torch.tensor([(i // 7 - j // 7 + 6) * 13 + (i % 7 - j % 7 + 6) for i in range(49) for j in range(49)])
"""What the released module registers as a buffer of every block, and so stores."""


def published(config: LightViTConfig) -> dict[str, torch.Tensor]:
    """A state dict with every name of the released module's, the index among them."""
    values = LightViT(config).state_dict()
    return {name: INDEX if name.endswith("relative_position_index") else values[name].clone() for name in published_names(config)}


def published_names(config: LightViTConfig) -> list[str]:
    """As the released module calls them, written from its list of layers."""
    names = ["global_token", "head.weight", "head.bias", "norm.weight", "norm.bias"]
    names += [f"neck.{layer}.{end}" for layer in (0, 1) for end in ("weight", "bias")]
    for index in range(4):
        names += [f"patch_embed.stem.{3 * index}.weight"]
        ends = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        names += [f"patch_embed.stem.{3 * index + 1}.{end}" for end in ends]
    names += [f"patch_embed.{layer}.{end}" for layer in ("proj", "norm") for end in ("weight", "bias")]
    layers = ["norm1", "attn.qkv", "attn.kv_global", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", "mlp.attn.norm"]
    layers += [f"mlp.attn.{one}" for one in ("global_reduce", "local_reduce", "channel_select", "spatial_select")]
    for stage, depth in enumerate(config.depths):
        for index in range(bool(stage), depth + bool(stage)):
            names += [f"stages.{stage}.{index}.{layer}.{end}" for layer in layers for end in ("weight", "bias")]
            names += [f"stages.{stage}.{index}.attn.relative_position_{end}" for end in ("bias_table", "index")]
        if stage:
            names += [f"stages.{stage}.0.{norm}.{end}" for norm in ("norm", "norm2") for end in ("weight", "bias")]
            names += [f"stages.{stage}.0.{linear}.weight" for linear in ("reduction", "res_proj", "proj")]
    return names


@pytest.mark.parametrize("config", [SMALL, VARIANTS["lightvit-t"].config], ids=["small", "T"])
def test_a_published_state_dict_loads_by_its_own_names(config: LightViTConfig, tmp_path: Path) -> None:
    state = published(config)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 300}, tmp_path / "published.ckpt")
    loaded = LightViT(config)
    said = load_state(loaded, read_checkpoint(tmp_path / "published.ckpt"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert any(f"{sum(config.depths)} tables that the network makes itself were left out" in each for each in said)


def test_a_checkpoint_of_other_relative_positions_is_refused(tmp_path: Path) -> None:
    state = published(SMALL)
    state["stages.1.1.attn.relative_position_index"] = INDEX.flip(0)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"1 other than what the network makes itself: stages\.1\.1\.attn\.relative_position_index"):
        load_state(LightViT(SMALL), read_checkpoint(tmp_path / "other.pth"))


@pytest.mark.parametrize("size", [(224, 256), (192, 224), (0, 224)])
def test_a_size_that_is_not_made_of_whole_windows_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="divide by 224"):
        dataclasses.replace(SMALL, input_size=size)


def test_drop_path_grows_from_the_first_block_to_the_last() -> None:
    rates = [module.drop_path.rate for module in LightViT(SMALL).modules() if hasattr(module, "drop_path")]
    assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])


TINY = """
import torch
from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.lightvit.network import LightViT

def net():
    config = LightViTConfig(dims=(8, 16, 32), depths=(1, 2, 1), heads=(1, 2, 4), tokens=3, input_size=(224, 448), num_classes=5)
    return LightViT(config), {"image": torch.randn(1, 3, 224, 448)}
"""


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("tiny_lightvit:net", (Target.ONNX, Target.OPENVINO)),
        pytest.param("lightvit-t", (Target.ONNX, Target.OPENVINO, Target.COREML), marks=pytest.mark.thorough),
    ],
)
def test_exports_without_what_compilers_lack_and_answers_as_torch(
    name: str, targets: tuple[Target, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_lightvit.py").write_text(TINY)
    config = VARIANTS[name].config if name in VARIANTS else SMALL
    assert isinstance(config, LightViTConfig)
    lacking = frozenset({"Einsum", "GatherND", "Gather", "Tile", "MaxPool", "Loop"})
    verified(Model(name=name), lively(LightViT(config)), targets, tmp_path, lacking)

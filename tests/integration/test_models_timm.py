import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dtvit_deploy.calibration.preprocessing import Preprocessing
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference

torch.set_num_threads(1)


class Convolutional(nn.Module):
    """Takes any size and knows no ``img_size``, as timm's convolutional networks."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


class Positional(nn.Module):
    """Has a position embedding, so that it must be told its size."""

    def __init__(self, num_classes: int = 1000, img_size: tuple[int, int] = (224, 224)) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 3, *img_size))
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x + self.position).mean((2, 3)))


NETWORKS = {"resnet18": Convolutional, "vit_tiny_patch16_224": Positional}
CONFIG = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.2, 0.2),
    "crop_pct": 0.9,
    "crop_mode": "center",
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for timm, with the four functions that are used of it; the dict is what its networks ask of their images."""
    timm, data = ModuleType("timm"), ModuleType("timm.data")
    config: dict[str, Any] = dict(CONFIG)

    def create_model(name: str, pretrained: bool = True, **options: Any) -> nn.Module:
        assert not pretrained
        return NETWORKS[name](**options)

    vars(timm).update(__version__="1.0", data=data, create_model=create_model)
    vars(timm).update(is_model=NETWORKS.__contains__, list_models=lambda: [*NETWORKS])
    vars(data).update(resolve_model_data_config=lambda module: config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return config


def test_a_timm_network_comes_with_timms_preprocessing(config: dict[str, Any]) -> None:
    reference = load_reference(Model(name="timm:resnet18"))
    assert {name: tuple(tensor.shape) for name, tensor in reference.inputs.items()} == {"x": (1, 3, 224, 224)}
    assert reference.output_names == ("logits",)
    assert not reference.module.training
    assert "RANDOM" in reference.weights.notes[0]
    # 224 / 0.9 is 248.9, and timm rounds down.
    expected = Preprocessing(resize=248, crop=(224, 224), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    assert {**reference.preprocessing, "crop": (224, 224), "mean": expected.mean, "std": expected.std} == {
        field: getattr(expected, field) for field in inspect.signature(Preprocessing).parameters
    }


def test_classes_and_checkpoint(config: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained = Convolutional(4)
    save_file(trained.state_dict(), tmp_path / "m.safetensors", {"format": "pt"})
    reference = load_reference(Model(name="timm:resnet18", num_classes=4, checkpoint=tmp_path / "m.safetensors"))
    assert torch.equal(reference.module.head.weight, trained.head.weight)
    assert reference.weights.kind == "checkpoint"


@pytest.mark.parametrize("name", NETWORKS)
def test_another_input_size_suits_networks_with_and_without_position_embedding(name: str, config: dict[str, Any]) -> None:
    reference = load_reference(Model(name=f"timm:{name}", input_size=(96, 128)))
    assert reference.inputs["x"].shape == (1, 3, 96, 128)
    assert reference.module(reference.inputs["x"]).shape == (1, 1000)
    assert (reference.preprocessing["crop"], reference.preprocessing["resize"]) == ([96, 128], 106)


def test_the_checkpoints_preprocessing_comes_before_timms(config: dict[str, Any], tmp_path: Path) -> None:
    said = {"preprocessing": '{"crop": [64, 64], "resize": 64, "interpolation": "bilinear"}'}
    save_file(Convolutional().state_dict(), tmp_path / "m.safetensors", said)
    reference = load_reference(Model(name="timm:resnet18", checkpoint=tmp_path / "m.safetensors"))
    assert reference.inputs["x"].shape == (1, 3, 64, 64)
    assert reference.preprocessing == {"crop": [64, 64], "resize": 64, "interpolation": "bilinear"}


def test_a_crop_that_cannot_be_expressed_is_noted(config: dict[str, Any]) -> None:
    config["crop_mode"] = "squash"
    assert any("squash" in note for note in load_reference(Model(name="timm:resnet18")).weights.notes)


def test_an_interpolation_that_cannot_be_expressed_is_refused(config: dict[str, Any]) -> None:
    config["interpolation"] = "hamming"
    with pytest.raises(InputError, match="hamming"):
        load_reference(Model(name="timm:resnet18"))


@pytest.mark.parametrize("name", ["resnet81", "hf-hub:somebody/resnet18"])
def test_a_name_that_timm_does_not_know_is_refused_and_nothing_is_fetched(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"no network '{name}'"):
        load_reference(Model(name=f"timm:{name}"))


def test_a_network_that_timm_cannot_make_is_refused_with_its_cause(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> nn.Module:
        raise AssertionError("input size must divide by the patch size")

    monkeypatch.setitem(NETWORKS, "resnet18", fails)
    with pytest.raises(InputError, match="must divide by the patch size") as caught:
        load_reference(Model(name="timm:resnet18"))
    assert isinstance(caught.value.__cause__, AssertionError)


def test_without_timm_the_message_explains_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match="needs torchvision") as caught:
        load_reference(Model(name="timm:resnet18"))
    assert caught.value.exit_code == 3
    assert "torchvision that was built for torch" in (caught.value.remedy or "")


def test_a_torchvision_of_another_torch_is_explained_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(MissingError, match="RuntimeError: operator torchvision::nms does not exist"):
        load_reference(Model(name="timm:resnet18"))

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtvit_deploy.artifacts.artifact import sha256_of
from dtvit_deploy.artifacts.signature import TensorSpec
from dtvit_deploy.errors import InputError, MissingError
from dtvit_deploy.models.checkpoint import weights_digest
from dtvit_deploy.models.dualtoken.network import DualTokenViT
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference
from dtvit_deploy.models.registry import VARIANTS

torch.set_num_threads(1)

T_MIX = "dualtoken-vit-t-mix"
PREPROCESSING = {"resize": 256, "crop": [256, 256], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
SAYS = {
    "model": T_MIX,
    "num_classes": "10",
    "classes": json.dumps([str(digit) for digit in range(10)]),
    "preprocessing": json.dumps(PREPROCESSING),
}


@pytest.fixture(scope="module")
def trained() -> DualTokenViT:
    torch.manual_seed(9)
    return DualTokenViT(VARIANTS[T_MIX].config.__class__(dims=(48, 96, 192), depths=(2, 6, 4), num_classes=10)).eval()


@pytest.fixture
def checkpoint(trained: DualTokenViT, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes the trained network in FP16, with metadata that the caller may change."""

    def write(**changes: str | None) -> Path:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in trained.state_dict().items()}
        metadata = {key: value for key, value in (SAYS | changes).items() if value is not None}
        save_file(state, tmp_path / "m.safetensors", metadata)
        return tmp_path / "m.safetensors"

    return write


def test_without_a_checkpoint_the_weights_are_seeded_and_the_link_says_so_loudly() -> None:
    reference = load_reference(Model(name="dualtoken-vit-t", seed=4))
    assert reference.weights.kind == "seeded"
    assert reference.weights.options == {"seed": 4}
    assert reference.weights.sha256 == weights_digest(reference.module)
    assert "THE WEIGHTS ARE RANDOM" in reference.weights.notes[0]
    assert {name: tuple(tensor.shape) for name, tensor in reference.inputs.items()} == {"image": (1, 3, 224, 224)}
    assert reference.output_names == ("logits",)
    assert not reference.module.training
    assert reference.preprocessing == {}


def test_a_seed_is_a_network_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (load_reference(Model(name=T_MIX, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert first.weights == again.weights
    assert torch.equal(first.inputs["image"], again.inputs["image"])
    assert first.weights.sha256 != other.weights.sha256


def test_a_checkpoint_brings_its_weights_classes_preprocessing_and_input_size(checkpoint, trained: DualTokenViT) -> None:  # type: ignore[no-untyped-def]
    path = checkpoint()
    reference = load_reference(Model(name=T_MIX, checkpoint=path))
    assert reference.weights.kind == "checkpoint"
    assert reference.weights.sha256 == sha256_of(path)
    assert reference.weights.options == {"weights_sha256": weights_digest(reference.module)}
    assert any("float16" in note for note in reference.weights.notes)
    assert reference.classes == tuple("0123456789")
    assert reference.preprocessing == PREPROCESSING
    assert reference.inputs["image"].shape == (1, 3, 256, 256)
    torch.testing.assert_close(reference.module.head.weight, trained.head.weight, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        assert reference.module(reference.inputs["image"]).shape == (1, 10)


def test_the_checkpoint_may_name_the_model(checkpoint) -> None:  # type: ignore[no-untyped-def]
    assert load_reference(Model(checkpoint=checkpoint())).model == T_MIX


def test_a_checkpoint_that_says_nothing_still_shows_its_classes(checkpoint) -> None:  # type: ignore[no-untyped-def]
    path = checkpoint(**dict.fromkeys(SAYS))
    reference = load_reference(Model(name=T_MIX, checkpoint=path))
    assert reference.module.head.out_features == 10
    assert reference.classes == ()


def test_another_input_size_scales_the_preprocessing_and_notes_it(checkpoint) -> None:  # type: ignore[no-untyped-def]
    reference = load_reference(Model(name=T_MIX, checkpoint=checkpoint(), input_size=(320, 384)))
    assert reference.inputs["image"].shape == (1, 3, 320, 384)
    assert reference.preprocessing == PREPROCESSING | {"crop": [320, 384], "resize": 320}
    assert "the checkpoint's preprocessing for 256×256 was scaled to 320×384" in reference.weights.notes


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"model": "dualtoken-vit-s"}, {}, f"is of the model 'dualtoken-vit-s', not of {T_MIX}"),
        ({}, {"num_classes": 12}, "contradictory.*12 in the options, 10 in the checkpoint's metadata"),
        ({"num_classes": None, "classes": None}, {"num_classes": 12}, "12 in the options, 10 in the checkpoint's head.weight"),
        ({"num_classes": "11", "classes": None}, {}, "11 in the checkpoint's metadata, 10 in the checkpoint's head.weight"),
        ({"classes": '["only one"]'}, {}, "wrong in 'classes'"),
        ({"num_classes": "1e9"}, {}, "wrong in 'num_classes'"),
        ({"preprocessing": '{"crop": [225, 225]}'}, {}, "225×225"),
        ({}, {"input_size": (100, 100)}, "100×100"),
    ],
)
def test_contradictions_are_refused(changes, options, message: str, checkpoint) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        load_reference(Model(name=T_MIX, checkpoint=checkpoint(**changes), **options))


@pytest.mark.parametrize("shape", [(1 << 40, 1280), (1 << 40, 0)], ids=str)
def test_a_class_count_that_the_file_does_not_hold_is_not_believed(shape: tuple[int, int], trained: DualTokenViT, tmp_path: Path) -> None:
    torch.save({**trained.state_dict(), "head.weight": torch.zeros(1, 1).expand(shape[0], 1)[:, : shape[1]]}, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"of another shape.*head\.weight"):
        load_reference(Model(name=T_MIX, checkpoint=tmp_path / "m.pt"))


def test_a_model_named_by_a_file_never_imports_code(checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    Path("planted.py").write_text("open('it-ran', 'w').close()")
    with pytest.raises(InputError, match="neither in the registry nor of timm"):
        load_reference(Model(checkpoint=checkpoint(model="planted:make")))
    assert not Path("it-ran").exists()


def test_no_model_at_all_is_refused(checkpoint) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="no checkpoint that names one"):
        load_reference(Model())
    with pytest.raises(InputError, match="does not name one"):
        load_reference(Model(checkpoint=checkpoint(model=None)))


@pytest.mark.parametrize("model", ["resnet18", "", "./net.py:make", "a:b:c", ":make", "net:", "a..b:make", "timm", "DUALTOKEN-VIT-S"])
def test_what_is_none_of_the_three_forms_is_refused_with_all_that_exists(model: str) -> None:
    with pytest.raises(InputError, match="there is no model") as caught:
        load_reference(Model(name=model))
    assert all(name in (caught.value.remedy or "") for name in [*VARIANTS, "timm:NAME", "package.module:factory"])


def test_timm_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="not followed by the name"):
        load_reference(Model(name="timm:"))


def test_weights_that_are_nan_are_refused_by_the_files_name(trained: DualTokenViT, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    state["stages.0.0.qkv.weight"][3, 5] = float("nan")
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"m\.safetensors holds 1 weights that are NaN.*stages\.0\.0\.qkv\.weight"):
        load_reference(Model(name=T_MIX, checkpoint=tmp_path / "m.safetensors"))


def test_a_float64_value_too_large_for_float32_is_refused(trained: DualTokenViT, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    state["head.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"head\.bias \(0 NaN, 10 infinite of 10\)"):
        load_reference(Model(name=T_MIX, checkpoint=tmp_path / "m.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"inputs": (TensorSpec("x", (1,)),)}, "has one input"), ({"outputs": ("a", "b")}, "has one output")],
)
def test_a_registry_model_has_one_input_and_one_output(options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        load_reference(Model(name=T_MIX, **options))


@pytest.mark.parametrize("options", [{"input_size": (0, 224)}, {"num_classes": 0}, {"seed": -1}, {"seed": 1 << 64}], ids=str)
def test_impossible_options_are_refused_when_they_are_made(options) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        Model(**options)


def test_without_torch_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingError, match="safetensors") as caught:
        load_reference(Model(name=T_MIX))
    assert "dtvit-deploy[export]" in (caught.value.remedy or "")

import copy
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file, save_model
from torch import nn

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.checkpoint import read_checkpoint, require_finite, weights_digest
from dtvit_deploy.models.fitting import load_state

torch.set_num_threads(1)

IN_A_FOLDER_OF_ITS_OWN = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def written(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    return weights_digest(one) == weights_digest(other)


# What loads


def as_safetensors(folder: Path, network: nn.Module) -> Path:
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


WAYS: dict[str, Callable[[Path, nn.Module], Path]] = {
    "safetensors": as_safetensors,
    "a state dict in .pt": lambda folder, network: written(folder / "model.pt", network.state_dict()),
    "a state dict in .pth": lambda folder, network: written(folder / "model.pth", network.state_dict()),
    "a state dict in .bin": lambda folder, network: written(folder / "model.bin", network.state_dict()),
    "a suffix in capitals": lambda folder, network: written(folder / "MODEL.PT", network.state_dict()),
    "a training checkpoint": lambda folder, network: written(folder / "last.pt", {"epoch": 3, "state_dict": network.state_dict()}),
    "under 'model'": lambda folder, network: written(folder / "m.pt", {"model": network.state_dict(), "optimizer": {}}),
    "DataParallel": lambda folder, network: written(folder / "dp.pt", nn.DataParallel(network).state_dict()),
    "AveragedModel": lambda folder, network: written(folder / "a.pt", torch.optim.swa_utils.AveragedModel(network).state_dict()),
    "torch.compile inside DataParallel": lambda folder, network: written(
        folder / "c.pt", {f"module._orig_mod.{name}": tensor for name, tensor in network.state_dict().items()}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_usual_way_of_saving_gives_the_same_weights_back(way: str, tmp_path: Path) -> None:
    network, other = small(0), small(1)
    load_state(other, read_checkpoint(WAYS[way](tmp_path, network)))
    assert same(network, other)


def test_the_averaged_weights_are_preferred_and_a_note_says_so(tmp_path: Path) -> None:
    raw, average, loaded = small(0), small(1), small(2)
    checkpoint = read_checkpoint(written(tmp_path / "m.pt", {"model": raw.state_dict(), "model_ema": average.state_dict()}))
    load_state(loaded, checkpoint)
    assert same(average, loaded)
    assert any("'model_ema'" in note and "'model'" in note for note in checkpoint.notes)


def test_a_prefix_that_the_network_itself_has_is_kept(tmp_path: Path) -> None:
    network, other = nn.DataParallel(small(0)), nn.DataParallel(small(1))
    load_state(other, read_checkpoint(written(tmp_path / "m.pt", network.state_dict())))
    assert same(network, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32_and_integers_stay(dtype: torch.dtype, tmp_path: Path) -> None:
    network, other = small(0), small(1)
    network[1].num_batches_tracked += 7
    checkpoint = read_checkpoint(
        written(tmp_path / "m.pt", {name: t.to(dtype) if t.is_floating_point() else t for name, t in network.state_dict().items()})
    )
    load_state(other, checkpoint)
    assert {tensor.dtype for tensor in other.state_dict().values()} == {torch.float32, torch.int64}
    assert other[1].num_batches_tracked == 7
    torch.testing.assert_close(other[0].weight, network[0].weight, atol=1e-2, rtol=1e-2)
    assert any(str(dtype).removeprefix("torch.") in note for note in checkpoint.notes)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight


def test_weights_that_are_shared_may_be_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = Tied(), Tied()
    save_model(network, str(tmp_path / "m.safetensors"))
    load_state(other, read_checkpoint(tmp_path / "m.safetensors"))
    assert same(network, other)


# What does not fit


def test_a_mismatch_lists_missing_unexpected_and_wrongly_shaped_keys_with_both_shapes(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["0.weight"]
    state |= {f"extra.{index}": torch.zeros(1) for index in range(9)}
    state["3.weight"] = torch.zeros(8, 16)
    with pytest.raises(InputError) as caught:
        load_state(small(), read_checkpoint(written(tmp_path / "m.pt", state)))
    message = str(caught.value)
    assert "1 missing: 0.weight" in message
    assert "9 unexpected: extra.0, extra.1" in message
    assert "and 4 more" in message
    assert "3.weight (8×16 in the file, 5×16 in the network)" in message


def test_where_only_names_differ_the_way_out_is_to_rename(tmp_path: Path) -> None:
    state = small().state_dict()
    state["first.weight"], state["last.bias"] = state.pop("0.weight"), state.pop("3.bias")
    with pytest.raises(InputError) as caught:
        load_state(small(), read_checkpoint(written(tmp_path / "m.pt", state)))
    assert caught.value.remedy == "if they are the same weights, rename them in the file: first.weight to 0.weight, last.bias to 3.bias"
    state["last.bias"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        load_state(small(), read_checkpoint(written(tmp_path / "n.pt", state)))
    assert "number of classes" in str(caught.value.remedy)


def test_a_path_that_was_mistyped_is_told_what_lies_there(tmp_path: Path) -> None:
    written(tmp_path / "network.pt", small().state_dict())
    with pytest.raises(InputError, match=r"there is no checkpoint at .*netwrk\.pt$") as caught:
        read_checkpoint(tmp_path / "netwrk.pt")
    assert caught.value.remedy == f"did you mean {tmp_path / 'network.pt'}?"
    with pytest.raises(InputError) as caught:
        read_checkpoint(tmp_path / "gone" / "network.pt")
    assert "ends in .safetensors" in str(caught.value.remedy)


def test_a_mismatch_changes_nothing(tmp_path: Path) -> None:
    network = small(0)
    before = weights_digest(network)
    state = small(1).state_dict()
    state["3.bias"] = torch.zeros(6)
    with pytest.raises(InputError):
        load_state(network, read_checkpoint(written(tmp_path / "m.pt", state)))
    assert weights_digest(network) == before


def test_integers_are_not_weights(tmp_path: Path) -> None:
    state = small().state_dict() | {"3.bias": torch.zeros(5, dtype=torch.int8)}
    with pytest.raises(InputError, match=r"1 of another type: 3\.bias \(torch\.int8 in the file, torch\.float32"):
        load_state(small(), read_checkpoint(written(tmp_path / "m.pt", state)))


def test_a_claimed_size_that_the_file_does_not_hold_is_a_wrong_shape_and_costs_no_memory(tmp_path: Path) -> None:
    state = small().state_dict() | {"3.bias": torch.zeros(1).expand(1 << 45)}
    with pytest.raises(InputError, match="another shape"):
        load_state(small(), read_checkpoint(written(tmp_path / "m.pt", state)))


def test_names_from_the_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_state(small(), read_checkpoint(written(tmp_path / "m.pt", {"\x1b[2Jgone" + "x" * 10_000: torch.zeros(1)})))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 2000


# What must never run


class Touches:
    """A pickle of it creates the marker file when it is loaded by an ordinary unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin"])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "nested"])
def test_a_pickle_that_would_run_code_does_not(form: str, name: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "it-ran", tmp_path / name
    payload = {"weight": torch.zeros(2), "trap": Touches(marker)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(Touches(marker), protocol=2))
    else:
        torch.save({"state_dict": payload} if form == "nested" else payload, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(InputError, match=r"would run \w+\.system, so it was not read") as caught:
        read_checkpoint(path)
    assert caught.value.__cause__ is not None
    assert not marker.exists()
    # The trap is real: an unguarded load springs it.
    if form == "zip":
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_a_whole_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.modules") as caught:
        read_checkpoint(written(tmp_path / "m.pt", small()))
    assert "state_dict" in (caught.value.remedy or "")


# What must not unpack


def repacked(path: Path, compression: int) -> Path:
    """The same archive with its records compressed in another way."""
    packed = path.with_name("packed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", compression) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    return packed


def test_a_small_file_that_would_become_large_is_refused(tmp_path: Path) -> None:
    bomb = repacked(written(tmp_path / "m.pt", {"weight": torch.zeros(1 << 24)}), zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 17
    with pytest.raises(
        InputError, match=r"packed\.pt is compressed, as torch\.save never does it: [\d,]{6,7} bytes that unpack to 67,109,"
    ):
        read_checkpoint(bomb)
    assert torch.load(bomb, weights_only=True)["weight"].numel() == 1 << 24  # the bomb is real


def test_records_that_share_their_bytes_are_refused_too(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", {"weight": torch.zeros(1000)})
    with zipfile.ZipFile(path, "a") as archive:
        (record,) = (each for each in archive.infolist() if each.filename.endswith("data/0"))
        for index in range(1, 100):
            other = copy.copy(record)
            other.filename = record.filename.removesuffix("0") + str(index)
            archive.filelist.append(other)
        archive.comment = b"written anew"
    with pytest.raises(InputError, match="bytes that unpack to 400,"):
        read_checkpoint(path)


def test_what_another_tool_packed_without_compression_loads(tmp_path: Path) -> None:
    path = repacked(written(tmp_path / "m.pt", small().state_dict()), zipfile.ZIP_STORED)
    assert read_checkpoint(path).state.keys() == small().state_dict().keys()


def test_torchs_advice_to_switch_the_protection_off_is_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"weight": [1, 2]}, protocol=4))
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "weights_only" not in f"{caught.value} {caught.value.remedy}"


# What cannot be read


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        read_checkpoint(tmp_path / "model.onnx")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_empty_file_and_an_empty_state_dict_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be read"):
        read_checkpoint(path)
    path.write_bytes(save({}) if suffix == ".safetensors" else pickled({}))
    with pytest.raises(InputError, match="no tensor at all"):
        read_checkpoint(path)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


SAVED = {".safetensors": save(small().state_dict()), ".pt": pickled(small().state_dict())}


@pytest.mark.parametrize("suffix", SAVED)
@IN_A_FOLDER_OF_ITS_OWN
@given(data=st.data())
def test_a_truncated_file_is_refused_wherever_it_ends(suffix: str, tmp_path: Path, data: st.DataObject) -> None:
    whole = SAVED[suffix]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", SAVED)
@IN_A_FOLDER_OF_ITS_OWN
@given(content=st.binary(max_size=200))
def test_a_file_of_any_other_content_is_refused(suffix: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([torch.zeros(1)], "a list, not a state dict"),
        (torch.zeros(1), "a Tensor, not a state dict"),
        ({"weight": torch.zeros(1), "bias": [0.5]}, r"not named tensors: bias \(list\)"),
        ({"weight": 0.5, "epoch": 3}, r"not named tensors: weight \(float\)"),
        ({0: torch.zeros(1)}, "not named tensors"),
        ({"weight": torch.zeros(2, device="meta")}, "meta"),
        ({"weight": torch.eye(2).to_sparse()}, "sparse"),
        ({"state_dict": {}}, "no tensor at all"),
    ],
    ids=repr,
)
def test_what_is_no_state_dict_of_plain_tensors_is_refused(value: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        read_checkpoint(written(tmp_path / "m.pt", value))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_a_torchscript_archive_is_named_as_such(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "m.pt"))
    with pytest.raises(InputError, match="TorchScript"):
        read_checkpoint(tmp_path / "m.pt")


# NaN and infinity


def test_weights_that_are_not_finite_are_named_and_counted() -> None:
    network = small()
    with torch.no_grad():
        network[0].weight[0, 0] = float("nan")
        network[3].bias[2] = float("inf")
        network[1].running_var[:] = float("nan")
    with pytest.raises(InputError, match=r"14 weights that are NaN or infinite, in 3 tensors") as caught:
        require_finite(network, "m.pt")
    assert "0.weight (9 NaN, 0 infinite of 108)" in str(caught.value)
    assert "3.bias (0 NaN, 1 infinite of 5)" in str(caught.value)


def test_an_additive_attention_mask_is_no_broken_weight() -> None:
    network = small()
    network.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
    require_finite(network, "m.pt")
    network.register_buffer("other", torch.full((1,), float("inf")))
    with pytest.raises(InputError, match="other"):
        require_finite(network, "m.pt")


# The digest


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_digest_changes_with_any_single_value(data: st.DataObject) -> None:
    network = small()
    before = weights_digest(network)
    assert weights_digest(small()) == before
    name, tensor = data.draw(st.sampled_from(sorted(network.state_dict().items(), key=lambda item: item[0])))
    tensor.view(-1)[data.draw(st.integers(0, tensor.numel() - 1))] += 1
    assert weights_digest(network) != before, name


def test_the_digest_tells_names_and_shapes_apart() -> None:
    class Holds(nn.Module):
        def __init__(self, **tensors: torch.Tensor) -> None:
            super().__init__()
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor)

    zeros = torch.zeros(6)
    digests = [weights_digest(Holds(**kind)) for kind in ({"a": zeros}, {"b": zeros}, {"a": zeros.view(2, 3)}, {"a": zeros.int()})]
    assert len(set(digests)) == 4
    assert weights_digest(Holds(a=zeros, b=zeros + 1)) == weights_digest(Holds(b=zeros + 1, a=zeros))

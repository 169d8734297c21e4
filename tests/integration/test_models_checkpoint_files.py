"""Checkpoints as training frameworks leave them: under any prefix and entry, beside objects of any class; files that are whole."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import pathlib
import pickle
import random
import re
import shutil
import sys
import tracemalloc
import types
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.checkpoint import read_checkpoint, weights_digest
from dtvit_deploy.models.fitting import load_state
from dtvit_deploy.models.options import Model
from dtvit_deploy.models.reference import load_reference

torch.set_num_threads(1)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def written(path: Path, value: object, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def loaded(path: Path, into: nn.Module | None = None) -> tuple[nn.Module, str]:
    """The network with the file's weights, and what was said of how it got them."""
    network = into or small(1)
    checkpoint = read_checkpoint(path)
    return network, "; ".join((*checkpoint.notes, *load_state(network, checkpoint)))


def same(one: nn.Module, other: nn.Module) -> bool:
    return weights_digest(one) == weights_digest(other)


def under(prefix: str, network: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


# Prefixes


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "encoder.trunk.", "module.model.", "student._orig_mod.", "0."])
def test_a_prefix_of_any_name_is_found_from_the_networks_names(prefix: str, tmp_path: Path) -> None:
    network, said = loaded(written(tmp_path / "m.pt", under(prefix, small(0))))
    assert same(network, small(0))
    assert prefix in said or "_orig_mod" in said


def test_a_network_may_have_the_prefix_that_the_file_lacks_or_another_one(tmp_path: Path) -> None:
    class Wraps(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.body = small(seed)

    for number, prefix in enumerate(["", "body.", "model.body.", "trunk."]):
        network, _ = loaded(written(tmp_path / f"{number}.pt", under(prefix, small(0))), Wraps(1))
        assert same(network, Wraps(0))


def test_a_part_that_was_compiled_has_torchs_name_for_that_dropped(tmp_path: Path) -> None:
    state = {name.replace("3.", "3._orig_mod."): tensor for name, tensor in small(0).state_dict().items()}
    network, said = loaded(written(tmp_path / "m.pt", state))
    assert same(network, small(0))
    assert "torch.compile" in said


def test_what_a_wrapper_holds_beside_the_network_is_left_out_and_named(tmp_path: Path) -> None:
    state = under("model.", small(0)) | {"criterion.weight": torch.ones(5), "accuracy.total": torch.zeros(())}
    network, said = loaded(written(tmp_path / "m.pt", state))
    assert same(network, small(0))
    assert "'model.'" in said
    assert "2 tensors beside it were left out: criterion.weight, accuracy.total" in said


def test_of_a_network_and_its_average_in_one_state_dict_the_average_is_taken(tmp_path: Path) -> None:
    network, said = loaded(written(tmp_path / "m.pt", under("model.", small(2)) | under("model_ema.", small(0))))
    assert same(network, small(0))
    assert "'model_ema.'" in said


def test_of_a_network_and_its_moments_in_one_state_dict_the_network_is_taken(tmp_path: Path) -> None:
    network, _ = loaded(
        written(tmp_path / "m.pt", under("grad.", small(2)) | under("exp_avg.", small(2)) | under("the_weights.", small(0)))
    )
    assert same(network, small(0))


def test_names_that_are_one_without_a_prefix_are_refused_and_no_tensor_is_lost(tmp_path: Path) -> None:
    state = under("m.", small(0)) | {"0.bias": torch.ones(4)}
    state["3.bias"] = state.pop("m.3.bias")
    with pytest.raises(InputError, match=r"one without the prefix 'm\.'.* m\.0\.bias and the same without it"):
        loaded(written(tmp_path / "m.pt", state))


def test_a_prefix_of_some_names_alone_is_dropped_with_a_note(tmp_path: Path) -> None:
    state = under("m.", small(0))
    state["3.bias"] = state.pop("m.3.bias")
    network, said = loaded(written(tmp_path / "m.pt", state))
    assert same(network, small(0))
    assert "8 of the 9 names in the file begin with 'm.', which was dropped" in said


def test_a_part_that_is_not_the_whole_network_is_refused_in_the_names_that_the_network_has(tmp_path: Path) -> None:
    state = under("model.", small(0)) | {"criterion.weight": torch.ones(5)}
    del state["model.3.bias"]
    with pytest.raises(InputError, match=r"1 missing: 3\.bias; 1 unexpected: criterion\.weight"):
        loaded(written(tmp_path / "m.pt", state))


def test_the_number_of_classes_is_read_behind_a_prefix_too(tmp_path: Path) -> None:
    network = load_reference(Model(name="dualtoken-vit-t-mix", input_size=(64, 64), num_classes=7)).module
    path = written(tmp_path / "last.ckpt", {"state_dict": under("model.net.", network)})
    found = load_reference(Model(name="dualtoken-vit-t-mix", checkpoint=path, input_size=(64, 64)))
    assert same(found.module, network)
    assert any("'state_dict'" in note for note in found.weights.notes)


# What stands beside weights


class Phase(enum.Enum):
    TRAIN = "train"


class Configuration(dict):  # type: ignore[type-arg]
    """A mapping of a class of its own, as configurations often are."""


class Callback:
    def __init__(self) -> None:
        self.best, self.where = 0.9, pathlib.PurePosixPath("runs/1")

    def judge(self) -> None: ...


def lightning(network: nn.Module) -> dict[str, object]:
    return {
        "epoch": 9,
        "global_step": 1000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(under("model.", network)),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 10}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.9), "dirpath": pathlib.PurePosixPath("/a/b")}
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}],
        "lr_schedulers": [{"base_lrs": [0.1], "judge": Callback().judge}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"act": nn.GELU, "args": argparse.Namespace(lr=0.1, seen=datetime.date(2026, 1, 2)), "phase": Phase.TRAIN},
    }


BESIDE: dict[str, Callable[[], object]] = {
    "argparse's namespace": lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
    "a simple namespace": lambda: types.SimpleNamespace(a=1, inner=types.SimpleNamespace()),
    "NumPy scalars, arrays and types": lambda: [
        np.float64(0.91),
        np.int32(3),
        np.bool_(True),
        np.arange(5),
        np.dtype("float32"),
        np.float16,
    ],
    "NumPy's random state": lambda: np.random.RandomState(0).get_state(),
    "Python's random state": lambda: [random.getstate(), random.Random(0)],
    "torch's own": lambda: [torch.device("cpu"), torch.float16, torch.Size([1, 2]), nn.GELU, torch.Generator().get_state()],
    "ordered, default and named mappings": lambda: [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
    ],
    "queues and sets": lambda: [collections.deque([1], maxlen=3), {1, 2}, frozenset({3}), range(3), slice(1), 1j],
    "paths of this machine": lambda: [pathlib.Path("a") / "b", pathlib.PureWindowsPath("c:/d")],
    "times": lambda: [datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(1)],
    "numbers that are exact": lambda: [decimal.Decimal("0.1"), uuid.UUID(int=7), 1 << 200],
    "a partial function": lambda: functools.partial(nn.LayerNorm, eps=1e-6),
    "enumerations, and a class that is not here any more": lambda: [Phase.TRAIN, Configuration(a=Configuration(b=1)), Callback()],
    "a whole network": lambda: nn.Sequential(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("what", BESIDE)
def test_objects_beside_the_weights_are_data_that_nobody_makes(
    what: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "last.pt", {"state_dict": small(0).state_dict(), "extra": BESIDE[what]()}, pickle_protocol=protocol)
    monkeypatch.delitem(sys.modules, __name__, raising=False)  # its classes are elsewhere: whoever imported them would fail
    network, said = loaded(path)
    assert same(network, small(0))
    assert "'state_dict'" in said


@pytest.mark.parametrize("older", [False, True], ids=["zip", "older format"])
def test_a_lightning_checkpoint(older: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "last.ckpt", lightning(small(0)), _use_new_zipfile_serialization=not older)
    network, said = loaded(path)
    assert same(network, small(0))
    assert "the entry 'state_dict'" in said
    assert "'model.'" in said


SHAPES: dict[str, Callable[[nn.Module, nn.Module], object]] = {
    "timm": lambda right, other: {
        "state_dict_ema": right.state_dict(),
        "state_dict": other.state_dict(),
        "arch": "t",
        "args": argparse.Namespace(),
    },
    "mmengine": lambda right, other: {
        "meta": {"cfg": Configuration(), "time": datetime.datetime(2026, 1, 1), "history": np.float64(1)},
        "message_hub": {"log_scalars": Configuration(loss=Callback())},
        "state_dict": right.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}},
    },
    "DeepSpeed": lambda right, other: {"module": right.state_dict(), "optimizer": None, "ds_version": "0.15", "dp_world_size": 1},
    "self-distilled": lambda right, other: {"student": under("module.backbone.", other), "teacher": under("backbone.", right), "epoch": 1},
    "an average with its decay": lambda right, other: {"model": other.state_dict(), "ema": {"decay": 0.9, "module": right.state_dict()}},
    "an entry of any name": lambda right, other: {"generator_weights_v2": right.state_dict(), "epoch": 3},
    "entries in entries": lambda right, other: {"model": {"state_dict": right.state_dict()}, "optimizer": other.state_dict()},
    "a mapping of a class of its own": lambda right, other: {"model": Configuration(right.state_dict())},
    "moments of an optimizer, by name": lambda right, other: {"model": right.state_dict(), "exp_avg": other.state_dict(), "exp_avg_sq": {}},
    "moments beside an entry of any name": lambda right, other: {"generator": right.state_dict(), "momentum_buffer": other.state_dict()},
    "gradients and squares": lambda right, other: {"w": right.state_dict(), "square_avg": other.state_dict(), "grads": other.state_dict()},
    "a running average of a figure": lambda right, other: {"net": right.state_dict(), "loss_avg": {"train": torch.ones(9)}},
    "an average called avg": lambda right, other: {"model": other.state_dict(), "model_avg": right.state_dict()},
    "counters of an average": lambda right, other: {
        "state_dict": right.state_dict(),
        "ema": {"decay": torch.tensor(0.99), "updates": torch.tensor(3)},
    },
    "counters of an average beside it": lambda right, other: {
        "model": other.state_dict(),
        "ema": {"decay": torch.tensor(0.99), "module": right.state_dict()},
    },
    "a figure beside an entry of any name": lambda right, other: {"best": torch.tensor(0.9), "generator": right.state_dict()},
    "a network that is called as settings are": lambda right, other: {"hypernet": right.state_dict(), "hyper_parameters": {}},
    "a network that is called as a scaler is": lambda right, other: {"upscaler": right.state_dict(), "grad_scaler": {"s": torch.ones(9)}},
    "extra state of a layer": lambda right, other: right.state_dict() | {"3._extra_state": None, "1.num_batches_tracked": 0},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_weights_are_found_where_frameworks_put_them(shape: str, tmp_path: Path) -> None:
    network, _ = loaded(written(tmp_path / "m.pth.tar", SHAPES[shape](small(0), small(2))))
    assert same(network, small(0))


def test_two_entries_of_unknown_names_are_no_choice_for_a_program(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", {"generator": small(0).state_dict(), "critic": small(1).state_dict()})
    with pytest.raises(InputError, match=r"2 entries \(generator, critic\), and which are the weights is unclear"):
        read_checkpoint(path)


def test_the_entry_that_was_read_is_in_the_message_of_a_mismatch(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", {"state_dict": {"other": torch.zeros(1)}, "args": argparse.Namespace()})
    with pytest.raises(InputError, match=r"m\.pt \(the entry 'state_dict'\) does not fit"):
        loaded(path)


@pytest.mark.parametrize(
    "call",
    [(eval, ("1",)), (exec, ("1",)), (__import__, ("os",)), (open, ("none",)), (sys.exit, ()), (shutil.rmtree, ("none",))],
    ids=["eval", "exec", "import", "open", "exit", "rmtree"],
)
def test_what_calls_more_than_data_is_refused_wherever_it_stands(call: tuple[Any, tuple[Any, ...]], tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return call

    path = written(tmp_path / "m.pt", {"state_dict": small().state_dict(), "args": [argparse.Namespace(deep={"er": Calls()})]})
    with pytest.raises(InputError, match=rf"would run \w+\.{call[0].__name__}"):
        read_checkpoint(path)


# What a small file could make of itself


class Refers:
    """Becomes a persistent id, as storages are in files of torch.save."""

    def __init__(self, *what: object) -> None:
        self.what = what


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.what if isinstance(value, Refers) else None


def saved(path: Path, value: object) -> Path:
    """A file in the newer format, with persistent ids of the test's own."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("archive/data.pkl", "w") as record:
        Pickler(record, protocol=4).dump(value)  # type: ignore[arg-type]
    return path


def row(path: Path, *values: object) -> Path:
    """A file in the older format."""
    path.write_bytes(b"".join(value if isinstance(value, bytes) else pickle.dumps(value, protocol=2) for value in values))
    return path


DOUBLED: tuple[Any, ...] = ()
for _ in range(18):
    DOUBLED = (DOUBLED, DOUBLED)
"""A few bytes of pickle, and a text of a million characters; with forty levels there is no memory for that."""
MAGIC = 0x1950A86A20F9469CFC6C
NEVER_WRITTEN_OUT: dict[str, Callable[[Path], Path]] = {
    "the name of a storage": lambda path: saved(path, {"w": Refers("storage", torch.FloatStorage, DOUBLED, "cpu", 1)}),
    "the type of a storage": lambda path: saved(path, {"w": Refers("storage", DOUBLED, "0", "cpu", 1)}),
    "the version": lambda path: row(path, MAGIC, DOUBLED),
    "the names of the storages that follow": lambda path: row(path, MAGIC, 1001, {}, {}, [DOUBLED]),
    "a module": lambda path: row(path, pickle.dumps(DOUBLED, 2)[:-1] + b"\x8c\x03abc\x93."),
    "a class": lambda path: row(path, b"\x80\x04\x8c\x03abc" + pickle.dumps(DOUBLED, 2)[:-1] + b"\x93."),
    "a value beside the weights": lambda path: written(path, {"w": torch.ones(2), "other": DOUBLED}),
    "what a class of no name was given": lambda path: row(path, pickle.dumps(DOUBLED, 2)[:-1] + b")R."),
}


@pytest.mark.parametrize("what", NEVER_WRITTEN_OUT)
def test_what_a_file_holds_is_never_written_out_as_text(what: str, tmp_path: Path) -> None:
    path = NEVER_WRITTEN_OUT[what](tmp_path / "m.pt")
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 300 + len(str(path))


def test_what_a_call_copies_counts_as_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtvit_deploy.models.inert.MOST_STEPS", 20_000)
    pairs = [(str(index), index) for index in range(1000)]

    class Copies:
        def __reduce__(self) -> tuple[Any, ...]:
            return collections.OrderedDict, (pairs,)

    assert same(loaded(written(tmp_path / "m.pt", {"model": small(0).state_dict(), "other": [Copies()]}))[0], small(0))
    with pytest.raises(InputError, match="more than 20,000 steps"):
        read_checkpoint(written(tmp_path / "m.pt", {"model": small(0).state_dict(), "other": [Copies() for _ in range(20)]}))


def test_a_shape_has_only_as_many_dimensions_as_a_tensor_can_have(tmp_path: Path) -> None:
    assert read_checkpoint(written(tmp_path / "m.pt", {"w": torch.ones((1,) * 64)})).state["w"].ndim == 64
    with pytest.raises(InputError, match="a tensor of no shape"):
        read_checkpoint(written(tmp_path / "m.pt", {"w": torch.ones((1,) * 65)}))


# Counters, integers


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.float32, torch.uint8, torch.float64])
def test_a_counter_of_another_type_is_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    state = small(0).state_dict()
    state["1.num_batches_tracked"] = torch.tensor(200, dtype=dtype)
    network, _ = loaded(written(tmp_path / "m.pt", state))
    assert network[1].num_batches_tracked == 200  # type: ignore[index]


@pytest.mark.parametrize("counter", [None, torch.tensor(float("inf"), dtype=torch.float16), torch.tensor([7]), torch.tensor(0.5)], ids=repr)
def test_a_counter_that_is_missing_or_fits_nowhere_is_left_as_it_is(counter: torch.Tensor | None, tmp_path: Path) -> None:
    state = small(0).state_dict() | {"1.num_batches_tracked": counter}
    network, said = loaded(written(tmp_path / "m.pt", {name: value for name, value in state.items() if value is not None}))
    assert same(network, small(0))
    assert "only training reads" in said


def test_an_index_is_converted_only_where_every_value_is_kept(tmp_path: Path) -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("index", torch.arange(4, dtype=torch.int32))
            self.register_buffer("mask", torch.tensor([True, False]))

    fits = {"index": torch.tensor([3, 1, 2, 0]), "mask": torch.tensor([1, 0], dtype=torch.uint8)}
    network, said = loaded(written(tmp_path / "m.pt", fits), Indexed())
    assert network.index.tolist() == [3, 1, 2, 0]
    assert "2 tensors of integers or booleans were converted" in said
    with pytest.raises(InputError, match="of another type: index"):
        loaded(written(tmp_path / "n.pt", fits | {"index": torch.tensor([1 << 40, 1, 2, 0])}), Indexed())


class Tabled(nn.Module):
    """Makes what others store: an index, a mask, and a table of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("index", torch.arange(4), persistent=False)
        self.register_buffer("mask", torch.tensor([[0.0, float("-inf")]]), persistent=False)
        self.register_buffer("scale", torch.tensor([1 / 3]), persistent=False)


TABLES = {"index": torch.arange(4, dtype=torch.int32), "mask": torch.tensor([[0.0, float("-inf")]]), "scale": torch.tensor([1 / 3]).half()}


@pytest.mark.parametrize("held", [(), ("index",), tuple(TABLES)], ids=str)
def test_tables_that_the_network_makes_itself_may_be_in_the_file(held: tuple[str, ...], tmp_path: Path) -> None:
    wanted = Tabled()
    state = {f"module.{name}": tensor for name, tensor in (wanted.state_dict() | {name: TABLES[name] for name in held}).items()}
    network, said = loaded(written(tmp_path / "m.pt", state), Tabled())
    assert same(network, wanted)
    assert ("that the network makes itself" in said) == bool(held)


@pytest.mark.parametrize("other", [torch.arange(5), torch.tensor([0, 1, 2, 9]), torch.full((4,), float("nan"))], ids=repr)
def test_a_table_that_is_not_the_networks_is_refused(other: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 other than what the network makes itself: index"):
        loaded(written(tmp_path / "m.pt", Tabled().state_dict() | {"index": other}), Tabled())


# Files that are not whole


def flipped(path: Path, record: str) -> Path:
    """The same file with one bit of a record changed."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (info,) = (each for each in archive.infolist() if each.filename.endswith(record))
        at = content.index(archive.read(info), info.header_offset)
    content[at + info.file_size // 2] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("record", ["data/0", "data.pkl", "data/7", "/version"])
def test_a_flipped_bit_anywhere_is_refused_by_the_checksum(record: str, tmp_path: Path) -> None:
    value = {"state_dict": small(0).state_dict(), "optimizer": {"state": {0: torch.ones(50)}}}
    with pytest.raises(InputError, match=rf"cannot be read .*checksum of \S+{record} does not fit") as caught:
        read_checkpoint(flipped(written(tmp_path / "m.pt", value), record))
    assert "copy it again" in (caught.value.remedy or "")


def test_a_file_saved_without_checksums_loads_and_says_so(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = written(tmp_path / "m.pt", small(0).state_dict())
    finally:
        torch.serialization.set_crc32_options(True)
    network, said = loaded(path)
    assert same(network, small(0))
    assert "without checksums" in said


def test_the_older_format_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.pt", small(0).state_dict(), _use_new_zipfile_serialization=False)
    assert same(loaded(whole)[0], small(0))
    content = whole.read_bytes()
    for end in range(0, len(content), 97):
        (tmp_path / "cut.pt").write_bytes(content[:end])
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / "cut.pt")


def test_only_the_weights_take_memory(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    value = {"model": {"a": shared[:4], "b": shared[2:], "c": shared.reshape(2, 3).T}, "optimizer": {"state": {0: torch.zeros(1 << 20)}}}
    state = read_checkpoint(written(tmp_path / "m.pt", value)).state
    assert [state[name].tolist() for name in "abc"] == [[0, 1, 2, 3], [2, 3, 4, 5], [[0, 3], [1, 4], [2, 5]]]
    assert {tensor.untyped_storage().nbytes() for tensor in state.values()} == {24}
    assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == 1


def test_the_content_and_not_the_name_says_what_a_file_is(tmp_path: Path) -> None:
    save_file(small(0).state_dict(), tmp_path / "really-safetensors.pt")
    assert same(loaded(tmp_path / "really-safetensors.pt")[0], small(0))
    written(tmp_path / "really-torch.safetensors", small(0).state_dict())
    assert same(loaded(tmp_path / "really-torch.safetensors")[0], small(0))


@pytest.mark.parametrize(
    ("held", "advice"),
    [
        ("model.safetensors", "give .*model.safetensors"),
        ("model.safetensors.index.json", "split over several"),
        ("zero_to_fp32.py", "DeepSpeed"),
    ],
)
def test_a_folder_is_refused_with_what_to_take_of_it(held: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / held).write_bytes(b"")
    with pytest.raises(InputError, match="a folder") as caught:
        read_checkpoint(tmp_path)
    assert re.search(advice, caught.value.remedy or "")
    if held.endswith(".json"):
        with pytest.raises(InputError, match="index of weights that are split"):
            read_checkpoint(tmp_path / held)


def test_a_plain_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(small(0).state_dict()))
    with pytest.raises(InputError, match=r"pickle\.dump, not by torch\.save"):
        read_checkpoint(tmp_path / "m.pkl")


def test_numbers_and_texts_beside_the_weights_of_a_flat_file_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(2), "epoch": 3, "best": np.float64(0.8), "arch": "vit", "seed": None}, path)
    found = read_checkpoint(path)
    assert list(found.state) == ["weight"]
    assert found.notes == ("4 of the values are no weights and were left out: epoch, best, arch, seed",)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors", "net.ckpt"])
def test_a_pointer_in_place_of_the_file_is_told_as_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    with pytest.raises(InputError, match="pointer of Git LFS") as caught:
        read_checkpoint(tmp_path / name)
    assert caught.value.remedy == "fetch that: git lfs pull"

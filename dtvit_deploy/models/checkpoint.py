"""A checkpoint from a file to a network. The file comes from elsewhere: reading it runs nothing, and what it says of itself is typed."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtvit_deploy.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
"""Where training scripts keep the weights, best first: the average of the weights is what their accuracy was measured with."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, AveragedModel and torch.compile put before every name."""
SHOWN = 5
"""Names that an error lists of each kind; the rest are counted."""

_ARCHIVE = b"PK\x03\x04"
"""By which torch.load tells an archive from its older format."""
_TORCHSCRIPT = "constants.pkl"
"""The record by which torch.load tells TorchScript."""
_SAVE_AGAIN = "save the state dict alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: tensors by name, without ``prefix``, in the types of the file.
        metadata: what a safetensors file says of itself, unchecked; empty for the other formats.
        prefix: what every name began with.
        notes: what was done to get here: which nested entry was taken, which prefix dropped, the stored types.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str]
    prefix: str = ""
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or a ``.pt``, ``.pth`` or ``.bin`` state dict without running any code that it names.

    Raises:
        InputError: the file is missing, truncated, empty or no checkpoint, or is a pickle of more than tensors.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise InputError(f"there is no checkpoint at {path}: it is {kind}", remedy=f"give a file that ends in {', '.join(SUFFIXES)}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path} is no checkpoint that can be read: it ends in {path.suffix or 'nothing'}, not in {', '.join(SUFFIXES)}",
            remedy=_SAVE_AGAIN,
        )
    metadata: dict[str, str] = {}
    notes: list[str] = []
    if suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state = _state_in(_read_pickle(path), path, notes)
    _require_plain(state, path)
    state, prefix = _without_prefix(state, notes)
    stored = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values() if tensor.is_floating_point()} - {"float32"})
    if stored:
        notes.append(f"the weights are stored as {', '.join(stored)} and were converted to float32")
    return Checkpoint(path=path, state=state, metadata=metadata, prefix=prefix, notes=tuple(notes))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself cannot be iterated
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors: {error}", remedy="it is truncated or of another kind: copy or save it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        _require_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to the file's author; what matters here becomes an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a hostile or broken pickle raises whatever it can: KeyError, IndexError, EOFError, …
        text = str(error)
        if named := re.search(r"GLOBAL:? (\S+)", text):
            raise InputError(
                f"{path} holds more than tensors: reading it would run {named[1]}, so it was not read",
                remedy=f"where you trust the file, load it and {_SAVE_AGAIN}",
            ) from error
        if "TorchScript" in text:
            raise InputError(f"{path} is a TorchScript archive, not a state dict", remedy=_SAVE_AGAIN) from error
        if "Weights only load failed" in text:  # the rest of torch's text advises to switch the protection off
            text = "it is not a plain state dict, and nothing in it was run"
        reason = text.split(". ")[0].splitlines()[0] if text.strip() else "it ends too early"
        raise InputError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason})",
            remedy=f"it is empty, truncated or of another kind: copy it again, or {_SAVE_AGAIN}",
        ) from error


def _require_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is: torch.load takes memory for every record of it.

    torch.save compresses nothing, so its records can be no larger than the file.
    """
    with path.open("rb") as file:
        if file.read(4) != _ARCHIVE:
            return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.filename.partition("/")[2] == _TORCHSCRIPT for record in records):
        return  # which does compress, and which torch.load refuses by itself
    unpacked, size = sum(record.file_size for record in records), path.stat().st_size
    if unpacked > size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise InputError(
            f"{path} is compressed, as torch.save never does it: {size:,} bytes that unpack to {unpacked:,}",
            remedy=f"where you trust the file, load it and {_SAVE_AGAIN}",
        )


def _state_in(value: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    """The state dict in what ``torch.load`` gave: the whole, or one well-known entry of it."""
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not a state dict", remedy=_SAVE_AGAIN)
    entries = [key for key in NESTED if isinstance(value.get(key), dict)]
    if entries:
        others = f", not {', '.join(map(repr, entries[1:]))}" if entries[1:] else ""
        notes.append(f"the weights are the entry {entries[0]!r} of the file{others}")
        value = value[entries[0]]
    state: dict[str, Tensor] = dict(value)
    wrong = [f"{key} ({type(item).__name__})" for key, item in state.items() if not isinstance(key, str) or not isinstance(item, Tensor)]
    if wrong:
        raise InputError(f"{path} holds values that are not named tensors: {_some(wrong)}", remedy=_SAVE_AGAIN)
    return state


def _require_plain(state: dict[str, Tensor], path: Path) -> None:
    if not state:
        raise InputError(f"{path} holds no tensor at all", remedy=_SAVE_AGAIN)
    odd = [
        name
        for name, tensor in state.items()
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex()
    ]
    if odd:
        raise InputError(f"{path} holds sparse, quantised, complex or meta tensors: {_some(odd)}", remedy=_SAVE_AGAIN)


def _without_prefix(state: dict[str, Tensor], notes: list[str]) -> tuple[dict[str, Tensor], str]:
    dropped = ""
    while True:
        names = [name for name in state if name != "n_averaged"]  # AveragedModel's own counter
        prefix = next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): state[name] for name in names}
        dropped += prefix
    if dropped:
        notes.append(f"every name in the file begins with {dropped!r}, which was dropped")
    return state, dropped


def load_state(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy every tensor into the network, floats converted to the network's type.

    A tensor that the network ties to another may be missing (safetensors stores shared weights once).

    Raises:
        InputError: names are missing or unexpected, or a shape or a kind of type differs; some of each are named.
    """
    whole = module.state_dict()
    expected = {name: value for name, value in whole.items() if isinstance(value, Tensor)}
    state, prefix = checkpoint.state, checkpoint.prefix
    if prefix and expected and all(name.startswith(prefix) for name in expected):
        state = {prefix + name: tensor for name, tensor in state.items()}  # the network's own names have it too
    given = {_place(tensor) for name, tensor in expected.items() if name in state}
    problems = {
        "missing": [name for name, tensor in expected.items() if name not in state and _place(tensor) not in given],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} ({_shape(state[name])} in the file, {_shape(tensor)} in the network)"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
        "of another type": [
            f"{name} ({state[name].dtype} in the file, {tensor.dtype} in the network)"
            for name, tensor in expected.items()
            if name in state and state[name].dtype != tensor.dtype and not {state[name].dtype, tensor.dtype} <= set(_FLOATS)
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names)
        raise InputError(
            f"the checkpoint {checkpoint.path} does not fit the network: {listed}",
            remedy="give the model, the number of classes and the input size that it was trained with",
        )
    try:
        module.load_state_dict({**whole, **state})
    except (RuntimeError, ValueError, TypeError) as error:  # a hook of the user's own
        raise InputError(f"the network refuses the checkpoint {checkpoint.path}: {error}") from error


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def require_finite(module: nn.Module, source: str) -> None:
    """Refuse a network whose weights no answer can be compared with.

    A buffer may hold −∞: that is how an additive attention mask is written.

    Raises:
        InputError: a parameter or buffer holds NaN or infinity; the first few are named with their counts.
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    wrong: list[str] = []
    values = 0
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
            continue
        nan = int(tensor.isnan().sum())
        infinite = int((tensor.isinf() if name in parameters else tensor.isposinf()).sum())
        if nan or infinite:
            values += nan + infinite
            wrong.append(f"{name} ({nan} NaN, {infinite} infinite of {tensor.numel():,})")
    if wrong:
        raise InputError(
            f"{source} holds {values:,} weights that are NaN or infinite, in {len(wrong)} tensors: {_some(wrong)}",
            remedy="its training diverged, or it was rounded to a type that cannot hold it: give an earlier or a whole checkpoint",
        )


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of the state dict: each name, type, shape and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
            array: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(array)
    return digest.hexdigest()


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str]) -> str:
    """The first few, made fit for a terminal: names come from the file."""
    listed = ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:200]) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")

"""A checkpoint from a file to a network. The file comes from elsewhere: reading it runs nothing, and what it says of itself is typed."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.entries import UnclearError, weights_in
from dtvit_deploy.models.inert import Made, UnsafeError
from dtvit_deploy.models.torch_file import CompressedError, Stored, TorchScriptError, opened
from dtvit_deploy.plural import some

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl")
"""Names that are taken for checkpoints; which of the formats a file has, its first bytes say."""
COUNTER = "num_batches_tracked"
"""How many batches a BatchNorm has seen. It decides nothing once training is over, and old or converted files lack it."""

_PICKLED = (b"PK\x03\x04", b"\x80")
"""How the two formats of torch.save begin."""
_POINTER = b"version https://git-lfs"
_SAVE_AGAIN = "save the state dict alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
_NO_WEIGHTS = ("_extra_state", COUNTER)
"""Last parts of names in a state dict whose values need not be tensors."""
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
"""How NumPy's single numbers are pickled."""
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json", "zero_to_fp32.py")
"""What Hugging Face's and DeepSpeed's folders hold, in the order in which one is of use."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        state: tensors by name, in the types of the file.
        metadata: what a safetensors file says of itself, unchecked; empty for the other formats.
        entry: which entry of the file the weights are; empty where they are the whole of it.
        notes: what was done to get here: which entry was taken, the stored types.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str]
    entry: str = ""
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or what `torch.save` wrote, without running any code that it names.

    Raises:
        InputError: the file is missing, damaged, empty or no checkpoint, calls what no data are made with, or it is unclear where in it
            the weights are.
    """
    if not path.is_file():
        raise _no_file(path)
    suffix = path.suffix.lower()
    if path.name.endswith(".index.json"):
        raise InputError(f"{path} is the index of weights that are split over several files", remedy=f"join them, and {_SAVE_AGAIN}")
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path} is no checkpoint that can be read: it ends in {path.suffix or 'nothing'}, not in {', '.join(SUFFIXES)}",
            remedy=_SAVE_AGAIN,
        )
    metadata: dict[str, str] = {}
    notes: list[str] = []
    entry = ""
    if _is_safetensors(path):
        state, metadata = _read_safetensors(path)
    else:
        state, entry = _read_saved(path, notes)
    _require_plain(state, path)
    stored = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values() if tensor.is_floating_point()} - {"float32"})
    if stored:
        notes.append(f"the weights are stored as {', '.join(stored)} and were converted to float32")
    return Checkpoint(path=path, state=state, metadata=metadata, entry=entry, notes=tuple(notes))


def _no_file(path: Path) -> InputError:
    remedy = f"give a file that ends in {', '.join(SUFFIXES)}"
    if not path.is_dir():
        beside = [one.name for one in path.parent.glob("*") if one.suffix.lower() in SUFFIXES] if path.parent.is_dir() else []
        near = [str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, n=3)]
        return InputError(f"there is no checkpoint at {path}", remedy=f"did you mean {' or '.join(near)}?" if near else remedy)
    held = next((name for name in _IN_FOLDERS if (path / name).is_file()), None)
    if held == "zero_to_fp32.py":
        remedy = f"run DeepSpeed's own {path / held} in it, which joins the parts, and give what it writes"
    elif held is not None:
        remedy = (
            f"give {path / held}"
            if not held.endswith(".json")
            else f"its weights are split over several files: join them, and {_SAVE_AGAIN}"
        )
    return InputError(f"there is no checkpoint at {path}: it is a folder", remedy=remedy)


def _is_safetensors(path: Path) -> bool:
    """By the first bytes; a name that says safetensors counts for all that does not begin as torch.save begins."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if len(start) == 9 and _POINTER.startswith(start):
        raise InputError(f"{path} is a pointer of Git LFS, not the file that it stands for", remedy="fetch that: git lfs pull")
    if start.startswith(_PICKLED) and start[8:] != b"{":
        return False
    return path.suffix.lower() == ".safetensors" or start[8:] == b"{"


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


def _read_saved(path: Path, notes: list[str]) -> tuple[dict[str, Tensor], str]:
    """The weights of a file of torch.save, and the entry that they are."""
    try:
        with opened(path) as file:
            entry, others = weights_in(file.value)
            values = _tensors_of(entry.values, path, notes)
            state = {name: file.tensor(stored) for name, stored in values.items()}
            notes += file.notes
    except InputError:
        raise
    except UnclearError as error:
        raise InputError(f"{path} {error}", remedy=_SAVE_AGAIN) from error
    except UnsafeError as error:
        raise InputError(
            f"{path} holds more than data: to load it elsewhere would run {error}, so it was not read",
            remedy=f"do not load it with torch.load(weights_only=False); where you trust the file, load it and {_SAVE_AGAIN}",
        ) from error
    except TorchScriptError as error:
        raise InputError(f"{path} is a TorchScript archive, not a state dict", remedy=_SAVE_AGAIN) from error
    except CompressedError as error:
        raise InputError(f"{path} {error}", remedy=f"where you trust the file, load it and {_SAVE_AGAIN}") from error
    except Exception as error:  # a hostile or broken file raises whatever it can: BadZipFile, struct.error, MemoryError, …
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if entry.path:
        beside = f", not {', '.join('.'.join(map(repr, one.path)) for one in others)}" if others else ""
        notes.append(f"the weights are {entry} of the file{beside}")
    return state, str(entry) if entry.path else ""


def _tensors_of(values: Mapping[Any, Any], path: Path, notes: list[str]) -> dict[str, Stored]:
    """The tensors of an entry.

    A layer's extra state and a counter need not be tensors, and neither is a weight; and scripts put numbers and texts beside the weights.
    """
    extra = dict.fromkeys(
        key for key, item in values.items() if not isinstance(item, Stored) and str(key).rpartition(".")[2] in _NO_WEIGHTS
    )
    if any(isinstance(item, Stored) for item in values.values()):
        extra |= dict.fromkeys(key for key, item in values.items() if isinstance(key, str) and _is_word(item))
    if extra:
        notes.append(f"{len(extra)} of the values are no weights and were left out: {named(extra)}")
    kept = {key: item for key, item in values.items() if key not in extra}
    odd = [f"{key} ({item})" for key, item in kept.items() if isinstance(item, Made) and str(item).startswith("torch._utils._rebuild")]
    if odd:
        raise InputError(f"{path} holds sparse, quantised, complex or meta tensors: {named(odd)}", remedy=_SAVE_AGAIN)
    wrong = [
        f"{key} ({item if isinstance(item, Made) else type(item).__name__})"
        for key, item in kept.items()
        if not isinstance(key, str) or not isinstance(item, Stored)
    ]
    if wrong:
        raise InputError(f"{path} holds values that are not named tensors: {named(wrong)}", remedy=_SAVE_AGAIN)
    return kept


def _is_word(item: Any) -> bool:
    """Whether a value is one number, a text or nothing, which can be no weight."""
    return (
        item is None or isinstance(item, bool | int | float | complex | str | bytes) or (isinstance(item, Made) and str(item) in _SCALARS)
    )


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} cannot be read as a checkpoint: {reason.splitlines()[0]}",
        remedy=f"it is empty, damaged or of another kind: copy it again, or {_SAVE_AGAIN}",
    )


def _require_plain(state: dict[str, Tensor], path: Path) -> None:
    if not state:
        raise InputError(f"{path} holds no tensor at all", remedy=_SAVE_AGAIN)
    odd = [name for name, tensor in state.items() if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex()]
    if odd:
        raise InputError(f"{path} holds sparse, quantised, complex or meta tensors: {named(odd)}", remedy=_SAVE_AGAIN)


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
            f"{source} holds {values:,} weights that are NaN or infinite, in {len(wrong)} tensors: {named(wrong)}",
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


def named(names: Iterable[str]) -> str:
    """The first few, made fit for a terminal: names come from the file."""
    return some("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:200]) for name in names)

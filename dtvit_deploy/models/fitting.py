"""A state dict into a network whose names have another prefix, or whose counters have another type: what fits exactly is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dtvit_deploy.errors import InputError
from dtvit_deploy.models.checkpoint import COUNTER, Checkpoint, named
from dtvit_deploy.models.entries import is_average, stands_beside
from dtvit_deploy.plural import counted

FEW = 3
"""Names of the network that are looked for behind other prefixes."""
AVERAGED_COUNTER = "n_averaged"
"""Of torch's AveragedModel: beside its weights, how many were averaged."""
COMPILED = "_orig_mod"
"""What torch.compile puts before the names of whatever it compiled, the network or a part of it."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_state(module: nn.Module, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Copy every tensor into the network, floats converted to the network's type.

    Names may begin with another prefix than the network's (``module.``, ``model.``, ``backbone.``, whatever a wrapper called it). Where
    one part of the file is the whole network, that part is taken. Integers and booleans are converted where no value changes. A tensor that
    the network ties to another may be missing (safetensors stores shared weights once). A table that the network makes itself, an index or
    a mask, may be in the file, which must then have the same.

    Returns:
        What was done to the names and values, for people.

    Raises:
        InputError: names are missing or unexpected, two are one without their prefix, a shape or a kind of type differs, or a table is not
            the network's; some of each are named.
    """
    whole = module.state_dict()
    expected = {name: value for name, value in whole.items() if isinstance(value, Tensor)}
    notes: list[str] = []
    state = _renamed(checkpoint, expected, notes)
    state, contradicted = _without_made(state, module, whole, notes)
    state = _converted(state, expected, notes)
    given = {_place(tensor) for name, tensor in expected.items() if name in state}
    problems = {
        "missing": [
            name for name, tensor in expected.items() if name not in state and _place(tensor) not in given and not _is_counter(name)
        ],
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
        "other than what the network makes itself": contradicted,
    }
    if any(problems.values()):
        of_entry = f" ({checkpoint.entry})" if checkpoint.entry else ""
        listed = "; ".join(f"{len(names)} {problem}: {named(names)}" for problem, names in problems.items() if names)
        raise InputError(
            f"the checkpoint {checkpoint.path}{of_entry} does not fit the network: {listed}",
            remedy=_renames(problems, {**expected, **state})
            or "give the model, the number of classes and the input size that it was trained with",
        )
    try:
        module.load_state_dict({**whole, **state})
    except (RuntimeError, ValueError, TypeError) as error:  # a hook of the user's own
        raise InputError(f"the network refuses the checkpoint {checkpoint.path}: {error}") from error
    return tuple(notes)


def _renames(problems: Mapping[str, Sequence[str]], tensors: Mapping[str, Tensor]) -> str:
    """What to do where a few tensors differ in nothing but their names; empty where that is not all."""
    missing, unexpected = problems["missing"], problems["unexpected"]
    alike = sorted(missing, key=lambda name: tuple(tensors[name].shape)), sorted(unexpected, key=lambda name: tuple(tensors[name].shape))
    pairs = list(zip(*alike, strict=False))
    if len(missing) != len(unexpected) or not 0 < len(pairs) <= FEW or sum(map(len, problems.values())) > 2 * len(pairs):
        return ""
    if any(tensors[one].shape != tensors[other].shape for one, other in pairs):
        return ""
    return f"if they are the same weights, rename them in the file: {', '.join(f'{other} to {one}' for one, other in pairs)}"


def common_prefix(names: Iterable[str]) -> str:
    """The longest row of whole parts, each with its dot, that every name begins with; the last part of a name is never in it."""
    parts: list[str] | None = None
    for name in names:
        own = name.split(".")[:-1]
        if parts is None:
            parts = own
        while parts != own[: len(parts)]:
            parts.pop()
    return "".join(f"{part}." for part in parts or [])


def _renamed(checkpoint: Checkpoint, expected: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The state under the network's names: the prefix is taken off, and the one put on, with which most names are the network's."""
    state = _without_compiled(checkpoint.state, expected, notes)
    if AVERAGED_COUNTER in state and AVERAGED_COUNTER not in expected:
        del state[AVERAGED_COUNTER]
    needed = _needed(expected)
    whole = common_prefix(state)
    drops, adds = _prefixes(whole), _prefixes(common_prefix(expected))
    drops += [prefix for name in needed[:FEW] for prefix in _before(name, state) if prefix not in drops]

    def renamed(drop: str, add: str) -> dict[str, Tensor]:
        return {add + name.removeprefix(drop): tensor for name, tensor in state.items()}

    # Among equals the smallest change: whoever reads what is missing should find the names of the file.
    choices = [(drop, add) for drop in drops for add in adds]
    drop, add = max(choices, key=lambda pair: (len(renamed(*pair).keys() & expected.keys()), -len(pair[0]) - len(pair[1])))
    found = renamed(drop, add)
    if not whole.startswith(drop) and (part := _part(state, needed)):
        return _of_part(state, part, notes)
    if len(found) < len(state):  # one of two tensors would be lost, and which is the network's nobody knows
        both = [drop + name for name in state if drop + name in state and not name.startswith(drop)]
        raise InputError(
            f"the checkpoint {checkpoint.path} has names that are one without the prefix {drop!r}, with which most fit the network:"
            f" {named(both)} and the same without it",
            remedy="save the state dict of the network alone",
        )
    if drop:
        having = sum(name.startswith(drop) for name in state)
        which = "every name" if having == len(state) else f"{having} of the {len(state)} names"
        notes.append(f"{which} in the file {'begins' if having in (1, len(state)) else 'begin'} with {drop!r}, which was dropped")
    if add:
        notes.append(f"every name of the network begins with {add!r}, which the file lacks")
    return found


def _prefixes(longest: str) -> list[str]:
    parts = longest.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:count]) for count in range(len(parts) + 1)]


def _needed(expected: Mapping[str, Tensor]) -> list[str]:
    """Names that no file may lack: neither counters nor tensors that the network ties to an earlier one."""
    places = {_place(tensor): name for name, tensor in reversed(list(expected.items()))}
    return [name for name, tensor in expected.items() if not _is_counter(name) and places[_place(tensor)] == name]


def _before(name: str, state: Mapping[str, Tensor]) -> list[str]:
    """What stands in the file before a name of the network's; whole parts, each with its dot."""
    return [own.removesuffix(name) for own in state if own.endswith("." + name)]


def _part(state: Mapping[str, Tensor], needed: Sequence[str]) -> str:
    """The prefix under which the whole network lies beside other things, as a Lightning module has it; empty where there is none.

    Of several, an average of the weights is preferred, as among the entries of a file.
    """

    def worth(prefix: str) -> tuple[bool, bool, int]:
        parts = prefix.split(".")
        return any(map(stands_beside, parts)), not any(map(is_average, parts)), len(prefix)

    return min((prefix for prefix in _before(needed[0], state) if all(prefix + name in state for name in needed)), key=worth, default="")


def _of_part(state: Mapping[str, Tensor], part: str, notes: list[str]) -> dict[str, Tensor]:
    others = [name for name in state if not name.startswith(part)]
    beside = f"{counted(len(others), 'tensor')} beside it {_was(others)} left out"
    notes.append(f"the network is what the file has under {part!r}; {beside}: {named(others)}")
    return {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}


def _without_compiled(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Names without what torch.compile puts into them, unless the network is compiled too."""
    plain = {".".join(part for part in name.split(".") if part != COMPILED): name for name in state}
    if plain.keys() == set(state) or len(plain) < len(state) or any(COMPILED in name.split(".") for name in expected):
        return dict(state)
    notes.append(f"names in the file hold {COMPILED!r}, which torch.compile puts there; it was dropped")
    return {new: state[old] for new, old in plain.items()}


def _without_made(
    state: dict[str, Tensor], module: nn.Module, whole: Mapping[str, object], notes: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The state without the tables that the network makes itself and does not store, and which of them have other values in the file.

    Published modules often store theirs: of relative positions, of masks.
    """
    made = {name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name not in whole and name in state}
    same = [name for name, buffer in made.items() if _is(state[name], buffer)]
    if same:
        which = f"{counted(len(same), 'table')} that the network makes itself {_was(same)} left out"
        notes.append(f"{which}, being the same: {named(same)}")
    rest = {name: tensor for name, tensor in state.items() if name not in made}
    return rest, [name for name in made if name not in same]


def _is(stored: Tensor, made: Tensor) -> bool:
    """The same values, as far as the type that they are stored in can hold them."""
    return stored.shape == made.shape and torch.equal(stored, made.to(device=stored.device, dtype=stored.dtype))


def _converted(state: dict[str, Tensor], expected: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Counters that do not fit left out, integers and booleans in the network's type where no value changes."""
    found, dropped, changed = {}, [], []
    for name, tensor in state.items():
        wanted = expected.get(name)
        if wanted is not None and tensor.dtype != wanted.dtype and not wanted.is_floating_point() and tensor.shape == wanted.shape:
            exact = tensor.to(wanted.dtype)
            if torch.equal(exact.to(tensor.dtype), tensor):
                changed.append(name)
                tensor = exact
        fits = wanted is not None and wanted.shape == tensor.shape and wanted.dtype == tensor.dtype
        if _is_counter(name) and not fits:
            dropped.append(name)
        else:
            found[name] = tensor
    lacking = [name for name in expected if _is_counter(name) and name not in state]
    if dropped or lacking:
        notes.append(
            f"{len(dropped) + len(lacking)} of the counters {COUNTER!r} are not in the file, or do not fit; only training reads them"
        )
    if others := [name for name in changed if not _is_counter(name)]:
        notes.append(
            f"{counted(len(others), 'tensor')} of integers or booleans {_was(others)} converted, with every value kept: {named(others)}"
        )
    return found


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"

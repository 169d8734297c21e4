"""Which entry of a training checkpoint is the weights. Scripts save them under many names, beside optimizers, arguments and counters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dtvit_deploy.models.inert import Made
from dtvit_deploy.models.torch_file import Stored

DEEPEST = 3
"""Entries in entries that are looked into: ``{"ema": {"module": {"state_dict": …}}}``."""
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model", "swa_model", "teacher")
"""Names of averages of the weights, best first: the accuracy of a training was usually measured with those."""
USUAL = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "params", "weights", "student")
_AVERAGE = re.compile(
    r"(^|[_.])(ema|swa|averaged?|avg_(model|net(work)?|weights?|params?|state)|(model|net(work)?|weights?|params?)_avg)([_.]|$)|^avg$",
    re.IGNORECASE,
)
"""``avg`` beside another word is what optimizers keep (``exp_avg``, ``square_avg``), or a figure (``loss_avg``)."""
_NOT_WEIGHTS = re.compile(
    r"optimi[sz]er|callback|param_groups|message_hub|hyper_?param|(grad|amp|loss)_?scaler|scheduler|lr_?sched"
    r"|(^|_)(optim|sched(ule)?|scalers?|loops|rng|args|config|cfg|meta|hypers?|hparams|loss(es)?|metrics?)($|_)"
    r"|(^|_)(exp_(avg|inf)|(square|grad)_avg|acc_delta)($|_)|(^|_)(momentum(s|_buffers?)?|grads?|gradients?)$",
    re.IGNORECASE,
)
"""What stands beside weights. Whole words, where part of one may be a network: ``hypernet``, ``upscaler``, ``momentum_encoder``."""


class UnclearError(ValueError):
    """There are no weights in the file, or several entries could be them."""


@dataclass(frozen=True)
class Entry:
    """A mapping of a file that holds tensors by name.

    Attributes:
        path: its keys from the top; empty for the whole file.
        values: tensors, and what stands beside them.
    """

    path: tuple[str, ...]
    values: Mapping[Any, Any]

    def __str__(self) -> str:
        return "the entry " + ".".join(map(repr, self.path)) if self.path else "the whole file"


def weights_in(value: Any) -> tuple[Entry, tuple[Entry, ...]]:
    """The entry that is the weights, and the others that could have been.

    An average of the weights comes first, then the usual names in the order of :data:`USUAL`, then the only entry that holds tensors. An
    entry of single numbers, as averages keep of themselves (``decay``, ``updates``), is passed over where anything else holds more.

    Raises:
        UnclearError: there is none, or several of names that say nothing.
    """
    top = mapping(value)
    if top is None:
        raise UnclearError(f"holds {_kind(value)}, not a state dict")
    entries = list(_entries(top, (), set()))
    flat = any(isinstance(item, Stored) for item in top.values())
    found = [entry for entry in entries if _has_rows(entry.values)]
    if _has_rows(top):
        found = [entry for entry in found if _known(entry.path[0])]
    elif not found:
        found = [entry for entry in entries if not flat or _known(entry.path[0])]
    if flat and not found:
        return Entry((), top), ()
    known = sorted((entry for entry in found if _rank(entry) is not None), key=lambda entry: _rank(entry) or (0, 0, 0))
    if known:
        return known[0], tuple(known[1:])
    if len(found) > 1:
        names = ", ".join(".".join(one.path) for one in found[:5])
        raise UnclearError(f"holds tensors in {len(found)} entries ({names}), and which are the weights is unclear")
    if found:
        return found[0], ()
    named = next((key for key in (*AVERAGED, *USUAL) if key in top), None)
    if named is not None:
        inner = mapping(top[named])
        if inner is None:
            raise UnclearError(f"holds {_kind(top[named])} as its entry {named!r}, not a state dict")
        return Entry((named,), inner), ()
    return Entry((), top), ()


def mapping(value: Any) -> Mapping[Any, Any] | None:
    """What ``value`` holds by key, if it is a mapping of whatever class; None for all else."""
    if isinstance(value, Made):
        return value.items or None
    return value if isinstance(value, dict) else None


def _entries(values: Mapping[Any, Any], path: tuple[str, ...], seen: set[int]) -> Iterator[Entry]:
    """Every mapping below that holds tensors by name; one that is there twice is met once."""
    for key, item in values.items():
        inner = mapping(item)
        if inner is None or not isinstance(key, str) or id(inner) in seen or stands_beside(key):
            continue
        seen.add(id(inner))
        here = (*path, key)
        if any(isinstance(one, Stored) and isinstance(name, str) for name, one in inner.items()):
            yield Entry(here, inner)
        if len(here) < DEEPEST and not _has_rows(inner):
            yield from _entries(inner, here, seen)


def _has_rows(values: Mapping[Any, Any]) -> bool:
    """Whether any tensor of a mapping is more than a single number."""
    return any(isinstance(one, Stored) and any(number > 1 for number in one.shape) for one in values.values())


def is_average(key: str) -> bool:
    """Whether a name says that what it is of is an average of the weights; ``teacher`` does, by what it is the teacher of."""
    return key in AVERAGED or _AVERAGE.search(key) is not None


def stands_beside(key: str) -> bool:
    """Whether a name says that what it is of stands beside the weights: the state of an optimizer, a gradient, a figure."""
    return _NOT_WEIGHTS.search(key) is not None


def _known(key: str) -> bool:
    return is_average(key) or key in USUAL


def _rank(entry: Entry) -> tuple[int, int, int] | None:
    """Smallest is best: whether it is no average, where its name stands in the list, how deep it lies. None where no name says anything."""
    averaged = [AVERAGED.index(key) if key in AVERAGED else len(AVERAGED) for key in entry.path if is_average(key)]
    usual = [USUAL.index(key) for key in entry.path if key in USUAL]
    if averaged:
        return 0, min(averaged), len(entry.path)
    return (1, min(usual), len(entry.path)) if usual else None


def _kind(value: Any) -> str:
    if isinstance(value, Made):
        return f"an object of {value}"
    name = "Tensor" if isinstance(value, Stored) else type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
